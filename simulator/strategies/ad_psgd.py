"""AD-PSGD: every worker learns at its own pace, and averages its model with that of one other at a time.

Workers are active (odd positions) or passive (even ones), so that nobody waits in a circle (Lian et al. 2018,
arXiv:1710.06952). In every step an active worker i sends its model to a passive worker j chosen at random, computes a
gradient g_i meanwhile, and takes back what j had: both go on with ``(x_i + x_j)/2``. Then ``x_i ← x_i − lr·g_i``. A
passive worker computes its gradients on a stream and answers meanwhile, one request at a time; the end of its own
gradient is a message too, to itself. So a model is averaged and updated in the order in which messages come, and who
knows that order can replay the run.

A gradient is *stale* by the averagings between reading the model for it and updating the model with it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import ClassVar

from .. import checks
from ..program import ANY, Copy, Record, Recv, Reduce, Send, Start, Update, Wait
from ..rank import Rank
from ..stack import Order, Program
from ..values import Named, Nothing, Params
from .single import gradient

MODEL, THEIRS = Named("model"), Named("theirs")
"""What others see, while Params is what a gradient is computed with; and what came from another."""


@dataclass(frozen=True)
class ADPSGD(Order):
    """Asynchronous decentralised SGD by pairwise averaging.

    ``seed`` is that of the active workers' choices. Every rank has the whole model and keeps its own replica; a Run has
    the parameters of the first.

    >>> from simulator import Model, cluster, noise, simulate
    >>> model = Model.of_times(blocks=1, forward=0.25, backward=0.75)
    >>> run = simulate(ADPSGD(), model, cluster("ideal", ranks=4), steps=50, noise=noise.slow({0: 3.0}))
    >>> [max(span.end for span in run.spans if span.rank == rank) for rank in range(4)]
    [150.0, 50.0, 50.0, 50.0]
    """

    axis: ClassVar[str | None] = "data"
    drifts: ClassVar[bool] = True

    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole("seed", self.seed)

    @property
    def static(self) -> bool:
        return False

    @property
    def asynchronous(self) -> bool:
        return True

    def check(self, ranks: int, blocks: int) -> None:
        if ranks < 2:
            raise ValueError(f"AD-PSGD averages pairs of workers; got ranks={ranks}: use at least 2, or Single()")

    def share(self, me: Rank) -> tuple[int, int] | None:
        return me.at("data"), me.size("data")

    def program(self, me: Rank) -> Program:
        yield Copy(Params(me.blocks), MODEL)
        yield from self.ask(me) if me.at("data") % 2 else self.answer(me)

    # ------------------------------------------------------------ active

    def ask(self, me: Rank) -> Program:
        """Send my model, compute a gradient, average with what comes back."""
        chosen = partners(self.seed, me.at("data"), me.size("data"), me.total)
        for step in me.steps():
            yield Send(MODEL, to=chosen[step], over="data")
            yield from gradient(me)
            yield Recv(MODEL, source=chosen[step], over="data", into=THEIRS)
            yield from average()
            yield from update(me, staleness=1)

    # ------------------------------------------------------------ passive

    def answer(self, me: Rank) -> Program:
        """Compute gradients, and answer as often as I am chosen, while they are computed and afterwards."""
        me.memory["left"] = asked(self.seed, me.size("data"), me.total)[me.at("data")]
        done = Send(Nothing(instead=MODEL), to=me.at("data"), over="data")
        for _ in me.steps():
            yield Start((*gradient(me), done), on="gradient")
            averagings = 0
            while (yield from self.answer_one(me)):
                averagings += 1
            yield Wait()
            yield from update(me, averagings)
        while me.memory["left"]:
            yield from self.answer_one(me)
        yield Copy(MODEL, Params(me.blocks))

    def answer_one(self, me: Rank) -> Program:
        """Average with whoever comes first; False when that is my own gradient."""
        source = ANY if me.memory["left"] else me.at("data")
        message = yield Recv(MODEL, source=source, over="data", into=THEIRS)
        if message.source == me.at("data"):
            return False
        me.memory["left"] -= 1
        yield Send(MODEL, to=message.source, over="data")
        yield from average()
        return True


def average() -> Program:
    """The mean of my model and theirs."""
    yield Reduce(MODEL, MODEL, scale=-0.5)
    yield Reduce(MODEL, THEIRS, scale=0.5)


def update(me: Rank, staleness: int) -> Program:
    """Apply my gradient to the model as it is now."""
    params, past = Params(me.blocks), None
    yield Record("staleness", staleness)
    if me.rule is not None and me.rule.needs_past:
        past = Named("past")
        yield Copy(params, past)
    yield Copy(MODEL, params)
    yield Update(params, staleness=staleness, since=past)
    yield Copy(params, MODEL)


@lru_cache(maxsize=4096)
def partners(seed: int, active: int, workers: int, steps: int) -> tuple[int, ...]:
    """Which passive worker an active one chooses in each step.

    >>> partners(seed=0, active=1, workers=8, steps=6)
    (0, 0, 6, 6, 6, 2)
    """
    return tuple(Random(f"{seed} {active}").choices(range(0, workers, 2), k=steps))


@lru_cache(maxsize=64)
def asked(seed: int, workers: int, steps: int) -> Counter[int]:
    """How often each passive worker is chosen in a run.

    >>> asked(seed=0, workers=2, steps=10)
    Counter({0: 10})
    """
    return Counter(chosen for active in range(1, workers, 2) for chosen in partners(seed, active, workers, steps))
