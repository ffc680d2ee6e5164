"""How long does a warm ``lab.execute`` of one step take beyond the step itself? The target is at most 100 ms.

Warm: the ranks have already run this problem once. What remains is checking, carrying strategy and problem to the
ranks, building the blocks there, agreeing on the time, and bringing spans and parameters back.
"""

from __future__ import annotations

import time
from statistics import median

import lab
import simulator as sim

TARGET = 0.100


def beyond_the_step(problem: sim.Problem, ranks: int) -> tuple[float, float]:
    """(seconds of a call of one step, seconds of them beyond the step)."""
    start = time.perf_counter()
    run = lab.execute(sim.DataParallel(), problem, ranks=ranks, steps=1)
    call = time.perf_counter() - start
    return call, call - run.makespan


def measure(name: str, ranks: int = 2, calls: int = 10) -> None:
    """Call several times and print the figures [ms]."""
    problem = sim.problem(name)
    lab.execute(sim.DataParallel(), problem, ranks=ranks, steps=1)
    found = [beyond_the_step(problem, ranks) for _ in range(calls)]
    call, beyond = (1e3 * median(times) for times in zip(*found, strict=True))
    most = 1e3 * max(beyond for _, beyond in found)
    print(
        f"{name}, {ranks} ranks, median of {calls} calls: {call:.1f} ms, {beyond:.1f} ms beyond the step (worst"
        f" {most:.1f} ms; target: at most {1e3 * TARGET:.0f} ms)"
    )


if __name__ == "__main__":
    for problem in ("digits-mlp", "tiny-gpt"):
        measure(problem)
