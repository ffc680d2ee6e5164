"""Clusters of machines with several accelerators each, by name; their numbers are the catalogue's."""

from __future__ import annotations

from collections.abc import Callable

from .. import catalog, checks
from ..cluster import Cluster
from .knobs import check_ranks
from .mesh import Mesh
from .rails import Box, Rails
from .wiring import Speed

TRUNK_LATENCY = 0.35e-6
"""Of a link between two switches [s]; unconfirmed. Two of them take longer than a detour over a neighbour's card."""
NVLINK_LATENCY = 0.3e-6
"""From an accelerator to its fast switch [s]: half of what NCCL's tables count for a step inside a machine."""
CARD_SHARE = 1 / 6
"""Of a card's latency, what passes between accelerator and card; the rest is between card and switch."""


def dgx(chip: str, card: str, bus: str) -> Callable[..., Cluster]:
    """A preset of machines of one kind, each with 8 accelerators on a fast switch and, unless told, a card for each."""

    def preset(
        nodes: int | None = None,
        ranks: int | None = None,
        pod: int = 32,
        cards: int = 8,
        oversubscription: float = 1.0,
        routing: str = "adaptive",
        seed: int = 0,
    ) -> Cluster:
        width, nodes = _machines(nodes, ranks)
        if checks.whole("cards", cards, least=1, of="of a machine") > 8:
            raise ValueError(f"a machine has a network card for each accelerator at most, 8; got cards={cards!r}")
        box = _box(chip, card, bus)
        wiring = _rails((box,) * nodes, width, min(cards, width), pod, oversubscription, seed, routing)
        maker = catalog.device(chip)
        inner, outer = box.inside.bandwidth, box.card.bandwidth
        name = f"{nodes} x {width} {maker.name}, {inner:g} B/s inside, {wiring.cards} x {outer:g} B/s outside"
        return Cluster(name, wiring.ranks, wiring, maker, algorithm="auto", library="nccl")

    preset.__doc__ = f"""Machines of 8 x {chip}: a switch inside, a card ({card}) for each, one leaf switch per rail.

    ``nodes``: machines of 8; or ``ranks``: as many accelerators, of one machine or of whole ones. ``pod``: machines on
    the same leaf switches. ``cards``: how many per machine, at most 8. ``oversubscription`` of the links from leaves to
    spines. ``routing`` over the spines: "adaptive", packet by packet, as InfiniBand switches can; or "ecmp", by hash.
    """
    return preset


def mixed(
    nodes: int,
    old: int | None = None,
    pod: int = 32,
    oversubscription: float = 1.0,
    routing: str = "adaptive",
    seed: int = 0,
) -> Cluster:
    """Two generations: ``old`` machines of a DGX A100 (None: half of them), the other ``nodes`` of a DGX H100."""
    checks.whole("nodes", nodes, least=1)
    many = nodes // 2 if old is None else checks.whole("old", old)
    if many > nodes:
        raise ValueError(f"old machines are some of the nodes; got old={old} of nodes={nodes}")
    kinds = [("a100-sxm-80gb", "ib-hdr", "pcie4-x16")] * many + [("h100-sxm", "ib-ndr", "pcie5-x16")] * (nodes - many)
    wiring = _rails(tuple(_box(*kind) for kind in kinds), 8, 8, pod, oversubscription, seed, routing)
    devices = tuple(catalog.device(chip) for chip, _, _ in kinds for _ in range(8))
    name = f"{many} x 8 A100 and {nodes - many} x 8 H100"
    return Cluster(name, wiring.ranks, wiring, devices[0], devices=devices, algorithm="auto", library="nccl")


def mi300x(ranks: int = 8) -> Cluster:
    """One machine of AMD MI300X, every two of them joined by a link of their own: few ranks have few links."""
    if checks.whole("ranks", ranks, least=1) > 8:
        raise ValueError(f"a machine has 8 MI300X; got ranks={ranks}")
    entry = catalog.find("mi300x")
    each = Speed(entry["link_bandwidth"] / 7, 1e-6, entry["link_achieved"] / entry["link_bandwidth"])
    device = catalog.device("mi300x")
    return Cluster(f"{ranks} {device.name} in a mesh", ranks, Mesh(ranks, each), device, algorithm="auto")


def _box(chip: str, card: str, bus: str) -> Box:
    """A machine of the catalogue: a card's latency is shared out between both of its ends."""
    inside, outside = catalog.link(chip), catalog.link(card)
    return Box(
        inside._replace(latency=NVLINK_LATENCY),
        catalog.link(bus)._replace(latency=outside.latency * CARD_SHARE),
        outside._replace(latency=outside.latency * (0.5 - CARD_SHARE)),
    )


def _rails(
    boxes: tuple[Box, ...], width: int, cards: int, pod: int, oversubscription: float, seed: int, routing: str
) -> Rails:
    """Leaves with a link up for each machine below, unless they have fewer by the oversubscription."""
    if routing not in ("adaptive", "ecmp"):
        raise ValueError(f"routing is 'adaptive' or 'ecmp'; got routing={routing!r}")
    pod, seed = checks.whole("pod", pod, least=1), checks.whole("seed", seed)
    oversubscription = checks.number("oversubscription", oversubscription, above=0)
    spines = max(1, round(pod / oversubscription))
    card = max((box.card for box in boxes), key=lambda speed: speed.bandwidth)
    trunk = Speed(card.bandwidth * pod / oversubscription / spines, TRUNK_LATENCY, card.efficiency)
    return Rails(boxes, width, cards, pod, spines, trunk, seed, routing == "adaptive")


def _machines(nodes: int | None, ranks: int | None) -> tuple[int, int]:
    """Accelerators per machine, and machines."""
    if (nodes is None) == (ranks is None):
        given = f"nodes={nodes} and ranks={ranks}"
        raise ValueError(f"a cluster of machines takes nodes, or ranks; got {given}: give one of them, say nodes=2")
    if nodes is not None:
        return 8, checks.whole("nodes", nodes, least=1)
    many = check_ranks(ranks)  # type: ignore[arg-type]
    if many > 8 and many % 8:
        raise ValueError(f"machines have 8 accelerators: ranks is at most 8, or a multiple of 8; got ranks={ranks}")
    return min(many, 8), -(-many // 8)
