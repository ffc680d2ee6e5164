"""Where a function runs: which rank it is, among how many, on which device."""

from __future__ import annotations

import os
from dataclasses import dataclass

from .board import Board

INSIDE = "TWO_CLOCKS_RANK"
"""The environment variable that marks a rank, and whatever a rank starts."""


@dataclass(frozen=True)
class Place:
    """What a function learns about the rank it runs in.

    ``device`` is ``"cpu"`` or ``"cuda:k"``; ``hosts`` the number of machines. ``board.note`` and ``board.progress``
    tell the parent how far the rank is.
    """

    rank: int
    ranks: int
    device: str
    board: Board
    hosts: int = 1


def inside_rank() -> bool:
    """Whether this process is a rank, or was started by one."""
    return INSIDE in os.environ
