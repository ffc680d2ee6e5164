"""The board: what each rank is doing, in memory that its parent can read even when the rank is stopped or dead.

Every rank owns one record of 256 bytes in a shared file mapping. A record may be read while it is being written;
what is read then is a moment old or a mixture of two notes, which is harmless: it is only looked at, never obeyed.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass

RECORD_BYTES = 256
TEXT_BYTES = 160

_BEAT = struct.Struct("<Q")  # at 0: heartbeats
_FRACTION = struct.Struct("<d")  # at 8: 0..1
_NOTE = struct.Struct(f"<QqBB{TEXT_BYTES}s")  # at 16: notes, step, waiting, length of the text, text
_KNOWN_TEXTS = 4096


@dataclass(frozen=True)
class Status:
    """What a rank's record said: ``fraction`` done in 0..1, ``instruction`` the text of its last note.

    ``beats`` counts signs of life (5 per second), ``notes`` counts calls of ``note``.
    """

    beats: int
    fraction: float
    notes: int
    step: int
    waiting: bool
    instruction: str

    def __str__(self) -> str:
        waiting = ", waiting in communication" if self.waiting else ""
        return f"step {self.step}, {self.instruction}{waiting}"


class Board:
    """The record of one rank, for the rank itself to write.

    >>> board = Board.private()
    >>> board.note(3, "Forward 0 mb0")
    >>> board.status().step
    3
    """

    def __init__(self, memory: mmap.mmap, rank: int = 0):
        self._memory = memory
        self._rank = rank
        self._at = rank * RECORD_BYTES
        self._beats = self._notes = 0
        self._texts: dict[str, bytes] = {}

    @classmethod
    def private(cls) -> Board:
        """A board that nobody else looks at."""
        return cls(mmap.mmap(-1, RECORD_BYTES))

    def note(self, step: int, instruction: str, waiting: bool = False) -> None:
        """Say what is done now; ``waiting`` means that it may wait for other ranks. Costs about a microsecond."""
        self._notes += 1
        text = self._texts.get(instruction) or self._encode(instruction)
        _NOTE.pack_into(self._memory, self._at + 16, self._notes, step, waiting, len(text), text)

    def progress(self, fraction: float) -> None:
        """Say how much of the work is done, from 0 to 1."""
        _FRACTION.pack_into(self._memory, self._at + 8, fraction)

    def beat(self) -> None:
        """Give a sign of life."""
        self._beats += 1
        _BEAT.pack_into(self._memory, self._at, self._beats)

    def status(self) -> Status:
        """What this record says now."""
        return read(self._memory, self._rank)

    def _encode(self, instruction: str) -> bytes:
        if len(self._texts) >= _KNOWN_TEXTS:
            self._texts.clear()
        text = self._texts[instruction] = instruction.encode(errors="replace")[:TEXT_BYTES]
        return text


def read(memory: mmap.mmap, rank: int) -> Status:
    """What the record of ``rank`` says now."""
    at = rank * RECORD_BYTES
    (beats,), (fraction,) = _BEAT.unpack_from(memory, at), _FRACTION.unpack_from(memory, at + 8)
    notes, step, waiting, length, text = _NOTE.unpack_from(memory, at + 16)
    instruction = text[:length].decode(errors="ignore") or "none yet"
    return Status(beats, min(max(fraction, 0.0), 1.0), notes, step, bool(waiting), instruction)


def clear(memory: mmap.mmap, rank: int) -> None:
    """Forget the notes of an earlier run. Only while the rank is idle."""
    _FRACTION.pack_into(memory, rank * RECORD_BYTES + 8, 0.0)
    _NOTE.pack_into(memory, rank * RECORD_BYTES + 16, 0, 0, 0, 0, b"")
