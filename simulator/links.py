"""The links that a group's collectives load, as far as they are simulated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .cluster import Cluster, Link
from .errors import Uneven
from .fairness import Path
from .folding import Folding
from .narrowing import narrowed, told_apart
from .plan import Plan

Stages = tuple[tuple[float, Mapping[Link, float]], ...]


class Links:
    """Of the ``members`` of a group; ``leaders`` are those who are simulated in their places.

    By position, ``of`` is that rank, and ``places`` says in which position it stands itself.
    Paths come in as those of ``like``, a group that lies as this one does, or this one itself.
    Paths in ``rough`` are exact only where nothing else passes; what is raised where something does.
    """

    def __init__(
        self,
        cluster: Cluster,
        folding: Folding,
        axis: str,
        members: Sequence[int],
        places: Sequence[int],
        like: Sequence[int],
    ):
        self.cluster, self.folding, self.axis, self.members, self.places = cluster, folding, axis, members, places
        self.of = [folding.of[member] for member in members]
        self.like, self.instead = like, dict(zip(like, self.of))
        self.leaders = tuple(dict.fromkeys(self.of))
        self.rough: dict[int, Uneven] = {}
        self._narrow: dict[int, tuple[Path, Path]] = {}
        self._stages: dict[int, tuple[Plan, Stages]] = {}
        self._uneven: dict[int, list[int]] = {}

    def stages(self, plan: Plan) -> Stages:
        """The stages of a plan, with the links that are simulated."""
        if not self.folding.folds:
            return plan.stages
        if id(plan) not in self._stages:
            found = tuple((latency, self.simulated(path)) for latency, path in plan.stages)
            self._stages[id(plan)] = plan, found
        return self._stages[id(plan)][1]

    def uneven(self, plan: Plan) -> list[int]:
        """The positions of those who send more or less than who is simulated in their place."""
        if id(plan) not in self._uneven:
            sent = plan.sent
            self._uneven[id(plan)] = [at for at, place in enumerate(self.places) if sent[at] != sent[place]]
        return self._uneven[id(plan)]

    def simulated(self, path: Path) -> Path:
        """A path, with the links that are simulated."""
        if not self.folding.folds:
            return path
        if id(path) not in self._narrow:
            found, exact = narrowed(self.cluster, self.like, self.instead, path)
            self._narrow[id(path)] = path, found
            if not exact:
                self.rough[id(found)] = Uneven(self.axis, told_apart(self.cluster, self.like, path))
        return self._narrow[id(path)][1]
