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

    def enter(self) -> None:
        """Make the rank's GPU the one that this thread takes unless told otherwise: in CUDA each thread has its own."""
        if self.device != "cpu":
            import torch

            torch.cuda.set_device(self.device)

    def synchronise(self) -> None:
        """Wait until a GPU has done what this thread has issued: an instruction's time is not over before.

        Of the thread's own stream alone. Collectives go on beside it, and some wait for what another rank sends only
        when this one goes on.
        """
        if self.device != "cpu":
            import torch

            torch.cuda.current_stream(self.device).synchronize()


def claimed_device(local: int, here: int) -> str:
    """The device of rank ``local`` of ``here`` on this host: a GPU where each of them gets one, else the CPU."""
    import torch
    from torch import distributed

    if torch.cuda.device_count() < here or not distributed.is_nccl_available():
        return "cpu"
    torch.cuda.set_device(local)
    return f"cuda:{local}"


def backend_of(device: str) -> str:
    """What process groups of ranks on such devices run on; messages pass through the host's memory, hence gloo."""
    return "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"


def inside_rank() -> bool:
    """Whether this process is a rank, or was started by one."""
    return INSIDE in os.environ
