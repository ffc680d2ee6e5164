"""How long do large clusters take? CPU seconds of a whole process each, imports and checks included, and its memory.

The targets: a step of TP8 x DP128 with 32 transformer layers (hidden 4096, sequence 2048) on 1024 ranks in 1 s
(ASTRA-sim: 19.5 s), GPT-3 175B on 16 384 accelerators in 2 s, and 1024 ranks of which each has its own jitter in 60 s.
"""

from __future__ import annotations

import resource
import subprocess
import sys

import simulator as sim

LAYERS = dict(layers=32, hidden=4096, heads=32, sequence=2048, vocab=51200)


def folded() -> sim.Run:
    """Tensor and data parallelism on 1024 ranks that all behave alike."""
    cluster = sim.cluster("dgx-h100", nodes=128)
    return sim.simulate(sim.Hybrid(data=128, tensor=8), sim.transformer(**LAYERS), cluster, steps=1, batch=128)


def huge() -> sim.Run:
    """GPT-3 175B with pipeline, data and tensor parallelism on 16 384 ranks."""
    strategy = sim.Hybrid(data=128, tensor=8, pipeline=16, microbatches=12)
    cluster, knobs = sim.cluster("dgx-h100", nodes=2048), dict(batch=1536, dtype="bf16", recompute="selective")
    return sim.simulate(strategy, sim.model("gpt3-175b"), cluster, steps=1, **knobs)


def noisy() -> sim.Run:
    """The first with jitter: nobody is like another, and all are simulated."""
    cluster, noise = sim.cluster("dgx-h100", nodes=128), sim.noise.lognormal(0.02)
    strategy, model = sim.Hybrid(data=128, tensor=8), sim.transformer(**LAYERS)
    return sim.simulate(strategy, model, cluster, steps=1, batch=128, noise=noise)


CASES = {"folded": (folded, 1.0), "huge": (huge, 2.0), "noisy": (noisy, 60.0)}
"""What is simulated, and its target [s of CPU]."""


def one(name: str) -> None:
    """Simulate one, and print what it took."""
    make, target = CASES[name]
    run = make()
    used = resource.getrusage(resource.RUSAGE_SELF)
    peak = used.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    print(f"{run}; {len(run.stands_for)} ranks simulated, {len(run.spans):,} spans")
    print(f"{used.ru_utime + used.ru_stime:.2f} s CPU (target: at most {target:g} s), {peak:.0f} MiB", flush=True)


def main() -> None:
    """Each in a process of its own."""
    for name in CASES:
        subprocess.run([sys.executable, __file__, name], check=True)


if __name__ == "__main__":
    one(sys.argv[1]) if len(sys.argv) > 1 else main()
