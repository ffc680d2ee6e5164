"""The parameters that ranks hold when a run ends, put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from .problem import Problem

Piece = tuple[int, "np.ndarray"]
"""Where in the flat vector of all parameters a piece begins, and its numbers."""


SAME = 1e-6
"""How far apart the ranks' parameters may be by rounding, relative to the largest of them."""


def assemble(problem: Problem, seed: int, pieces: list[Piece]) -> dict[str, np.ndarray]:
    """Parameters by name, from the pieces that the ranks hold; where several hold one, the first counts.

    ``replicas`` says by how much these differ.
    """
    import numpy as np

    named = problem.parameters(seed)
    flat = np.full(sum(array.size for array in named.values()), np.nan, dtype=next(iter(named.values())).dtype)
    for start, numbers in reversed(pieces):
        flat[start : start + len(numbers)] = numbers
    ends = np.cumsum([array.size for array in named.values()])[:-1]
    return {name: part.reshape(named[name].shape) for name, part in zip(named, np.split(flat, ends))}


def replicas(pieces: list[Piece]) -> dict[str, str]:
    """A note for the Run, where several ranks hold the same parameters and they differ by more than rounding."""
    import numpy as np

    size = max((start + len(numbers) for start, numbers in pieces), default=0)
    if not size:
        return {}
    low, high = np.full(size, np.inf), np.full(size, -np.inf)
    for start, numbers in pieces:
        part = slice(start, start + len(numbers))
        low[part], high[part] = np.minimum(low[part], numbers), np.maximum(high[part], numbers)
    apart = float(np.max(high - low))
    if not apart > SAME * max(float(np.max(high)), -float(np.min(low))):
        return {}
    return {"replicas": f"the ranks' parameters differ by up to {apart:.3g}: is an AllReduce missing?"}
