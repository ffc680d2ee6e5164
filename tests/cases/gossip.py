"""Rows of decentralised training: gossip over the graphs of the gallery, and pairwise averaging at one's own pace."""

from __future__ import annotations

from dataclasses import replace

import simulator as sim
from simulator.strategies.ad_psgd import asked

from .table import ANY_UP_TO_4, Bytes, Case, alone, in_two_stages, piped_and_averaged

APART = {"single": "every replica learns from a slice of its own, and only neighbours average"}
LAW_STEPS = 3
"""As many steps as the laws make."""


def gossiped(graph: str) -> Bytes:
    """All parameters go to every neighbour; all graphs of the gallery have as many for every rank."""

    def per_step(model: sim.Model, ranks: int) -> list[float]:
        neighbours = len(sim.graphs.rounds(graph, ranks)[0].readers[0])
        return [float(neighbours * model.parameters * model.parameter_bytes)] * ranks

    return per_step


def asked_and_answered(model: sim.Model, ranks: int) -> list[float]:
    """An active worker sends its model once per step, a passive one as often as it is chosen."""
    size, answers = model.parameters * model.parameter_bytes, asked(0, ranks, LAW_STEPS)
    return [size * (1 if rank % 2 else answers[rank] / LAW_STEPS) for rank in range(ranks)]


def gossip(graph: str, *ranks: int, mix: str = "during") -> Case:
    """A row for a graph."""
    name = f"gossip-{graph}" + ("" if mix == "during" else f"-{mix}")
    return Case(name, sim.Gossip(graph, mix=mix), ranks, gossiped(graph), alone, outside=APART)


ring = gossip("ring", 2, 3, 4)
everybody = replace(gossip("complete", *ANY_UP_TO_4, mix="after"), outside={})
staged = Case(
    "pipeline-gossip",
    sim.stack(sim.Pipeline("1f1b", microbatches=3), sim.Gossip("ring")),
    (4,),
    piped_and_averaged,  # to its only neighbour a rank sends what it would send in an all-reduce of two
    in_two_stages(3),
    outside=APART,
)
pairs = Case("ad-psgd", sim.ADPSGD(), (2, 3, 4), asked_and_answered, alone)

SYNCHRONOUS: tuple[Case, ...] = (
    ring,
    ring.by("momentum", 4),
    *(ring.on(name, 4) for name in ("conv", "gpt", "quadratic", "own")),
    gossip("torus", 4),
    gossip("exponential", 3, 4),
    gossip("exponential", 4, mix="after"),
    gossip("one-peer", 2, 3, 4),
    gossip("one-peer", 3, mix="after"),
    gossip("complete", 4),
    everybody,
    everybody.by("sgd", 4),
    replace(
        ring,
        id="gossip-average",
        strategy=sim.Gossip("ring", average=True),
        ranks=(4,),
        outside={**APART, "bytes": "the last step sends more, for the mean of all"},
    ),
    staged,
    staged.on("own", 4),
)

REPLAYED: tuple[Case, ...] = (
    pairs,
    *(pairs.on(name, 4) for name in ("conv", "gpt", "quadratic", "own", "late")),
    *(pairs.by(rule, 4) for rule in ("momentum", "aware", "compensated")),
)
