"""Clusters by name, as people build them; their numbers are the catalogue's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from inspect import signature
from math import inf, prod
from typing import Any

from .. import catalog, checks
from ..cluster import Cluster
from .device import Device
from .grid import Grid
from .knobs import KNOBS, check_ranks, instead, many
from .machines import TRUNK_LATENCY, dgx, mi300x, mixed
from .star import Star
from .tiers import Tiers
from .wiring import Speed

CARD = "100gbe-roce"
"""The card of those clusters of which nobody says which."""


def ideal(ranks: int) -> Cluster:
    """Compute as given, the network free."""
    return Cluster.flat(ranks, inf, 0.0, name=f"{many(ranks)} on an ideal network")


def single_switch(
    ranks: int, card: str | Speed = CARD, bandwidth: float | None = None, latency: float | None = None
) -> Cluster:
    """All ranks on one switch that is never the bottleneck, with a card each.

    ``card``: a key of the catalogue, or a Speed; or ``bandwidth`` [B/s per direction] and ``latency`` [s] from rank to
    rank.
    """
    speed = _card(card, bandwidth, latency)
    half = (speed._replace(latency=speed.latency / 2),)
    return Cluster(f"{many(ranks)} on one switch, {_told(speed)}", ranks, Star(ranks, half, half))


def fat_tree(
    ranks: int,
    per_leaf: int = 16,
    oversubscription: float = 1.0,
    spines: int | None = None,
    card: str | Speed = CARD,
    bandwidth: float | None = None,
    latency: float | None = None,
    seed: int = 0,
) -> Cluster:
    """Leaf switches of ``per_leaf`` ranks, joined by spine switches.

    ``oversubscription``: how many times more bandwidth a leaf has to its ranks than to all spines together; 1: none.
    ``spines``: their number; None: as many links up as the bandwidth needs links of a card's speed.
    """
    per_leaf = checks.whole("per_leaf", per_leaf, least=1)
    oversubscription = checks.number("oversubscription", oversubscription, above=0)
    ranks, seed = check_ranks(ranks), checks.whole("seed", seed)
    speed = _card(card, bandwidth, latency)
    up = speed.bandwidth * per_leaf / oversubscription
    many = max(1, round(up / speed.bandwidth)) if spines is None else checks.whole("spines", spines, least=1)
    host, trunk = speed._replace(latency=speed.latency / 2), Speed(up / many, TRUNK_LATENCY, speed.efficiency)
    name = f"{ranks} ranks in a fat tree, {oversubscription:g}:1, {_told(speed)}"
    return Cluster(name, ranks, Tiers(ranks, per_leaf, many, host, trunk, seed))


def ring(ranks: int, bandwidth: float = 12.5e9, latency: float = 1e-6) -> Cluster:
    """Every rank joined to its two neighbours; ``bandwidth`` [B/s per direction], ``latency`` [s] of each link."""
    speed = _card("", bandwidth, latency)
    name = f"{check_ranks(ranks)} rank{'s' if ranks > 1 else ''} in a ring, {_told(speed)}"
    return Cluster(name, ranks, Grid((ranks,), speed))


def torus(
    shape: Sequence[int] | None = None,
    ranks: int | None = None,
    chip: str = "tpu-v4",
    bandwidth: float | None = None,
    latency: float = 1e-6,
) -> Cluster:
    """Every rank joined to its neighbours along every dimension of ``shape``, as TPUs are.

    ``ranks`` instead of ``shape``: the cube, or the square of a chip with a 2D torus, that they fill. ``chip``: of the
    catalogue; its bandwidth is that of all its links together. ``bandwidth`` [B/s], ``latency`` [s]: of one link.
    """
    if shape is not None:
        shape = tuple(checks.several("shape", shape, "the sides of a torus, such as (4, 4, 4)"))
    if shape is not None and ranks is not None and prod(shape) != ranks:
        raise ValueError(f"a torus takes a shape, or ranks that fill it; got shape={shape!r} and ranks={ranks!r}")
    wires = catalog.find(chip).texts.get("link", "")
    dimensions = 2 if "2D" in wires else 3
    sides = tuple(checks.whole("shape", n, least=1) for n in shape) if shape is not None else _cube(ranks, dimensions)
    if bandwidth is None and "torus" not in wires:
        raise ValueError(f"a chip of a torus has links along its dimensions; {chip!r} has {wires!r}: give a bandwidth")
    if bandwidth is None:
        total = catalog.link(chip).bandwidth
    else:
        total = 2 * dimensions * checks.number("bandwidth", bandwidth, above=0, of="in bytes per second")
    speed = _card("", total / (2 * dimensions), latency)
    name = f"{catalog.device(chip).name}, torus of {'x'.join(map(str, sides))}"
    wiring = Grid(sides, speed)
    return Cluster(name, wiring.ranks, wiring, catalog.device(chip), algorithm="hierarchical")


def edge(ranks: int, servers: int = 1, up: float = 10e6 / 8, down: float = 50e6 / 8, latency: float = 0.03) -> Cluster:
    """Slow devices behind slow links: the first ``servers`` ranks stand in a data centre, all others at home.

    ``up``, ``down`` [B/s] and ``latency`` [s], each way, of the link of a home. Devices are of three speeds, by turns:
    200, 50 and 10 GFLOP/s.
    """
    ranks, servers = check_ranks(ranks), checks.whole("servers", servers)
    if servers > ranks:
        raise ValueError(f"servers are the first of the ranks; got servers={servers} of ranks={ranks}")
    homes = ranks - servers
    centre = (Speed(12.5e9, 1e-6),) * servers
    slow = [_card("", checks.number(name, speed, above=0), latency) for name, speed in (("up", up), ("down", down))]
    wiring = Star(ranks, centre + (slow[0],) * homes, centre + (slow[1],) * homes)
    phones = [Device(name, speed) for name, speed in (("laptop", 200e9), ("phone", 50e9), ("small board", 10e9))]
    devices = [Device("server", 10e12)] * len(centre) + [phones[index % 3] for index in range(homes)]
    return Cluster(f"{homes} devices at the edge, {servers} servers", ranks, wiring, devices=tuple(devices))


PRESETS: dict[str, Callable[..., Cluster]] = {
    "ideal": ideal,
    "single-switch": single_switch,
    "fat-tree": fat_tree,
    "ring": ring,
    "torus": torus,
    "dgx-a100": dgx("a100-sxm-80gb", "ib-hdr", "pcie4-x16"),
    "dgx-h100": dgx("h100-sxm", "ib-ndr", "pcie5-x16"),
    "mi300x": mi300x,
    "mixed": mixed,
    "edge": edge,
}


def presets() -> dict[str, str]:
    """The clusters that ``cluster(name, …)`` makes, and the knobs of each.

    >>> presets()["ring"]
    'ranks, bandwidth=12500000000.0, latency=1e-06'
    """
    return {name: _knobs(preset) for name, preset in PRESETS.items()}


def plainly(name: str) -> str:
    """A preset's name as the table has it: capitals and underscores do not matter."""
    return name.lower().replace("_", "-")


