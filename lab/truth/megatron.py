"""Megatron-LM as a stack, and the published runs of it: Narayanan et al. 2021, Korthikanti et al. 2022, vTrain.

What the stack says is what the papers describe: layers split evenly over the stages; 1F1B, interleaved where stages
have several chunks; gradients of a replica averaged at once after the last backward pass, in 2 bytes each, as the
version of 2021 did without overlap; tensor parallelism inside of a machine; activations that pass to the next stage
scattered over the tensor-parallel ranks, as DeepSpeed's pipeline does too, with which vTrain measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf

from simulator import DataParallel, Pipeline, TensorParallel, stack
from simulator.models import Transformer
from simulator.stack import Layer, Order, Stack
from simulator.strategies import Single

from .rows import Row, Setup, table
from .scattering import ScatterGather


def megatron(
    tensor: int, pipeline: int, data: int, microbatches: int, chunks: int = 1, sequence: bool = False
) -> Stack:
    """The stack; ``sequence``: tokens are split too.

    >>> print(megatron(tensor=8, pipeline=4, data=2, microbatches=16).order)
    Pipeline(schedule='1f1b', microbatches=16, stages=4)
    """
    order: Order = Single(microbatches=microbatches)
    layers: list[Layer] = []
    if pipeline > 1:
        schedule = "interleaved" if chunks > 1 else "1f1b"
        order = Pipeline(schedule, microbatches, pipeline, chunks if chunks > 1 else None)
        if tensor > 1 and not sequence:
            layers.append(ScatterGather())
    if data > 1:
        layers.append(DataParallel(bucket_bytes=inf, overlap=False, replicas=data))
    if tensor > 1:
        layers.append(TensorParallel(sequence, ways=tensor))
    return stack(order, *layers)


def korthikanti2022() -> Iterator[Row]:
    """Table 5: whole layers recomputed, or attention alone with tokens split over tensor-parallel ranks."""
    for line in table("korthikanti2022_table5"):
        selective = line["mode"].startswith("selective")
        setup = _setup(
            line, micro=int(line["micro_batch"]), vocab=51200, chunks=int(line["virtual_stages"]), selective=selective
        )
        recompute = "selective, sequence" if selective else "full"
        yield Row(f"{line['model']}, {recompute}", line["model"], float(line["iter_time_s"]), setup)


def megatron2021() -> Iterator[Row]:
    """Table 1: weak scaling from 1.7 to 1008 billion parameters; the time follows from the published FLOP/s."""
    for line in table("megatron2021_table1"):
        setup = _setup(line, micro=int(line["micro_batch"]), chunks=int(line["virtual_stages"]))
        yield Row(line["model"], line["model"], float(line["iter_time_s_derived_eq3"]), setup)


def megatron2021_table2() -> Iterator[Row]:
    """Table 2, its half with pipeline, tensor and data parallelism."""
    for line in table("megatron2021_table2_zero3_vs_ptd"):
        if line["scheme"] == "PTD":
            model = f"GPT-{line['params_b']}B"
            setup = _setup(line, micro=int(line["micro_batch"]))
            yield Row(f"{model}, {line['n_gpus']} GPUs", model, float(line["iter_time_s_derived_eq3"]), setup)


def vtrain_multi() -> Iterator[Row]:
    """vTrain's open rows on many machines, which have 800 Gbit/s each: 100 for each A100."""
    return _vtrain("vtrain_multi_a100_open", card="100gbe-roce")


def vtrain_single() -> Iterator[Row]:
    """vTrain's open rows inside of one machine."""
    return _vtrain("vtrain_single_a100_open")


def _vtrain(name: str, card: str | None = None) -> Iterator[Row]:
    for line in table(name):
        model = f"h{line['hidden']} l{line['layers']}"
        grid = f"t{line['tp']} p{line['pp']} d{line['dp']}"
        setup = _setup(line, micro=int(line["micro_batch"]), card=card)
        row = f"{model} {grid}, {line['micro_batch']} of {line['global_batch']}"
        yield Row(row, model, float(line["iter_time_ms"]) / 1e3, setup)


def _setup(
    line: Mapping[str, str],
    micro: int,
    vocab: int | None = None,
    chunks: int = 1,
    selective: bool = False,
    card: str | None = None,
) -> Setup:
    tensor, pipeline, data, batch = (int(line[key]) for key in ("tp", "pp", "dp", "global_batch"))
    shape = Transformer(
        layers=int(line["layers"]),
        hidden=int(line["hidden"]),
        heads=int(line["heads"]),
        sequence=int(line["seq_len"]),
        vocab=padded(int(line["vocab"]) if vocab is None else vocab, tensor),
        dtype="fp16",
        recompute="selective" if selective else "full",
    )
    strategy = megatron(tensor, pipeline, data, batch // data // micro, chunks, selective)
    ranks = tensor * pipeline * data
    size = ("ranks", ranks) if ranks <= 8 else ("nodes", -(-ranks // 8))
    return Setup(shape, batch, strategy, "dgx-a100", (size,), card=card)


def padded(vocab: int, tensor: int) -> int:
    """Letters, so many that 128 divides each rank's, as Megatron pads them.

    >>> padded(50257, 8), padded(51200, 8)
    (51200, 51200)
    """
    return -(-vocab // (128 * tensor)) * 128 * tensor
