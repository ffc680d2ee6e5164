"""Zero-bubble schedules: the gradients of parameters, which nobody waits for, fill the bubbles.

A backward pass is split into b, which gives the gradient of the input, and W, which gives those of the parameters.
With stage times F, b and W a rank idles between its first start and its last end for

- H1: (p-1)(F+b-W), exactly where W ≤ F and m ≥ p; it holds at most p microbatches, as the first stage of 1F1B does;
- H2: (p-1)(F+b-2W), nothing where F = b = W, exactly where W ≤ F, W ≤ b and m ≥ 2p-1; it holds up to 2p-1.

That counts each rank's own time: the ranks still start one after another, (p-1)F in all, so that a step that begins and
ends for all ranks together gains less. Source: Qi et al. 2023 (arXiv:2401.10241).
"""

from __future__ import annotations

from collections.abc import Iterator

from .task import Schedule, Task


def one_step(at: int, ranks: int, microbatches: int, chunks: int) -> Iterator[Task]:
    """H1: begin as 1F1B does."""
    return filled(microbatches, ahead=ranks - at, most=ranks)


def two_steps(at: int, ranks: int, microbatches: int, chunks: int) -> Iterator[Task]:
    """H2: begin with so many forwards that none waits for the first gradient."""
    return filled(microbatches, ahead=2 * (ranks - at) - 1, most=2 * ranks - 1)


def filled(microbatches: int, ahead: int, most: int) -> Iterator[Task]:
    """``ahead`` forwards, then b and F by turns; W only when ``most`` microbatches are held, or no F is left."""
    started, done = min(ahead, microbatches), 0
    yield from (Task("F", microbatch) for microbatch in range(started))
    for microbatch in range(microbatches):
        yield Task("I", microbatch)
        if started == microbatches or started - done == most:
            yield Task("W", done)
            done += 1
        if started < microbatches:
            yield Task("F", started)
            started += 1
    yield from (Task("W", microbatch) for microbatch in range(done, microbatches))


ZB_H1 = Schedule(one_step)
ZB_H2 = Schedule(two_steps)
