"""Elastic averaging: replicas explore around a centre to which springs tie them.

Source: Zhang, Choromanska and LeCun 2015, arXiv:1412.6651, the synchronous form. The springs pull both ways by the
same amount: what leaves the replicas enters the centre, so their sum changes by gradients alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from ... import checks
from ...program import AllReduce, Compute, Copy, Reduce, Update
from ...rank import Rank
from ...stack import Program, Rules
from .maths import Difference
from .replicas import Replicas, ends_round, kept


@dataclass(frozen=True)
class EASGD(Replicas):
    """Pull replicas and centre towards each other once in ``period`` steps; otherwise train alone.

    ``x_i ← x_i − lr · g_i − α (x_i − c)`` and ``c ← c + α Σ_i (x_i − c)``, all from the values before the step. Every
    replica keeps the centre ``c``, as ``Named("centre")``; after the last step all take it: it is what was learned.

    - ``period``: steps from pull to pull, the communication period.
    - ``alpha``: the moving rate α, how strong a spring is; None: 0.9 / n, as the paper advises for n replicas.
    - ``replicas``: ranks along the axis "data"; None: as many as there are.

    Raises ValueError for a period below 1 and for α n above 1, where the centre overshoots the mean of the replicas.

    >>> from simulator import listing
    >>> [text for text in listing(EASGD(period=1, alpha=0.25), ranks=2)[0] if "centre" in text][1:]
    ['Reduce centre[0] += 1 move[0]', 'Copy centre[0] to Params(0, 1)']
    """

    alpha: float | None = None
    replicas: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha is not None:
            checks.number("alpha", self.alpha, above=0, of="EASGD")

    def check(self, ranks: int, blocks: int) -> None:
        if self.alpha is not None and self.alpha * ranks > 1:
            raise ValueError(
                f"EASGD: alpha times the replicas is at most 1, or the centre overshoots; got alpha={self.alpha} with"
                f" {ranks} replicas: use alpha={0.9 / ranks:.3g}"
            )

    def rules(self, me: Rank) -> Rules:
        def finish(update: Update) -> Program:
            if me.step == 0:
                yield Copy(update.params, kept("centre", update))
            if ends_round(me, self.period):
                yield from self.pull(me, update)
            yield update
            if me.step == me.total - 1:
                yield Copy(kept("centre", update), update.params)

        return {Update: finish}

    def pull(self, me: Rank, update: Update) -> Program:
        """Move a replica towards the centre, and the centre towards all replicas."""
        centre, pull, move = (kept(name, update) for name in ("centre", "pull", "move"))
        alpha = 0.9 / me.size("data") if self.alpha is None else self.alpha
        yield Compute(Difference(alpha), (update.params, centre), (pull,))
        yield Copy(pull, move)
        yield AllReduce(move, over="data", op="sum")
        yield Reduce(update.params, pull, scale=-1.0)
        yield Reduce(centre, move)
