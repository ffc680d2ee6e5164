"""Collectives as programs on the virtual clock, one run at a time."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st

import simulator as sim
from simulator import AllReduce, Grads

from .orders import Only

WHOLE = Grads(0)
EXAMPLE = (8, 100e6, 12.5e9, 10e-6)  # ranks, bytes, bytes per second, seconds

some = settings(max_examples=40, deadline=None)

networks = dict(bandwidth=st.floats(1e3, 1e9), latency=st.floats(0, 1e-2))


def flat(n: int, bandwidth: float, latency: float) -> sim.Cluster:
    """Links that share what they carry at one time."""
    return sim.Cluster.flat(ranks=n, bandwidth=bandwidth, latency=latency)


def model_of(size: float, reduction: float = 0.0) -> sim.Model:
    """A model of so many bytes of gradients, in which adding a byte takes so many seconds."""
    model = sim.Model.of_times(blocks=1, forward=0, backward=0, parameters=round(size / 4))
    return replace(model, reduce=sim.Flops(4 * reduction * sim.Device().flops))


def seconds(
    layer: sim.Layer | None, cluster: sim.Cluster, size: float, *what: sim.Instruction, reduction: float = 0.0
) -> float:
    """How long instructions take; an AllReduce unless others are named."""
    order = Only(what=what or (AllReduce(WHOLE),))
    strategy = sim.stack(order) if layer is None else sim.stack(order, layer)
    return sim.simulate(strategy, model_of(size, reduction), cluster, steps=1).makespan
