"""Hybrid parallelism: a stack of pipeline, data, context, expert and tensor parallelism on one grid of ranks.

Neighbouring ranks share most, so the grid's axes stand in the order of their traffic: pipeline slowest, tensor
fastest, as in Megatron (Narayanan et al. 2021, arXiv:2104.04473).
"""

from __future__ import annotations

from .. import checks
from ..rules import Rule
from ..stack import Layer, Order, Stack, stack
from .context_parallel import ContextParallel
from .data_parallel import DataParallel
from .expert_parallel import ExpertParallel
from .pipeline import Pipeline
from .sharded import Sharded
from .single import Single
from .tensor_parallel import TensorParallel


def Hybrid(
    data: int = 1,
    tensor: int = 1,
    pipeline: int = 1,
    context: int = 1,
    expert: int = 1,
    zero: int = 0,
    microbatches: int = 1,
    schedule: str = "1f1b",
    chunks: int = 1,
    sequence: bool = False,
    rule: Rule | None = None,
) -> Stack:
    """The stack of what has more than one rank: ``data × tensor × pipeline × context × expert`` ranks in all.

    - ``zero``: the stage of sharding over the data axis; 0 is plain data parallelism.
    - ``microbatches``: into how many parts a rank's share of the batch is cut; ``schedule`` and ``chunks`` are those of
      the pipeline.
    - ``sequence``: tensor parallelism splits tokens too.

    Nothing is written anew: ``Hybrid(data=2, pipeline=2)`` is ``stack(Pipeline(…), DataParallel(…))``.

    >>> print(Hybrid(data=2, tensor=4, pipeline=2, microbatches=8))
    Pipeline(schedule='1f1b', microbatches=8, stages=2) + DataParallel(replicas=2) + TensorParallel(ways=4)
    """
    sizes = dict(data=data, tensor=tensor, pipeline=pipeline, context=context, expert=expert)
    for name, size in sizes.items():
        checks.whole(name, size, least=1, of="in ranks")
    if zero not in (0, 1, 2, 3):
        raise ValueError(f"zero is the stage of sharding, 1 to 3, or 0 for none; got zero={zero!r}")
    if zero and data == 1:
        raise ValueError(f"zero shards over the data axis; got zero={zero} with data=1: give data two ranks or more")
    if checks.flag("sequence", sequence) and tensor == 1:
        raise ValueError("sequence=True belongs to tensor parallelism; got tensor=1: give tensor two ranks or more")
    if checks.whole("chunks", chunks, least=1) > 1 and pipeline == 1:
        raise ValueError(f"chunks are of a pipeline; got chunks={chunks} with pipeline=1: give pipeline two ranks")
    return stack(_order(pipeline, microbatches, schedule, chunks, rule), *_layers(sizes, zero, sequence))


def _order(pipeline: int, microbatches: int, schedule: str, chunks: int, rule: Rule | None) -> Order:
    staged = Pipeline(schedule, microbatches, pipeline, chunks if chunks > 1 else None, rule=rule)
    return staged if pipeline > 1 else Single(microbatches=microbatches, rule=rule)


def _layers(sizes: dict[str, int], zero: int, sequence: bool) -> list[Layer]:
    found: list[Layer] = []
    if zero:
        found.append(Sharded(zero, replicas=sizes["data"]))
    elif sizes["data"] > 1:
        found.append(DataParallel(replicas=sizes["data"]))
    if sizes["expert"] > 1:
        found.append(ExpertParallel(ways=sizes["expert"]))
    if sizes["context"] > 1:
        found.append(ContextParallel(ways=sizes["context"]))
    if sizes["tensor"] > 1:
        found.append(TensorParallel(sequence, ways=sizes["tensor"]))
    return found
