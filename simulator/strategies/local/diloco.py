"""DiLoCo: many local steps with one optimizer, then one step of another with what all replicas moved.

Source: Douillard et al. 2023, arXiv:2311.08105. Eight workers with 500 inner steps communicated 500 times less than
data parallelism, at a comparable loss; the mean bandwidth is 2(n-1)/n · size / (period · step time).
"""

from __future__ import annotations

from dataclasses import dataclass

from ... import checks
from ...program import AllReduce, Compute, Copy, Update
from ...rank import Rank
from ...stack import Program, Rules
from .maths import Difference, OuterStep, zeros
from .replicas import Replicas, ends_round, kept


@dataclass(frozen=True)
class DiLoCo(Replicas):
    """Train alone for ``period`` steps; then take a Nesterov step along the mean of what the replicas moved.

    With the anchor ``y``, where all began the round, and the outer gradient ``Δ = mean_i (y − x_i)``: ``v ← β v + Δ``,
    ``y ← y − outer_lr · (Δ + β v)``, and ``x_i ← y``.

    - ``period``: inner steps per round [default 500, as in the paper]; the last step of a run ends its last round.
    - ``outer_lr``, ``outer_momentum``: of the outer step [0.7 and 0.9, as in the paper].
    - ``nesterov``: look ahead along the momentum; without it ``y ← y − outer_lr · v``.
    - ``replicas``: ranks along the axis "data"; None: as many as there are.
    - ``rule``: the inner optimizer; the paper's is AdamW, ``rule=rules.Adam(4e-4, weight_decay=0.1)``. None: the
      problem's.

    The inner optimizer remembers its moments from round to round. With outer_lr 1 and outer_momentum 0 it is local
    SGD. Raises ValueError for a period below 1, a rate that is not positive, a momentum outside 0 … 1.

    >>> from simulator import rules
    >>> DiLoCo(period=50, rule=rules.Adam(4e-4, weight_decay=0.1)).outer_momentum
    0.9
    """

    period: int = 500
    outer_lr: float = 0.7
    outer_momentum: float = 0.9
    nesterov: bool = True
    replicas: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("outer_lr", self.outer_lr, above=0, of="DiLoCo")
        if not 0 <= checks.number("outer_momentum", self.outer_momentum, of="DiLoCo") < 1:
            raise ValueError(f"DiLoCo: 0 <= outer_momentum < 1; got {self.outer_momentum}; the paper uses 0.9")

    def rules(self, me: Rank) -> Rules:
        def finish(update: Update) -> Program:
            anchor, velocity = kept("anchor", update), kept("velocity", update)
            if me.step == 0:
                yield Copy(update.params, anchor)
                yield Compute(zeros, (update.params,), (velocity,))
            yield update
            if ends_round(me, self.period):
                yield from self.outer_step(update)

        return {Update: finish}

    def outer_step(self, update: Update) -> Program:
        """From the mean of all moves the next anchor, from which everybody goes on."""
        anchor, velocity, move = (kept(name, update) for name in ("anchor", "velocity", "move"))
        yield Compute(Difference(), (anchor, update.params), (move,))
        yield AllReduce(move, over="data")
        step = OuterStep(self.outer_lr, self.outer_momentum, self.nesterov)
        yield Compute(step, (anchor, velocity, move), (update.params, anchor, velocity))
