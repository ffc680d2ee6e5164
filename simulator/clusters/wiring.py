"""How ranks are joined: links with a speed, and which of them a message takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

Node = Hashable
Link = tuple[Node, Node]


class Speed(NamedTuple):
    """One direction of a link: ``bandwidth`` [B/s], ``latency`` [s], and the share of it that data can have."""

    bandwidth: float
    latency: float = 0.0
    efficiency: float = 1.0


class Wiring(ABC):
    """Links between ranks 0 … ranks−1 and switches. Abstract: each way of wiring is one class below this one.

    Everything is computed when it is asked for, so that a cluster of many thousand ranks costs nothing to make.
    """

    ranks: int

    @abstractmethod
    def links(self) -> Iterator[Link]:
        """Every link, each direction by itself."""

    @abstractmethod
    def speed(self, link: Link) -> Speed:
        """Of one link. Raises KeyError where there is none."""

    @abstractmethod
    def path(self, source: int, target: int) -> Sequence[Node]:
        """The nodes that a message passes, both ranks included: a path of least latency.

        Where several are as good, a number made of both ranks chooses, as switches do (equal-cost multi-path).
        """

    def machine(self, rank: int) -> Hashable:
        """The machine that a rank sits in: ranks of one machine are nearer to each other."""
        return rank

    def rings(self, members: Sequence[int]) -> list[list[int]]:
        """Orders in which a collective may pass round the members, one part of its bytes in each."""
        return rotations(self.machines(members))

    def axes(self, members: Sequence[int]) -> list[list[list[int]]]:
        """The rings of neighbours along every dimension, where the members fill a torus; else none."""
        return []

    def machines(self, members: Sequence[int]) -> list[list[int]]:
        """The members by machine, in their order."""
        found: dict[Hashable, list[int]] = {}
        for rank in members:
            found.setdefault(self.machine(rank), []).append(rank)
        return list(found.values())

    def private(self, rank: int) -> tuple[Link, ...]:
        """The links that only a rank's own messages pass, in the same order for every rank; see ``outline``."""
        return ()

    def kind(self, rank: int) -> Hashable:
        """What tells the ``private`` links of a rank from those of others: how fast they are."""
        return None

    def node(self, rank: int) -> Node:
        """What a rank is called in links."""
        return rank

    def ample(self, link: Link) -> bool:
        """Whether a link can take all that the links of ranks can bring, so that it is never what limits."""
        return False

    def outline(self, members: Sequence[int]) -> Hashable | None:
        """What tells one group of ranks from another that lies elsewhere; None: everything.

        Groups with one outline take the same time for the same collective, on links with finite bandwidth that are
        their members' own. So ranks that behave alike may be simulated once.
        """
        return None

    @property
    def grouped(self) -> bool:
        """Whether collectives should know more of the wiring than the order of ranks."""
        return False

    @property
    def direct(self) -> bool:
        """Whether every two ranks of a machine have a link of their own."""
        return False


def rotations(machines: Sequence[Sequence[int]]) -> list[list[int]]:
    """As many rings as each machine has members, each leaving a machine from another of its members.

    So all network cards of a machine are busy. Every second machine is passed backwards: a ring then enters a machine
    in the place in which it left the last one, where a rail-optimised network needs one switch only.

    >>> rotations([[0, 1, 2], [3, 4, 5]])
    [[0, 1, 2, 5, 4, 3], [1, 2, 0, 3, 5, 4], [2, 0, 1, 4, 3, 5]]
    """
    many = min(map(len, machines)) if len(machines) > 1 else 1
    found = []
    for first in range(many):
        order: list[int] = []
        for number, machine in enumerate(machines):
            turned = [*machine[first:], *machine[:first]]
            order += reversed(turned) if number % 2 else turned
        found.append(order)
    return found


def choice(source: int, target: int, seed: int, options: int) -> int:
    """One of so many equally good ways: the same for the same ranks, spread evenly over pairs.

    >>> sorted(choice(0, target, 0, 4) for target in range(1, 5)) != [0, 0, 0, 0]
    True
    """
    mixed = (source * 0x9E3779B1 ^ target * 0x85EBCA77 ^ seed * 0xC2B2AE3D) & 0xFFFFFFFF
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        mixed = ((mixed ^ mixed >> shift) * factor) & 0xFFFFFFFF
    return (mixed ^ mixed >> 16) % options
