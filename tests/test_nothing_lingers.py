"""Training leaves tensors to no garbage collector: it is off under the virtual clock, and comes late elsewhere."""

from __future__ import annotations

import gc

import pytest
import torch

import simulator as sim
from simulator.checking import AnyStrategy

SMALL = sim.problem("digits-mlp")
STRATEGIES = [
    sim.DataParallel(), sim.Pipeline("1f1b", microbatches=4), sim.Pipeline("zb-h1", microbatches=4),
    sim.Pipeline("zbv", microbatches=4), sim.TensorParallel(), sim.Sharded(3), sim.ParameterServer(),
]  # fmt: skip


def tensors() -> int:
    return sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects())


def left_by(strategy: AnyStrategy, steps: int) -> int:
    """Tensors that only the garbage collector finds after a run."""
    gc.collect()
    gc.disable()
    try:
        sim.simulate(strategy, SMALL, sim.Cluster.flat(ranks=2, bandwidth=1e9, latency=1e-5), steps=steps)
        before = tensors()
        gc.collect()
        return before - tensors()
    finally:
        gc.enable()


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_more_steps_leave_no_more_behind(strategy: AnyStrategy):
    few, many = left_by(strategy, 2), left_by(strategy, 6)
    assert many - few <= 4 * 4  # batches of four steps more, which ranks keep; a step has hundreds of tensors
