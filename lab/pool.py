"""The pool of warm gangs. Starting ranks costs seconds, so a gang that ended well waits for the next run."""

from __future__ import annotations

import atexit
import threading

from .gang import Gang


class Pool:
    """Idle gangs, the latest last: at most ``each`` of one size and ``total`` in all."""

    def __init__(self, each: int = 1, total: int = 2):
        self._each, self._total = each, total
        self._idle: list[Gang] = []
        self._lock = threading.Lock()

    @property
    def idle(self) -> tuple[Gang, ...]:
        """The gangs that wait for a run, the latest last."""
        with self._lock:
            return tuple(self._idle)

    def borrow(self, ranks: int) -> Gang:
        """An idle gang of that size whose sources have not changed, else one that has just been started."""
        while (gang := self._take(ranks)) is not None:
            if gang.usable():
                return gang
            gang.end()
        return Gang(ranks)

    def give_back(self, gang: Gang) -> None:
        """Keep a gang for the next run, and end those that are too many."""
        if gang.spent:
            gang.end()
            return
        gang.rest()
        with self._lock:
            self._idle.append(gang)
            surplus = self._surplus()
            self._idle = [kept for kept in self._idle if kept not in surplus]
        for old in surplus:
            old.end()

    def clear(self) -> None:
        """End every idle gang."""
        with self._lock:
            idle, self._idle = self._idle, []
        for gang in idle:
            gang.end()

    def _take(self, ranks: int) -> Gang | None:
        with self._lock:
            for gang in reversed(self._idle):
                if len(gang.workers) == ranks:
                    self._idle.remove(gang)
                    return gang
        return None

    def _surplus(self) -> list[Gang]:
        """The oldest of a size beyond ``each``, then the oldest of all beyond ``total``."""
        kept: list[Gang] = []
        for gang in reversed(self._idle):
            same = sum(len(other.workers) == len(gang.workers) for other in kept)
            if same < self._each and len(kept) < self._total:
                kept.append(gang)
        return [gang for gang in self._idle if gang not in kept]


POOL = Pool()
"""The pool of this process; its gangs end with it."""

atexit.register(POOL.clear)
