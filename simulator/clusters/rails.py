"""Machines of several accelerators: a fast switch inside, network cards outside, and a leaf switch for every rail.

Card k of every machine of a pod is on one leaf switch, rail k. A message to another place in another machine of the pod
first goes to the neighbour on the right rail, over the fast switch, as NCCL does (PXN, since 2.12); only between
pods does it pass a spine switch. The spine stands for all tiers above the leaves.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from .wiring import Link, Node, Speed, Wiring, choice


@dataclass(frozen=True)
class Box:
    """One machine: ``inside`` from an accelerator to the fast switch, ``bus`` to its card, ``card`` to the network."""

    inside: Speed
    bus: Speed
    card: Speed


@dataclass(frozen=True)
class Rails(Wiring):
    """``boxes``: the machines, each with ``width`` accelerators and ``cards`` network cards.

    - ``pod``: machines that share leaf switches. ``spines``: switches that join the leaves of several pods.
    - ``trunk``: of each link between leaf and spine.
    - ``adaptive``: every packet takes the spine with the shortest queue, so that all spines together are like one; else
      the two ranks of a message choose one (equal-cost multi-path). ``seed``: another seed, other spines.

    >>> pods = Rails((Box(Speed(300e9), Speed(31e9), Speed(25e9)),) * 4, 2, 2, 2, 1, Speed(50e9))
    >>> pods.path(0, 3)
    (0, ('nvswitch', 0), 1, ('nic', 0, 1), ('leaf', 0, 1), ('nic', 1, 1), 3)
    >>> pods.path(0, 5)
    (0, ('nic', 0, 0), ('leaf', 0, 0), ('spine', 0), ('leaf', 1, 1), ('nic', 2, 1), 5)
    """

    boxes: tuple[Box, ...]
    width: int
    cards: int
    pod: int
    spines: int
    trunk: Speed
    seed: int = 0
    adaptive: bool = False

    @property
    def ranks(self) -> int:  # type: ignore[override]
        """All accelerators."""
        return len(self.boxes) * self.width

    def links(self) -> Iterator[Link]:
        for rank in range(self.ranks):
            box, card = rank // self.width, self._card(rank)
            for pair in ((rank, ("nvswitch", box)), (rank, ("nic", box, card))):
                yield pair
                yield pair[::-1]
        for box, k in product(range(len(self.boxes)), range(self.cards)):
            yield ("nic", box, k), ("leaf", box // self.pod, k)
            yield ("leaf", box // self.pod, k), ("nic", box, k)
        pods = -(-len(self.boxes) // self.pod) if len(self.boxes) > self.pod else 0
        for leaf in (("leaf", pod, k) for pod in range(pods) for k in range(self.cards)):
            for spine in range(1 if self.adaptive else self.spines):
                yield leaf, ("spine", spine)
                yield ("spine", spine), leaf

    def speed(self, link: Link) -> Speed:
        rank, other = link if isinstance(link[0], int) else link[::-1]
        if isinstance(rank, int):
            box = self.boxes[rank // self.width]
            return box.inside if other[0] == "nvswitch" else box.bus  # type: ignore[index]
        card = next((end for end in link if end[0] == "nic"), None)  # type: ignore[index]
        if card is not None:
            return self.boxes[card[1]].card  # type: ignore[index]
        return self.trunk._replace(bandwidth=self._together) if self.adaptive else self.trunk

    def path(self, source: int, target: int) -> Sequence[Node]:
        here, there, last = source // self.width, target // self.width, self._card(target)
        if source == target:
            return (source,)
        if here == there:
            return source, ("nvswitch", here), target
        first, pods = self._card(source), (here // self.pod, there // self.pod)
        arrival = (("nic", there, last), target)
        if pods[0] == pods[1] and (first == last or self._by_neighbour(here)):
            neighbour = () if first == last else (("nvswitch", here), here * self.width + target % self.width)
            return source, *neighbour, ("nic", here, last), ("leaf", pods[0], last), *arrival
        spine = ("spine", 0 if self.adaptive else choice(source, target, self.seed, self.spines))
        return source, ("nic", here, first), ("leaf", pods[0], first), spine, ("leaf", pods[1], last), *arrival

    def machine(self, rank: int) -> Hashable:
        return rank // self.width

    def private(self, rank: int) -> tuple[Link, ...]:
        box, place = divmod(rank, self.width)
        inside, card, leaf = ("nvswitch", box), ("nic", box, place), ("leaf", box // self.pod, place)
        return (rank, inside), (inside, rank), (rank, card), (card, rank), (card, leaf), (leaf, card)

    def outline(self, members: Sequence[int]) -> Hashable | None:
        boxes = [rank // self.width for rank in members]
        pods = [box // self.pod for box in boxes]
        if self.cards < self.width or (not self.adaptive and len(set(pods)) > 1):
            return None  # ranks share cards, or messages spines
        return *_renamed(boxes), *_renamed([rank % self.width for rank in members]), *_renamed(pods)

    def kind(self, rank: int) -> Hashable:
        return self._kinds[rank // self.width] if self._kinds else None

    @cached_property
    def _kinds(self) -> list[int]:
        """Of what kind each machine is; empty where all are of one."""
        known = {box: index for index, box in enumerate(dict.fromkeys(self.boxes))}
        return [known[box] for box in self.boxes] if len(known) > 1 else []

    def ample(self, link: Link) -> bool:
        return self._ample and all(isinstance(end, tuple) and end[0] in ("leaf", "spine") for end in link)

    @cached_property
    def _ample(self) -> bool:
        """Whether all spines together keep up with all cards of a leaf."""
        cards = self.pod * max(box.card.bandwidth * box.card.efficiency for box in dict.fromkeys(self.boxes))
        return self.adaptive and self._together * self.trunk.efficiency >= cards * (1 - 1e-9)

    @property
    def _together(self) -> float:
        return self.trunk.bandwidth * self.spines

    @property
    def grouped(self) -> bool:
        return True

    def _card(self, rank: int) -> int:
        return rank % self.width * self.cards // self.width

    def _by_neighbour(self, box: int) -> bool:
        """Whether the way over a neighbour takes no longer than that over a spine, if there is one."""
        return len(self.boxes) <= self.pod or self.boxes[box].inside.latency <= self.trunk.latency


def _renamed(names: Sequence[int]) -> list[int]:
    """The same names for the same things, in the order in which they come first."""
    known: dict[int, int] = {}
    return [known.setdefault(name, len(known)) for name in names]
