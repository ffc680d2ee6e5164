"""Published memory of a GPU beside what ``simulator.memory`` reads from the program: Korthikanti et al. 2022.

The paper (arXiv:2205.05198, figures 1 and 7) counts what belongs to layers: 18 bytes for each of their parameters, as
gradients are added up in 4 bytes, and the activations of the first stage, which holds most. So the states are those of
a stage in the middle, and embedding and scores keep nothing; what they add is told beside. GiB are 2³⁰ bytes.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import simulator as sim
from simulator.footprint import Footprint
from simulator.models import Transformer
from simulator.stack import Layer, Order, Stack

from .errors import Errors
from .rows import table

GIB = 2**30
TENSOR = 8
"""Ranks that share a layer, in all rows."""


@dataclass(frozen=True)
class Plan:
    """A model of the paper's table 3: layers, hidden, heads; microbatch [samples]; stages, and chunks of each."""

    layers: int
    hidden: int
    heads: int
    microbatch: int
    stages: int = 1
    chunks: int = 1

    def strategy(self, sequence: bool) -> Stack:
        """Of the paper: interleaved where stages have several chunks, mixed precision with gradients in 4 bytes."""
        layers: list[Layer] = [sim.TensorParallel(sequence, ways=TENSOR), sim.MixedPrecision("fp16", accumulate=True)]
        return sim.stack(self._order(), *layers)

    def _order(self) -> Order:
        if self.stages == 1:
            return sim.Single()
        if self.chunks == 1:
            return sim.Pipeline("1f1b", 2 * self.stages, self.stages)
        return sim.Pipeline("interleaved", 2 * self.stages, self.stages, self.chunks)

    def model(self, recompute: str, vocabulary: bool) -> sim.Model:
        """Its transformer, with 2 microbatches for each stage: more would need no more memory.

        Without ``vocabulary`` what embedding and scores keep does not count.
        """
        samples = self.microbatch * (1 if self.stages == 1 else 2 * self.stages)
        shape = Transformer(
            self.layers, self.hidden, self.heads, 2048, 51200, dtype="fp16", recompute=recompute, batch=samples
        )
        found = shape.model()
        if vocabulary:
            return found
        return replace(found, blocks=tuple(_keeping_nothing(one) if one.aside else one for one in found.blocks))


def _keeping_nothing(block: sim.Block) -> sim.Block:
    """A block that keeps no more than what enters it."""
    parts = tuple(replace(part, saved_bytes=0.0, saved_units=0.0) for part in block.parts)
    return replace(block, parts=parts, saved_bytes=block.input_bytes)


PLANS = {
    "megatron-22B": Plan(48, 6144, 64, microbatch=4),
    "gpt3-175B": Plan(96, 12288, 96, microbatch=1, stages=8, chunks=3),
    "turing-530B": Plan(105, 20480, 128, microbatch=1, stages=35, chunks=3),
    "megatron-1T": Plan(128, 25600, 160, microbatch=1, stages=64),
}
WAYS = {
    "activations GiB/GPU no recompute (TP only)": (False, "none"),
    "activations GiB/GPU SP+selective": (True, "selective"),
    "activation % of TP baseline: none": (False, "none"),
    "activation % of TP baseline: seq-parallel": (True, "none"),
    "activation % of TP baseline: selective": (False, "selective"),
    "activation % of TP baseline: SP+selective": (True, "selective"),
    "activation % of TP baseline: full": (False, "full"),
}
"""By quantity: whether tokens are split over tensor-parallel ranks, and what is recomputed."""
STATES = "params+optimizer GiB/GPU"


@dataclass(frozen=True)
class Row:
    """What was published of a ``model``, and what is predicted: GiB, or per cent. ``all``: with the vocabulary."""

    model: str
    quantity: str
    measured: float
    predicted: float
    all: float

    @property
    def error(self) -> float:
        """Predicted over measured less one."""
        return self.predicted / self.measured - 1


def korthikanti2022_memory(models: Container[str] = PLANS) -> Iterator[Row]:
    """Every row of the file that is of one of the models."""
    for line in table("korthikanti2022_memory"):
        name, quantity = line["model"], line["quantity"]
        if name in models:
            found = (predicted(PLANS[name], quantity, vocabulary) for vocabulary in (False, True))
            yield Row(name, quantity, float(line["value"]), *found)


def predicted(plan: Plan, quantity: str, vocabulary: bool) -> float:
    """A quantity of the file: GiB of a GPU, or per cent of the activations with tensor parallelism alone."""
    if quantity == STATES:
        states = held(plan, True, "selective", True)[0 if vocabulary else plan.stages // 2]
        return (states.parameters + states.gradients + states.optimizer) / GIB
    activations = held(plan, *WAYS[quantity], vocabulary)[0].activations
    if "GiB" in quantity:
        return activations / GIB
    return 100 * activations / held(plan, False, "none", vocabulary)[0].activations


@lru_cache(maxsize=64)
def held(plan: Plan, sequence: bool, recompute: str, vocabulary: bool) -> tuple[Footprint, ...]:
    """The most of each kind on the first rank of every stage [B]."""
    strategy, model = plan.strategy(sequence), plan.model(recompute, vocabulary)
    found = sim.memory(strategy, model, plan.stages * TENSOR, rule=sim.rules.Adam())
    return tuple(rank.peak for rank in found[::TENSOR])


def report() -> str:
    """The rows as Markdown, and the errors of all."""
    rows = list(korthikanti2022_memory())
    found = Errors.of([row.predicted for row in rows], [row.measured for row in rows])
    head = [
        "| model | quantity | published | predicted | error | with the vocabulary |",
        "|---|---|---:|---:|---:|---:|",
    ]
    lines = [
        f"| {row.model} | {row.quantity} | {row.measured:.4g} | {row.predicted:.4g} | {row.error:+.1%}"
        f" | {row.all:.4g} |"
        for row in rows
    ]
    summary = f"Mean error {found.mean:.1%}, largest {found.largest:.1%}, bias {found.bias:+.1%}, {found.count} rows."
    return "\n".join([*head, *lines, "", summary])
