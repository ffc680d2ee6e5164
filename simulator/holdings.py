"""The parameters that ranks hold when a run ends, put together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from .problem import Problem

Piece = tuple["int | np.ndarray", "np.ndarray"]
"""Where in the flat vector of all parameters a piece begins, or where each of its numbers lies; and the numbers."""

SAME = 1e-6
"""How far apart the ranks' parameters may be by rounding, relative to the largest of them."""


def assemble(problem: Problem, seed: int, pieces: list[Piece]) -> dict[str, np.ndarray]:
    """Parameters by name, from the pieces that the ranks hold; where several hold one, the first counts.

    ``replicas`` says by how much these differ.
    """
    import numpy as np

    named = problem.parameters(seed)
    flat = np.full(sum(array.size for array in named.values()), np.nan, dtype=next(iter(named.values())).dtype)
    for where, numbers in reversed(pieces):
        flat[_places(where, numbers)] = numbers
    ends = np.cumsum([array.size for array in named.values()])[:-1]
    return {name: part.reshape(named[name].shape) for name, part in zip(named, np.split(flat, ends))}


def firsts(kept: Iterable[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Buffers by name, block by block; where several ranks keep one, the first counts."""
    found: dict[str, np.ndarray] = {}
    for mine in kept:
        found = {**mine, **found}
    return dict(sorted(found.items(), key=lambda item: int(item[0].partition(".")[0])))


def replicas(pieces: list[Piece]) -> dict[str, str]:
    """A note for the Run, where several ranks hold the same parameters and they differ by more than rounding."""
    import numpy as np

    places = [_places(where, numbers) for where, numbers in pieces]
    size = 1 + max((int(part.max()) for part in places if len(part)), default=-1)
    if not size:
        return {}
    low, high = np.full(size, np.inf), np.full(size, -np.inf)
    for part, (_, numbers) in zip(places, pieces):
        low[part], high[part] = np.minimum(low[part], numbers), np.maximum(high[part], numbers)
    apart = float(np.max(high - low))
    if not apart > SAME * max(float(np.max(high)), -float(np.min(low))):
        return {}
    return {"replicas": f"the ranks' parameters differ by up to {apart:.3g}: is an AllReduce missing?"}


def _places(where: int | np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Where each number of a piece lies."""
    import numpy as np

    return np.arange(where, where + len(numbers)) if isinstance(where, int) else where
