"""Random numbers that depend on their seeds alone: not on the process, nor on what was drawn before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_WORD = 2**64 - 1
_TURN = RLock()  # torch's generators are shared by all threads: a loader draws data while blocks draw masks


def mix(*numbers: int) -> int:
    """One number in 0 … 2**63 − 1 from several; neighbours land far apart. Python's ``hash`` promises neither.

    The finisher of SplitMix64 (Steele, Lea and Flood 2014, doi:10.1145/2714064.2660195) over a running state.

    >>> mix(0, 1) == mix(0, 1), mix(0, 1) == mix(1, 0)
    (True, False)
    """
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & _WORD
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _WORD
        state ^= state >> 31
    return state >> 1


def generator(*numbers: int) -> torch.Generator:
    """A fresh torch generator seeded with ``mix(*numbers)``."""
    import torch

    return torch.Generator().manual_seed(mix(*numbers))


@contextmanager
def seeded(seed: int, device: str = "cpu") -> Iterator[None]:
    """Torch's own numbers begin at ``seed`` inside, as after ``torch.manual_seed``; outside nothing changes.

    They are those of the processor and, where ``device`` is a GPU, of that GPU too.
    """
    import torch

    sources = [torch.default_generator]
    if torch.device(device).type == "cuda":
        place = torch.device(device).index
        sources.append(torch.cuda.default_generators[torch.cuda.current_device() if place is None else place])
    with _TURN:
        before = [source.get_state() for source in sources]
        # manual_seed of the module would also queue a call for every accelerator, with a stack trace each time
        for source in sources:
            source.manual_seed(seed)
        try:
            yield
        finally:
            for source, state in zip(sources, before):
                source.set_state(state)
