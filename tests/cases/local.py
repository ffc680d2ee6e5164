"""Rows of local and federated methods, and of what keeps clients' updates secret."""

from __future__ import annotations

from dataclasses import replace

import simulator as sim
from simulator import theory
from simulator.theory import all_reduce_bytes
from simulator.values import bounds

from .table import ANY_UP_TO_4, Bytes, Case, alone, averaged, in_two_stages, piped, piped_and_averaged

STEPS = 3
"""That of the laws: what is sent once per round is sent so often in so many steps."""

DRIFT = {"single": "replicas that train alone drift apart"}
FEW = {
    "single": "a round learns from some clients only",
    "work": "who is not asked does nothing",
    "bytes": "who sends depends on the draw; test_local counts it",
}
NOISE = {"single": "noise is added"}
def meeting(period: int, size: Bytes = averaged) -> Bytes:
    """All parameters go once through a ring at the end of each round."""
    share = theory.rounds(STEPS, period) / STEPS
    return lambda model, ranks: [share * sent for sent in size(model, ranks)]


def reported(local_steps: int, copies: int = 1) -> Bytes:
    """Every round the model goes to all clients, and a change of its size comes back, in so many copies."""
    share = copies * theory.rounds(STEPS, local_steps) / STEPS

    def sent(model: sim.Model, ranks: int) -> list[float]:
        size = share * model.parameters * model.parameter_bytes
        return [size * (ranks - 1)] + [size] * (ranks - 1)

    return sent


def piped_and_met(period: int) -> Bytes:
    """A pipeline of two stages (of all ranks, where their number is prime), whose replicas meet once per round."""

    def sent(model: sim.Model, ranks: int) -> list[float]:
        stages = 2 if ranks == 4 else ranks
        replicas = ranks // stages
        firsts = [bounds(len(model.blocks), stage, stages) for stage in range(stages)]
        sizes = [model.parameter_bytes * sum(block.parameters for block in model.blocks[a:b]) for a, b in firsts]
        slices = [bounds(model.batch, replica, replicas) for replica in range(replicas)]
        rounds = theory.rounds(STEPS, period) / STEPS
        columns = [piped(model, stages, samples=end - start) for start, end in slices]
        return [
            columns[replica][stage] + rounds * all_reduce_bytes(replicas, sizes[stage])
            for stage in range(stages)
            for replica in range(replicas)
        ]

    return sent


one = Case("local-sgd-1", sim.LocalSGD(period=1), ANY_UP_TO_4, averaged, alone)
two = Case("local-sgd-2", sim.LocalSGD(period=2), (2, 3, 4), meeting(2), alone, outside=DRIFT)
post = Case("post-local-sgd", sim.PostLocalSGD(period=2, start=1), (2, 3), meeting(2), alone, outside=DRIFT)
diloco = Case("diloco-2", sim.DiLoCo(period=2), (2, 3, 4), meeting(2), alone, outside=DRIFT)
elastic = Case("easgd-2", sim.EASGD(period=2), (2, 3, 4), meeting(2), alone, outside=DRIFT)
pipelined = sim.stack(sim.Pipeline("1f1b", microbatches=3), sim.LocalSGD(period=1))
outer = sim.stack(sim.Pipeline("1f1b", microbatches=3), sim.DiLoCo(period=2))

fedavg = Case("fedavg-1", sim.FedAvg(local_steps=1), (2, 3, 4), reported(1), alone)
drifting = Case("fedavg-2", sim.FedAvg(local_steps=2), (2, 3), reported(2), alone, outside=DRIFT)
unequal = Case("fedavg-unequal", sim.FedAvg(local_steps=1, weights=(1, 2, 3)), (4,), reported(1), alone, "own")
sampled = sim.FedAvg(local_steps=2, clients_per_round=2)
secure = Case("secure-1", sim.stack(sim.FedAvg(local_steps=1), sim.SecureAggregation()), (3, 4), reported(1), alone)
both = sim.stack(sim.SCAFFOLD(local_steps=2), sim.GaussianNoise(clip=0.1, sigma=0.5), sim.SecureAggregation())


SYNCHRONOUS: tuple[Case, ...] = (
    one,
    *(one.on(name, 2, 4) for name in ("conv", "quadratic", "own")),
    one.by("momentum", 3),
    Case("local-sgd-1-pipeline", pipelined, (2, 4), piped_and_averaged, in_two_stages(3)),
    two,
    two.by("adam", 3),
    post,
    replace(post, id="post-local-sgd-later", strategy=sim.PostLocalSGD(start=9), bytes=averaged, outside={}),
    Case("diloco-1", sim.DiLoCo(1, outer_lr=1.0, outer_momentum=0.0), (2, 3, 4), averaged, alone),
    diloco,
    diloco.by("adam", 3),
    Case("diloco-2-pipeline", outer, (4,), piped_and_met(2), in_two_stages(3), outside=DRIFT),
    elastic,
    elastic.on("own", 3),
    fedavg,
    *(fedavg.on(name, 3) for name in ("conv", "quadratic", "own")),
    drifting,
    unequal,
    Case("fedavg-sampled", sampled, (4,), reported(2), alone, outside=FEW),
    Case("fedprox-2", sim.FedProx(mu=0.5, local_steps=2), (2, 3), reported(2), alone, outside=DRIFT),
    Case("scaffold-1", sim.SCAFFOLD(local_steps=1), (2, 3, 4), reported(1, copies=2), alone),
    Case("scaffold-2", sim.SCAFFOLD(local_steps=2), (3,), reported(2, copies=2), alone, outside=DRIFT),
    secure,
    secure.on("own", 3),
    Case("secure-noise-scaffold", both, (3,), reported(2, copies=2), alone, outside=NOISE),
)
"""Strategies that do the same whenever they run."""

mixing = Case("fedasync-1", sim.FedAsync(local_steps=1), (2, 3, 4), reported(1), alone)
buffered = Case("fedbuff-2", sim.FedBuff(buffer=2, local_steps=1), (2, 3, 4), reported(1), alone)
noisy = sim.stack(sim.FedBuff(buffer=2, local_steps=1), sim.GaussianNoise(clip=0.1, sigma=0.5))

REPLAYED: tuple[Case, ...] = (
    mixing,
    mixing.on("late", 4),
    Case("fedasync-prox-2", sim.FedAsync(0.9, sim.HingeWeight(10, 1), 0.1, local_steps=2), (3,), reported(2), alone),
    buffered,
    buffered.on("late", 4),
    Case("fedbuff-noise", noisy, (3,), reported(1), alone),
)
"""Strategies whose outcome depends on who comes first."""