def made(name: str, knobs: Mapping[str, Any]) -> Cluster:
    """A preset with its knobs, and with what every cluster can be given instead of its own."""
    asked = name
    name = plainly(str(name))
    if not isinstance(asked, str) or name not in PRESETS:
        raise ValueError(f"no cluster is called {asked!r}; the names are {', '.join(map(repr, PRESETS))}")
    preset, parameters = PRESETS[name], signature(PRESETS[name]).parameters
    own = {key: value for key, value in knobs.items() if key not in KNOBS}
    unknown = [key for key in own if key not in parameters]
    needed = [key for key, p in parameters.items() if p.default is p.empty and key not in own]
    if unknown or needed:
        wrong = f"got {', '.join(unknown)}" if unknown else f"{needed[0]} is missing"
        raise ValueError(f"cluster {name!r} takes {_knobs(preset)}, and {', '.join(KNOBS)}; {wrong}")
    return _renamed(preset(**own), {key: value for key, value in knobs.items() if key not in own})


def _renamed(cluster: Cluster, knobs: Mapping[str, Any]) -> Cluster:
    """A preset with what it was given instead of its own; its name says what computes in the place of what it names."""
    changed = instead(cluster, knobs)
    if not {"device", "devices"} & knobs.keys():
        return changed
    names = list(dict.fromkeys(changed.device_of(rank).name for rank in range(changed.ranks)))
    other = "" if cluster.device == Device() and not cluster.devices else "with its accelerators replaced by "
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return replace(changed, name=f"{cluster.name}, {other}{', '.join(names[:2])}{more}")


def _knobs(preset: Callable[..., Cluster]) -> str:
    parameters = signature(preset).parameters.values()
    return ", ".join(p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters)


def _card(key: str | Speed, bandwidth: float | None, latency: float | None) -> Speed:
    """A card of the catalogue, unless told otherwise."""
    if bandwidth is not None and key not in ("", CARD):
        raise ValueError(f"a cluster takes a card, or a bandwidth; got card={key!r} and bandwidth={bandwidth!r}")
    if bandwidth is None:
        found = _sound(key) if isinstance(key, Speed) else catalog.link(key)
        return found if latency is None else found._replace(latency=checks.number("latency", latency, least=0))
    bandwidth = checks.number("bandwidth", bandwidth, above=0, of="in bytes per second")
    return Speed(bandwidth, checks.number("latency", 0.0 if latency is None else latency, least=0, of="in seconds"))


def _sound(speed: Speed) -> Speed:
    """A speed that somebody made; it is what a link of a graph must be. Raises ValueError for others."""
    if speed.bandwidth != inf:
        checks.number("bandwidth", speed.bandwidth, above=0, of="a Speed, in bytes per second")
    checks.number("latency", speed.latency, least=0, of="a Speed, in seconds")
    if checks.number("efficiency", speed.efficiency, above=0, of="a Speed") > 1:
        raise ValueError(f"a Speed has an efficiency above 0, at most 1: the share that data get; got {speed}")
    return speed


def _told(speed: Speed) -> str:
    return f"{speed.bandwidth:g} B/s"


def _cube(ranks: int | None, dimensions: int) -> tuple[int, ...]:
    """The sides of a torus of so many ranks, as equal as they can be."""
    if ranks is None:
        raise ValueError("a torus takes shape=(4, 4, 4), or ranks")
    sides, left = [], check_ranks(ranks)
    for dimension in range(dimensions, 0, -1):
        side = max(n for n in range(1, round(left ** (1 / dimension)) + 1) if left % n == 0)
        sides.append(side)
        left //= side
    sides[-1] *= left
    return tuple(sorted(sides))
