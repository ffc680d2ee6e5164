"""Gossip: every rank has the whole model and a slice of the batch, and averages its parameters with a few neighbours.

With W the mixing matrix of a graph (see ``graphs``), x_i the parameters of rank i and g_i its gradient at x_i:

- mix="during": ``x_i ← Σ_j W_ij x_j − lr·g_i``: parameters travel while gradients are computed (D-PSGD, Lian et al.
  2017, arXiv:1705.09056).
- mix="after": ``x_i ← Σ_j W_ij (x_j − lr·g_j)``: updated parameters travel (adapt, then combine: Chen and Sayed 2012,
  arXiv:1111.0034). With a complete graph and SGD this is data parallelism.

Each rank sends its parameters to every neighbour: with d neighbours d·P bytes per step, however many ranks there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..program import AllReduce, Forward, Recv, Reduce, Send, Start, Update, Wait
from ..rank import Rank
from ..stack import Layer, Program, Rules
from ..values import Named, Params, Value
from . import graphs

if TYPE_CHECKING:
    import networkx as nx

TIMES = ("during", "after")


@dataclass(frozen=True)
class Gossip(Layer):
    """Average parameters with neighbours in every step.

    - ``graph``: "ring", "torus", "exponential", "one-peer", "complete", a networkx graph of the ranks along the axis,
      or their mixing matrix.
    - ``mix``: "during" the computation of gradients, or "after" the update.
    - ``average``: whether the last step ends with the mean of all replicas; otherwise each keeps its own, and a Run has
      the parameters of the first.
    - ``replicas``: ranks along the axis "data"; None: as many as there are.

    >>> from simulator import Model, listing
    >>> print(listing(Gossip("one-peer", mix="after"), ranks=2, workload=Model.of_times(blocks=1)))
      | rank 0                             | rank 1
    0 | Load mb0                           | Load mb0
    1 | Forward 0 mb0                      | Forward 0 mb0
    2 | Loss mb0                           | Loss mb0
    3 | Backward 0 mb0                     | Backward 0 mb0
    4 | Update Params(0)                   | Update Params(0)
    5 | Send Params(0) to data 1           | Send Params(0) to data 0
    6 | Recv Params(0) from data 1         | Recv Params(0) from data 0
    7 | Reduce Params(0) += -0.5 Params(0) | Reduce Params(0) += -0.5 Params(0)
    8 | Reduce Params(0) += 0.5 theirs[1]  | Reduce Params(0) += 0.5 theirs[0]
    """

    axis: ClassVar[str | None] = "data"
    sized: ClassVar[str | None] = "replicas"
    splits_batch: ClassVar[bool] = True
    drifts: ClassVar[bool] = True
    named: ClassVar[tuple[str, ...]] = ("graph",)
    looks_after: ClassVar[tuple[type[Value], ...]] = (Params,)

    graph: str | nx.Graph | Sequence[Sequence[float]] = "ring"
    mix: str = "during"
    average: bool = False
    replicas: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "graph", graphs.as_graph(self.graph))
        if self.mix not in TIMES:
            raise ValueError(f"gossip mixes at one of {', '.join(map(repr, TIMES))}; got mix={self.mix!r}")

    def check(self, ranks: int, blocks: int) -> None:
        graphs.rounds(self.graph, ranks)  # type: ignore[arg-type]

    def rules(self, me: Rank) -> Rules:
        begun: list[bool] = []  # empty between steps

        def begin(forward: Forward) -> Program:
            if not begun:
                yield from self.send(me, Params(me.blocks))
                yield from (Start(recv, on="gossip") for recv in self.recvs(me, Params(me.blocks)))
                begun.append(True)
            yield forward

        def mix_and_update(update: Update) -> Program:
            if not begun or update.params != Params(me.blocks):
                raise ValueError(
                    f"mix='during' wants one Update of all of a rank's blocks, after a Forward; got {update}: use"
                    " mix='after'"
                )
            begun.clear()
            yield from (Wait(recv.stored) for recv in self.recvs(me, update.params))
            yield from self.combine(me, update.params)
            yield update
            yield from self.finish(me, update.params)

        def update_and_mix(update: Update) -> Program:
            yield update
            yield from self.send(me, update.params)
            yield from (recv for recv in self.recvs(me, update.params))  # a list would be sent what they give
            yield from self.combine(me, update.params)
            yield from self.finish(me, update.params)

        if self.mix == "during":
            return {Forward: begin, Update: mix_and_update}
        return {Update: update_and_mix}

    # ------------------------------------------------------------ one round

    def mixing(self, me: Rank) -> graphs.Mixing:
        """The weights of this step."""
        rounds = graphs.rounds(self.graph, me.size("data"))  # type: ignore[arg-type]
        return rounds[me.step % len(rounds)]

    def send(self, me: Rank, params: Value) -> Program:
        """To all who want my parameters. Sends do not wait, and come before all Recvs: nobody waits for ever."""
        for reader in self.mixing(me).readers[me.at("data")]:
            yield Send(params, to=reader, over="data")

    def recvs(self, me: Rank, params: Value) -> list[Recv]:
        """From all whose parameters I want."""
        others = [source for source in self.mixing(me).rows[me.at("data")] if source != me.at("data")]
        return [Recv(params, source=source, over="data", into=Named("theirs", source)) for source in others]

    def combine(self, me: Rank, params: Value) -> Program:
        """``x_i ← Σ_j W_ij x_j``: my own share first, then the others'."""
        row = self.mixing(me).rows[me.at("data")]
        if len(row) > 1:
            yield Reduce(params, params, scale=row[me.at("data")] - 1)
        for recv in self.recvs(me, params):
            yield Reduce(params, recv.stored, scale=row[recv.source])

    def finish(self, me: Rank, params: Value) -> Program:
        """The mean of all replicas, where it is asked for, at the end of the last step."""
        if self.average and me.step == me.total - 1:
            yield AllReduce(params, over="data")
