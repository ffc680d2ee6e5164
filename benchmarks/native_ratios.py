"""How long do our programs take beside PyTorch's own implementations? A table of step-time ratios, ours / native.

Both train the same problem on the same ranks, in short turns one after the other, so that a busy machine slows both
alike. A step lasts until its last span on any rank has ended; the first two of a turn, in which PyTorch arranges its
buckets and memory is new, are left out. Times depend on the machine, and are printed, never asserted.

    python benchmarks/native_ratios.py --turns 5 --steps 20
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median, quantiles

import lab
import simulator as sim
from simulator.checking import AnyStrategy
from simulator.compression import FP16

SKIPPED = 2
"""Steps at the beginning of a turn that do not count."""


@dataclass(frozen=True)
class Pair:
    """A strategy that both can run."""

    name: str
    strategy: Callable[[], AnyStrategy]
    problem: str
    ranks: int

    def times(self, engine: str, steps: int) -> list[float]:
        """How long each step of one turn took [s]."""
        run = lab.execute(
            self.strategy(), sim.problem(self.problem), ranks=self.ranks, steps=steps + SKIPPED, engine=engine,
            timeout=120.0,
        )  # fmt: skip
        return run.step_times[SKIPPED:]


PAIRS = (
    Pair("plain loop", lambda: sim.Single(), "tiny-gpt", 1),
    Pair("DDP", lambda: sim.DataParallel(), "digits-mlp", 2),
    Pair("DDP", lambda: sim.DataParallel(), "tiny-gpt", 2),
    Pair("DDP, fp16", lambda: sim.DataParallel(compression=FP16()), "tiny-gpt", 2),
    Pair("local SGD", lambda: sim.LocalSGD(period=4), "tiny-gpt", 2),
    Pair("ZeRO-1", lambda: sim.Sharded(stage=1), "tiny-gpt", 2),
    Pair("FSDP2, 2Ψ", lambda: sim.Sharded(stage=2), "tiny-gpt", 2),
    Pair("FSDP2, 3Ψ", lambda: sim.Sharded(stage=3), "tiny-gpt", 2),
    Pair("tensor parallel", lambda: sim.TensorParallel(), "tiny-gpt", 2),
    Pair("sequence parallel", lambda: sim.TensorParallel(sequence=True), "tiny-gpt", 2),
    Pair("GPipe", lambda: sim.Pipeline("gpipe", 4), "tiny-gpt", 2),
    Pair("1F1B", lambda: sim.Pipeline("1f1b", 4), "tiny-gpt", 2),
    Pair("interleaved 1F1B", lambda: sim.Pipeline("interleaved", 4), "tiny-gpt", 2),
    Pair("zero bubble H1", lambda: sim.Pipeline("zb-h1", 4), "tiny-gpt", 2),
    Pair("zero bubble V", lambda: sim.Pipeline("zbv", 4), "tiny-gpt", 2),
    Pair("RPC server", lambda: sim.ParameterServer(mode="async"), "digits-mlp", 2),
    Pair("DDP × 1F1B", lambda: sim.stack(sim.Pipeline("1f1b", 4), sim.DataParallel()), "tiny-gpt", 4),
    Pair("FSDP2 × tensor", lambda: sim.stack(sim.Sharded(stage=3), sim.TensorParallel()), "tiny-gpt", 4),
)


def rows(turns: int, steps: int) -> Iterator[str]:
    """The table, a line at a time."""
    yield f"{'native':<18} {'problem':<11} ranks {'ours [ms]':>10} {'native [ms]':>12} {'ratio':>7} {'fastest':>8}"
    for pair in PAIRS:
        ours, native = list[float](), list[float]()
        for _ in range(turns):
            ours += pair.times("program", steps)
            native += pair.times("native", steps)
        a, b = median(ours), median(native)
        fastest = quantiles(ours, n=10)[0] / quantiles(native, n=10)[0]
        yield (
            f"{pair.name:<18} {pair.problem:<11} {pair.ranks:>5} {1e3 * a:>10.2f} {1e3 * b:>12.2f} {a / b:>7.2f}"
            f" {fastest:>8.2f}"
        )


def main() -> None:
    """Print the table."""
    asked = ArgumentParser(description=__doc__)
    asked.add_argument("--turns", type=int, default=5)
    asked.add_argument("--steps", type=int, default=20)
    given = asked.parse_args()
    for row in rows(given.turns, given.steps):
        print(row, flush=True)


if __name__ == "__main__":
    main()
