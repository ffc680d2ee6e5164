"""What tests of learning share: a small problem, a run on a free network, and how far apart two results are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

import simulator as sim

Parameters = Mapping[str, np.ndarray]


def apart(a: sim.Run | Parameters, b: sim.Run | Parameters) -> float:
    """The largest difference of any parameter, of runs or of what they ended with."""
    one, other = (each.parameters if isinstance(each, sim.Run) else each for each in (a, b))
    assert one.keys() == other.keys()
    return max(float(np.max(np.abs(one[name] - other[name]))) for name in one)


def digits(**knobs: object) -> sim.Problem:
    """Handwritten digits in float64, in batches that no small number of ranks divides."""
    return sim.problem("digits-mlp", **{"dtype": "float64", "hidden": 16, "batch": 25, **knobs})


def learned(
    strategy: sim.checking.AnyStrategy, ranks: int, steps: int = 4, problem: sim.Problem | None = None, seed: int = 1
) -> sim.Run:
    """What the virtual clock learns of it."""
    return sim.simulate(strategy, problem or digits(), sim.cluster("ideal", ranks=ranks), steps=steps, seed=seed)
