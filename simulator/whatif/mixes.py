"""Mixes of data, tensor and pipeline parallelism: which there are on so many ranks, and each as a strategy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..model import Model
from ..models.chains import Chain
from ..models.transformer import Transformer
from ..rules import Rule
from ..stack import Layer, Order, Stack, stack
from ..strategies import DataParallel, MixedPrecision, Pipeline, Sharded, Single, TensorParallel

CHUNKS = (1, 2, 3, 4, 6, 8)
"""Chunks of the model that a rank of a pipeline may have; with one it runs 1F1B, with more its interleaved form."""


@dataclass(frozen=True)
class Mix:
    """``data`` × ``tensor`` × ``pipeline`` ranks, ZeRO ``stage`` (0: none), ``microbatches`` of so many samples.

    ``chunks`` of the model per rank of a pipeline; ``recompute``: None where the model is left as it is. Ranks that
    share blocks share tokens too, where ``sequence`` says so.
    """

    data: int = 1
    tensor: int = 1
    pipeline: int = 1
    stage: int = 0
    microbatches: int = 1
    microbatch: float = 1
    chunks: int = 1
    recompute: str | None = None
    sequence: bool = True

    @property
    def schedule(self) -> str:
        """Of its pipeline."""
        return "" if self.pipeline == 1 else "1f1b" if self.chunks == 1 else "interleaved"

    @property
    def knobs(self) -> dict[str, Any]:
        """Of ``simulate``."""
        return {} if self.recompute is None else {"recompute": self.recompute}

    def columns(self) -> dict[str, Any]:
        """How it stands in a table."""
        names = ("data", "tensor", "pipeline", "stage", "microbatch", "microbatches", "chunks")
        told = {name: getattr(self, name) for name in names}
        return {**told, "schedule": self.schedule, "recompute": self.recompute or "as it is"}

    def strategy(self, rule: Rule | None, dtype: str | None) -> Stack:
        """The strategy; ``dtype``: of mixed precision, None without."""
        order: Order = Single(self.microbatches, rule=rule)
        if self.pipeline > 1:
            chunks = self.chunks if self.chunks > 1 else None
            order = Pipeline(self.schedule, self.microbatches, stages=self.pipeline, chunks=chunks, rule=rule)
        layers: list[Layer] = []
        if self.data > 1:
            layers.append(Sharded(self.stage, replicas=self.data) if self.stage else DataParallel(replicas=self.data))
        if self.tensor > 1:
            layers.append(TensorParallel(self.sequence, ways=self.tensor))
        if dtype is not None:
            layers.append(MixedPrecision(dtype))
        return stack(order, *layers)

    def __str__(self) -> str:
        parts = [f"{getattr(self, name)}-way {name}" for name in ("data", "tensor", "pipeline")]
        told = [part for part in parts if not part.startswith("1-")] or ["one rank"]
        zero = f", ZeRO stage {self.stage}" if self.stage else ""
        chunks = f" in {self.chunks} chunks" if self.chunks > 1 else ""
        again = f", recompute {self.recompute}" if self.recompute not in (None, "none") else ""
        many = f"{self.microbatches} microbatch{'es' if self.microbatches > 1 else ''} of {self.microbatch:g}"
        return f"{' × '.join(told)}{chunks}{zero}, {many}{again}"


def mixes(model: Model, ranks: int, refused: Counter[str]) -> Iterator[Mix]:
    """All mixes for so many ranks that the model can be divided by; ``refused`` counts the others, by reason.

    Left out is what cannot win: stage 2 where there are several microbatches, whose gradients are added up whole.
    """
    units, blocks = split_units(model), len(model.blocks)
    for tensor in divisors(ranks):
        for pipeline in divisors(ranks // tensor):
            data = ranks // tensor // pipeline
            why = _divides(model, units, tensor, pipeline, data)
            if why:
                refused[why] += 1
                continue
            for microbatch in _microbatches(model.batch // data):
                many = model.batch // data // microbatch
                for chunks in CHUNKS if pipeline > 1 else (1,):
                    if chunks > 1 and (many % pipeline or blocks < pipeline * chunks):
                        refused["chunks of an interleaved pipeline do not divide"] += 1
                        continue
                    for stage in _stages(data, many):
                        for recompute in recomputations(model):
                            yield Mix(data, tensor, pipeline, stage, many, microbatch, chunks, recompute)


def divisors(number: int) -> list[int]:
    """All that divide a number, ascending.

    >>> divisors(12)
    [1, 2, 3, 4, 6, 12]
    """
    small = [n for n in range(1, int(number**0.5) + 1) if number % n == 0]
    return small + [number // n for n in reversed(small) if n * n != number]


def split_units(model: Model) -> int:
    """Of what tensor parallelism splits, the part with the fewest units (heads, say); 1 where blocks have no parts."""
    if any(not block.parts or block.ties for block in model.blocks):
        return 1
    shared = {id(block): block for block in model.blocks}.values()
    parts = [part for block in shared for part in block.parts]
    return min((count for part in parts for count, _ in part.split_units), default=1)


def recomputations(model: Model) -> tuple[str | None, ...]:
    """What a model may compute again: attention, in that which keeps its scores; all; or as it is."""
    recipe = model.recipe
    if isinstance(recipe, Transformer):
        return recipe.recomputations
    if isinstance(recipe, Chain):
        return "none", "full"
    return (None,) if any(block.recomputes for block in model.blocks) else (None, "full")


def _divides(model: Model, units: int, tensor: int, pipeline: int, data: int) -> str:
    """Why a model cannot be divided so; "" where it can."""
    if units % tensor:
        return "units of blocks (heads, say) do not divide"
    if pipeline > len(model.blocks):
        return "stages without a block"
    return "the batch does not divide" if model.batch % data else ""


def _microbatches(samples: int) -> list[int]:
    """Sizes: powers of two that divide a rank's samples, and all of them at once."""
    return [n for n in divisors(samples) if n & (n - 1) == 0 or n == samples]


def _stages(data: int, microbatches: int) -> tuple[int, ...]:
    if data == 1:
        return (0,)
    return (0, 1, 2, 3) if microbatches == 1 else (0, 1, 3)
