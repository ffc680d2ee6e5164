"""Parameter servers: some ranks keep the parameters, the others compute gradients.

The parameters are split into equal chunks over the servers. In every step a worker computes a gradient, sends each
server its chunk, and waits for that server's parameters.

- "sync": a server averages the gradients of all workers, updates once, and answers all. With ``backups``, it goes on
  with the first ``workers - backups`` gradients and drops the others (Chen et al. 2016, arXiv:1604.00981); a late
  worker abandons its own as soon as it has the next parameters.
- "async": a server updates with every gradient as it comes and answers its sender at once (Dean et al. 2012). The
  gradient's *staleness* counts the updates since its parameters were sent; with N workers always busy its mean is N-1.
- "ssp": as async, but no worker starts a step more than ``bound`` steps ahead of the slowest (Ho et al. 2013).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import ClassVar

from .. import checks
from ..program import ANY, Copy, Free, Instruction, Record, Recv, Reduce, Send, Until, Update
from ..rank import Rank
from ..stack import Order, Program
from ..values import Chunk, Grads, Named, Nothing, Params, Value
from .single import gradient

MODES = ("sync", "async", "ssp")


@dataclass(frozen=True)
class ParameterServer(Order):
    """Ranks 0 to ``servers - 1`` are servers, the others workers.

    - ``servers``: over how many servers the parameters are split.
    - ``mode``: "sync", "async" or "ssp"; ``bound`` [steps] belongs to "ssp", ``backups`` [workers] to "sync".

    Raises ValueError for another mode, a knob of another mode, and where no worker is left.

    >>> from simulator import Model, cluster, simulate
    >>> run = simulate(ParameterServer(mode="async"), Model.of_times(), cluster("ideal", ranks=5), steps=10)
    >>> run.workers, set(run.staleness[4:])
    ((1, 2, 3, 4), {3})
    """

    axis: ClassVar[str | None] = "ps"
    named: ClassVar[tuple[str, ...]] = ("mode",)

    servers: int = 1
    mode: str = "sync"
    bound: int | None = None
    backups: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole("servers", self.servers, least=1)
        checks.whole("backups", self.backups)
        if self.mode not in MODES:
            raise ValueError(f"the modes of a parameter server are {', '.join(map(repr, MODES))}; got {self.mode!r}")
        if (self.mode == "ssp") != (self.bound is not None):
            raise ValueError(f"a bound belongs to mode='ssp' alone; got mode={self.mode!r}, bound={self.bound}")
        if self.bound is not None:
            checks.whole("bound", self.bound, of="in steps")
        if self.backups and self.mode != "sync":
            raise ValueError(f"backups belong to mode='sync' alone; got backups={self.backups} and mode={self.mode!r}")

    @property
    def static(self) -> bool:
        return self.mode == "sync" and not self.backups

    @property
    def asynchronous(self) -> bool:
        return self.mode != "sync"

    def check(self, ranks: int, blocks: int) -> None:
        workers = ranks - self.servers
        if workers < 1:
            raise ValueError(f"{self.servers} server(s) need at least one worker more; got ranks={ranks}")
        if self.backups >= workers:
            raise ValueError(f"of {workers} worker(s) at most {workers - 1} can be backups; got backups={self.backups}")

    def share(self, me: Rank) -> tuple[int, int] | None:
        if me.at("ps") < self.servers:
            return None
        return me.at("ps") - self.servers, me.size("ps") - self.servers

    def holds(self, me: Rank) -> Value | None:
        return self.part(me, me.at("ps")) if me.share is None else None

    def part(self, me: Rank, server: int) -> Value:
        """The parameters that a server keeps."""
        return Chunk(Params(me.blocks), server, self.servers)

    def slope(self, me: Rank, server: int) -> Value:
        """The gradients that a server needs."""
        return Chunk(Grads(me.blocks), server, self.servers)

    def program(self, me: Rank) -> Program:
        if me.share is not None:
            return self.backed_up_work(me) if self.backups else self.work(me)
        return self.serve_together(me) if self.mode == "sync" else self.serve_each(me)

    # ------------------------------------------------------------ workers

    def work(self, me: Rank) -> Program:
        """Compute a gradient, send it in chunks, wait for new parameters."""
        for _ in me.steps():
            yield from gradient(me)
            for server in range(self.servers):
                version = me.versions.get(self.part(me, server), 0)
                yield Send(self.slope(me, server), to=server, over="ps", version=version)
            yield Free(Grads(me.blocks))
            for server in range(self.servers):
                yield Recv(self.part(me, server), source=server, over="ps")

    def backed_up_work(self, me: Rank) -> Program:
        """As ``work``, but give up when the next parameters are here before my gradient is sent."""
        for step in me.steps():
            body: list[Instruction] = list(gradient(me))
            body += [Send(self.slope(me, s), to=s, over="ps", version=step) for s in range(self.servers)]
            message = yield Until(Recv(self.part(me, 0), source=0, over="ps"), body)
            yield Free(Grads(me.blocks))
            if message.abandoned:
                for server in range(self.servers):
                    yield Send(Nothing(self.slope(me, server)), to=server, over="ps", version=step)
            for server in range(1, self.servers):
                yield Recv(self.part(me, server), source=server, over="ps")

    # ------------------------------------------------------------ servers

    def workers(self, me: Rank) -> range:
        """The positions of the workers."""
        return range(self.servers, me.size("ps"))

    def serve_together(self, me: Rank) -> Program:
        """Average the gradients of a step, update, answer everybody."""
        mine, arrived = self.slope(me, me.at("ps")), Named("arrived")
        part = self.part(me, me.at("ps"))
        for step in me.steps():
            if self.backups:
                yield from self.first_gradients(me, step)
            else:
                for worker in self.workers(me):
                    yield Recv(mine, source=worker, over="ps", into=arrived)
                    yield Record("staleness", 0)
                    yield Reduce(mine, arrived, scale=1 / len(self.workers(me)))
            yield Update(part)
            for worker in self.workers(me):
                yield Send(part, to=worker, over="ps", version=step + 1)
        if self.backups:
            yield from self.late_gradients(me)

    def first_gradients(self, me: Rank, step: int) -> Program:
        """Add up the first gradients of this step; drop those of earlier steps and what was abandoned."""
        mine, arrived = self.slope(me, me.at("ps")), Named("arrived")
        wanted = missing = len(self.workers(me)) - self.backups
        while missing:
            message = yield Recv(mine, source=ANY, over="ps", into=arrived)
            me.memory["received"] = me.memory.get("received", 0) + 1
            if message.version == step and not message.empty:
                yield Record("staleness", 0)
                yield Reduce(mine, arrived, scale=1 / wanted)
                missing -= 1

    def late_gradients(self, me: Rank) -> Program:
        """Take the messages that came too late for the last step: every worker sends one per step."""
        for _ in range(len(self.workers(me)) * me.total - me.memory["received"]):
            yield Recv(self.slope(me, me.at("ps")), source=ANY, over="ps", into=Named("arrived"))

    def serve_each(self, me: Rank) -> Program:
        """Update with each gradient as it comes; answer its sender, unless it would run too far ahead."""
        server, workers = me.at("ps"), self.workers(me)
        part, arrived = self.part(me, server), self.slope(me, server)
        bound = inf if self.bound is None else self.bound
        done = me.memory.setdefault("done", dict.fromkeys(workers, 0))
        held = me.memory.setdefault("held", [])
        if me.rule is not None and me.rule.needs_past:
            for worker in workers:
                yield Copy(part, Named("sent", worker))
        for version in me.steps(len(workers) * me.total):
            message = yield Recv(arrived, source=ANY, over="ps")
            staleness = version - message.version
            yield Record("staleness", staleness)
            yield Update(part, staleness=staleness, since=self.past(me, message.source))
            done[message.source] += 1
            held.append(message.source)
            slowest = min(done.values())
            for worker in [w for w in held if done[w] <= slowest + bound]:
                held.remove(worker)
                if me.rule is not None and me.rule.needs_past:
                    yield Copy(part, Named("sent", worker))
                yield Send(part, to=worker, over="ps", version=version + 1)

    def past(self, me: Rank, worker: int) -> Value | None:
        """The parameters that a worker's gradient was computed with, where the rule wants them."""
        return Named("sent", worker) if me.rule is not None and me.rule.needs_past else None
