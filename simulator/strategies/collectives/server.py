"""A parameter server's way to add: everybody sends each server its chunk, and gets the sum back.

With all n ranks as servers of 1/n each it moves what a ring does, 2(n-1)/n·size/bandwidth, with two latencies
instead of 2(n-1) but n times the connections (Jiang et al. 2020, BytePS).
"""

from __future__ import annotations

from dataclasses import dataclass

from ... import checks
from ...program import AllReduce
from ...rank import Rank
from ...stack import Layer, Rules
from ...values import Chunk, Value
from .group import Group, Written, all_reduce_by, in_place_of


@dataclass(frozen=True)
class ServerAllReduce(Layer):
    """Writes out AllReduce as pushes to servers and pulls from them.

    - ``servers``: how many of the ranks serve, the first ones; None: all. Raises ValueError for more than there are.
    - ``over``: the axis whose collectives it writes out; None: all.

    ``theory.colocated_servers`` is its time when all serve. For servers on ranks of their own see ``BytePS``.

    >>> print(listing(stack(DataParallel(), ServerAllReduce(servers=1)), 2, Model.of_times(blocks=1)).columns[1][4])
    Start Send Grads(0)[0/1] to data 0; Recv Grads(0)[0/1] from data 0; Compute the mean of 2 on data
    """

    servers: int | None = None
    over: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.servers is not None:
            checks.whole("servers", self.servers, least=1)

    def rules(self, me: Rank) -> Rules:
        def served(group: Group, value: Value) -> Written:
            return push_and_pull(group, value, group.size if self.servers is None else self.servers)

        return in_place_of({AllReduce: all_reduce_by(served)}, me, self.over)


def push_and_pull(group: Group, value: Value, servers: int) -> Written:
    """Push all chunks but my own; serve mine, if I am a server; pull the others."""
    if servers > group.size:
        raise ValueError(f"servers are among the ranks; got servers={servers} and {group.size} along {group.over!r}")
    others = [server for server in range(servers) if server != group.at]
    for server in others:
        yield group.send(Chunk(value, server, servers), server)
    if group.at < servers:
        yield from serve(group, Chunk(value, group.at, servers))
    for server in others:
        yield group.recv(Chunk(value, server, servers), server)


def serve(group: Group, part: Value) -> Written:
    """Add what everybody else sends; send the sum to all of them."""
    clients = [rank for rank in range(group.size) if rank != group.at]
    for client in clients:
        yield from group.add(part, client)
    for client in clients:
        yield group.send(part, client)
