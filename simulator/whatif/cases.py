"""What a sweep goes through: every strategy with every model, cluster and value of every knob."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from itertools import product
from typing import Any

from .. import checks
from ..checking import AnyStrategy
from ..cluster import ALGORITHMS, Cluster
from ..clusters.device import Device, dtype_name
from ..clusters.knobs import device_of, instead, written
from ..clusters.named import cluster
from ..model import Model
from ..models import model
from ..models.transformer import RECOMPUTE
from ..problem import Problem
from ..simulate import DETAILS, simulate
from ..stack import Layer, Order, Stack, stack
from .content import digest, version

SIZES = ("nodes", "ranks")
"""Knobs of clusters that are given by name."""
PARTS = ("device", "algorithm")
"""Knobs of all clusters; None: as they are."""
GIVEN = ("strategy", "workload", "cluster", "ranks", "seed", "replay")
"""What a sweep gives ``simulate`` itself."""


@dataclass(frozen=True)
class Impossible:
    """A cluster that cannot be of this size: ``name`` as it was given, and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Case:
    """One combination. ``knobs`` are those of ``simulate``, ``made`` those that its cluster was made with."""

    strategy: Stack
    model: Model | Problem
    cluster: Cluster | Impossible
    knobs: Mapping[str, Any]
    made: Mapping[str, Any]

    def columns(self) -> dict[str, Any]:
        """What tells it from others in a table."""
        first = dict(strategy=str(self.strategy), model=self.model.name, cluster=str(self.cluster))
        made = {**self.made, **(_own(self.cluster, self.made) if isinstance(self.cluster, Cluster) else {})}
        return {**first, **{name: _cell(value) for name, value in {**made, **self.knobs}.items()}}

    def key(self, seed: int) -> str:
        """The same for the same content in every process, another one where anything differs."""
        return digest(version(), self.strategy, self.model, self.cluster, self.knobs, seed)


def cases(strategies: object, models: object, clusters: object, lists: Mapping[str, object]) -> list[Case]:
    """The product of all lists, the last of them fastest. Raises ValueError for names that nobody knows."""
    values = {name: listed(given) for name, given in lists.items()}
    _check(values)
    named = dict(strategies=listed(strategies), models=listed(models), clusters=listed(clusters))
    _refuse_empty(named)
    _check_words(values)
    made = {name: values.pop(name) for name in (*SIZES, *PARTS) if name in values}
    return [
        Case(strategy, workload, where, knobs, how)
        for strategy, workload, (where, how), knobs in product(
            [_strategy(one) for one in named["strategies"]],
            [_model(one) for one in named["models"]],
            list(_clusters(named["clusters"], made)),
            list(_combinations(values)),
        )
    ]


def listed(given: object) -> list[Any]:
    """The things of a list; a single thing is a list of one."""
    alone = isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable)
    return [given] if alone else list(given)  # type: ignore[call-overload]


def knobs() -> list[str]:
    """The names of the lists that a sweep takes beside strategies, models and clusters."""
    return [*SIZES, *PARTS, *(name for name in signature(simulate).parameters if name not in GIVEN)]


def _check(values: Mapping[str, Sequence[object]]) -> None:
    for name, several in values.items():
        if name not in knobs():
            raise ValueError(f"a sweep has lists of {', '.join(knobs())}; got {name}={several!r}")
    _refuse_empty(values)


def _refuse_empty(values: Mapping[str, Sequence[object]]) -> None:
    for name, several in values.items():
        if not several:
            raise ValueError(f"every list of a sweep has something in it; got {name}=[]")


def _check_words(values: Mapping[str, Sequence[object]]) -> None:
    """A word that no simulation knows is a slip of the pen, and no combination that cannot be."""
    for detail in values.get("detail", ()):
        checks.one_of("detail", detail, DETAILS)
    for recompute in values.get("recompute", ()):
        if recompute is not None:
            checks.one_of("recompute", recompute, RECOMPUTE)
    for algorithm in values.get("algorithm", ()):
        if algorithm is not None:
            checks.one_of("algorithm", algorithm, ALGORITHMS)
    for device in values.get("device", ()):
        if device is not None:
            device_of(device)
    for dtype in values.get("dtype", ()):
        if dtype is not None:
            dtype_name(dtype)


def _combinations(values: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for combination in product(*values.values()):
        yield dict(zip(values, combination, strict=True))


def _clusters(
    given: Sequence[object], made: Mapping[str, Sequence[Any]]
) -> Iterator[tuple[Cluster | Impossible, dict[str, Any]]]:
    """Clusters, and the knobs that they were made with."""
    sizes = [name for name in SIZES if name in made]
    for one in given:
        if isinstance(one, str):
            yield from _named(one, list(_combinations(made)))
            continue
        checks.kind("clusters", one, Cluster, 'a list of clusters, or names such as "dgx-a100"')
        if sizes:
            raise ValueError(f"a cluster that is given has its size; got {one}, and {', '.join(sizes)}: name it")
        for knobs in _combinations(made):
            yield _made(str(one), knobs, partial(instead, one)), knobs  # type: ignore[arg-type]


def _named(name: str, several: Sequence[dict[str, Any]]) -> Iterator[tuple[Cluster | Impossible, dict[str, Any]]]:
    """A cluster with every combination of knobs. Raises ValueError where none can be."""
    found = [(_made(name, knobs, lambda given: cluster(name, **given)), knobs) for knobs in several]
    if all(isinstance(one, Impossible) for one, _ in found):
        if written(name) and all(knobs.get(size) is None for knobs in several for size in SIZES):
            raise ValueError(
                f"a cluster that is named needs its size; got clusters={name!r} without nodes and ranks: give the sweep"
                f" nodes=[1, 2] or ranks=[8, 16], or a cluster that is made, such as {written(name)}"
            )
        cluster(name, **several[0])
    yield from found


def _made(name: str, knobs: Mapping[str, Any], make: Callable[[dict[str, Any]], Cluster]) -> Cluster | Impossible:
    try:
        return make({knob: value for knob, value in knobs.items() if value is not None})
    except ValueError as error:
        return Impossible(name, str(error))


def _model(one: object) -> Model | Problem:
    if isinstance(one, str):
        return model(one)
    checks.kind("models", one, (Model, Problem), 'a list of models, or names such as "gpt3-175b"')
    return one  # type: ignore[return-value]


def _strategy(one: object) -> Stack:
    """A strategy by name has the knobs that it has by default."""
    from .. import strategies

    if isinstance(one, str):
        found = getattr(strategies, one, None) if one in strategies.__all__ else None
        if not isinstance(found, type) or not issubclass(found, (Order, Layer)):
            raise ValueError(f"no strategy is called {one!r}; names are those of classes, such as 'DataParallel'")
        return stack(found())
    return stack(_known(one))


def _known(one: Any) -> AnyStrategy:
    checks.kind("strategies", one, (Order, Layer, Stack), "a list of strategies, or names such as 'DataParallel'")
    return one  # type: ignore[no-any-return]


def _own(where: Cluster, made: Mapping[str, Any]) -> dict[str, Any]:
    """How many ranks a cluster has, and what of ``PARTS`` it has itself where nobody says it."""
    names = dict.fromkeys(device.name for device in where.devices or (where.device,))
    own = {"device": ", ".join(names), "algorithm": where.algorithm}
    return {"ranks": where.ranks, **{name: told for name, told in own.items() if made.get(name, told) is None}}


def _cell(value: object) -> object:
    """A value of a knob as it stands in a table."""
    if isinstance(value, Device):
        return value.name
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
