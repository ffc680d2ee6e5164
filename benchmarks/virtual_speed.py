"""How fast is the virtual clock? Instructions per CPU second of ``simulate``, checks and spans included.

One instruction of one rank counts one: everything that a rank's program yields. The target is 150 000 per CPU second
for DataParallel at 1024 ranks, each rank simulated by itself.
"""

from __future__ import annotations

import resource
import sys
import time

import simulator as sim
from simulator.program import Instruction, Start, Wait
from simulator.rank import Rank

TARGET = 150_000.0


def program_of(strategy: sim.DataParallel, model: sim.Model, ranks: int, steps: int) -> list[Instruction]:
    """What one rank's program yields; a data-parallel program uses no results, so it can simply be listed."""
    whole = sim.stack(strategy)
    return list(whole.program(Rank(whole, 0, ranks, model, steps)))


def peak_memory() -> float:
    """The most memory that this process has held [MiB]."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def main(ranks: int = 1024, blocks: int = 32, steps: int = 10, runs: int = 3) -> None:
    """Simulate several times, since other load slows even CPU seconds; print the figures of the quickest."""
    strategy = sim.DataParallel(bucket_bytes=0)  # a bucket per block
    model = sim.Model.of_times(blocks=blocks, forward=1e-3, backward=2e-3, parameters=blocks * 10**6)
    cluster = sim.Cluster.flat(ranks=ranks, bandwidth=12.5e9, latency=10e-6)
    program, before = program_of(strategy, model, ranks, steps), peak_memory()
    found = []
    for _ in range(runs):
        start = time.process_time()
        run = sim.simulate(strategy, model, cluster, ranks=ranks, steps=steps, fold=False)
        found.append((time.process_time() - start, len(run.spans)))
        del run
    cpu, spans = min(found)
    every = len(program) * ranks
    bare = sum(not isinstance(one, (Start, Wait)) for one in program) * ranks
    print(
        f"{strategy}, {ranks} ranks, {blocks} blocks, {steps} steps, timing only: {cpu:.2f} s CPU, best of {runs} runs"
    )
    print(f"{every} instructions: {every / cpu:,.0f} per CPU second (target: at least {TARGET:,.0f})")
    print(f"{bare} without Start and Wait, nor what was started: {bare / cpu:,.0f} per CPU second")
    print(f"{spans} spans, what was started included: {spans / cpu:,.0f} per CPU second")
    print(f"peak memory {peak_memory():.0f} MiB, {before:.0f} MiB of them before the first run")


if __name__ == "__main__":
    main()
