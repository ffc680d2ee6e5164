"""Whether a plan fits into the memory of the devices, before it is simulated.

What counts is what ``memory`` reads from the program, for each rank against the memory of its own device. Nothing is
set aside for what libraries need (a context, buffers of collectives, fragments): makers print 80 GB where a device has
80·2³⁰ bytes, and the difference of 7 % is about that.
"""

from __future__ import annotations

from .cluster import Cluster
from .errors import OutOfMemoryError
from .footprint import Footprint
from .memory import RankMemory, Text
from .model import Model
from .models.transformer import Transformer
from .rank import Rank
from .settling import settled
from .strategies import Sharded

KINDS = {
    "parameters": "parameters",
    "gradients": "gradients",
    "optimizer": "optimizer state",
    "activations": "activations",
    "buffers": "buffers",
}
GB = 1e9


def ensure_fits(text: Text, cluster: Cluster) -> None:
    """Raise OutOfMemoryError where a rank of a program needs more than its device has.

    Nothing is said of devices whose memory nobody knows, and of programs that depend on what their instructions give.
    """
    if not text.stack.order.static or not any(_known(cluster)):
        return
    held = settled(text)
    short = [(one.most.total - room, rank) for rank, (one, room) in enumerate(zip(held, _room(cluster))) if room]
    beyond, rank = max(short, default=(0.0, 0), key=lambda one: (one[0], -one[1]))
    if beyond > 0:
        raise _error(text, cluster, rank, held[rank])


def _known(cluster: Cluster) -> list[float | None]:
    return [device.memory for device in (cluster.devices or (cluster.device,))]


def _room(cluster: Cluster) -> list[float | None]:
    """The memory of every rank's device [B]."""
    return [cluster.device_of(rank).memory for rank in range(cluster.ranks)]


def _error(text: Text, cluster: Cluster, rank: int, memory: RankMemory) -> OutOfMemoryError:
    """What is too large, by how much, and what to do."""
    device = cluster.device_of(rank)
    moment = next(moment for moment in memory.over_time if moment.held == memory.most)
    needed, room = memory.most.total, device.memory or 0.0
    said = (
        f"a rank holds at most what its device has: rank {rank} needs {_size(needed)} in {moment.instruction},"
        f" {_size(needed - room)} more than the {_size(room)} of {device.name}: {_listed(memory.most)}. What helps, in"
        f" this order: {'; '.join(remedies(text, memory.most))}. fit=False simulates it all the same"
    )
    return OutOfMemoryError(said, rank, needed, room, memory.most)


def _size(number: float) -> str:
    return f"{number / GB:,.{1 if number >= 10 * GB else 3}f} GB"


def _listed(held: Footprint) -> str:
    """The kinds by size, the largest first."""
    sizes = sorted(((getattr(held, kind), name) for kind, name in KINDS.items()), reverse=True)
    return ", ".join(f"{name} {_size(size)}" for size, name in sizes if size)


def remedies(text: Text, held: Footprint) -> list[str]:
    """What makes a plan smaller, the cheapest in time first; before all, of what is largest here."""
    me = Rank(text.stack, 0, text.ranks, text.model, 1, text.rule)
    moving, lasting = _of_activations(text.model, me), _of_states(text, me)
    states = held.parameters + held.gradients + held.optimizer
    return [*lasting, *moving] if states > held.total / 2 else [*moving, *lasting]


def _of_activations(model: Model, me: Rank) -> list[str]:
    recipe = model.recipe
    attends = isinstance(recipe, Transformer) and recipe.recompute == "none" and "selective" in recipe.recomputations
    whole = all(block.recomputes or block.aside for block in model.blocks)
    return [
        *(["recompute='selective'"] if attends else []),
        *([] if whole else ["recompute='full'"]),
        *(["more and smaller microbatches"] if me.samples(0) > 1 else []),
        *(["TensorParallel(sequence=True)"] if _in_parts(model) and not me.cut.sequence else []),
    ]


def _of_states(text: Text, me: Rank) -> list[str]:
    stage = max((layer.stage for layer in text.stack.layers if isinstance(layer, Sharded)), default=0)
    return [
        *(["Sharded with a higher stage"] if stage < 3 and me.share is not None and me.share[1] > 1 else []),
        *(["TensorParallel over more ranks"] if _in_parts(text.model) else []),
        "a Pipeline of more stages",
    ]


def _in_parts(model: Model) -> bool:
    """Whether ranks can share its blocks."""
    return all(block.parts for block in model.blocks)
