"""Source files that a process has loaded, so that a warm rank whose text has changed is replaced by a fresh one."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

Stamp = tuple[str, int, int]
"""A file, the time of its last change [ns] and its size [bytes]."""

_STANDARD = tuple(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib"))
_INSTALLED = {"site-packages", "dist-packages"}


class Sources:
    """Remembers which modules of this process it has already told about."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def news(self, since: int) -> list[Stamp]:
        """Stamps of the files loaded since the last call; ``since`` is when loading began [ns, time.time_ns].

        A file that changed after that was perhaps loaded before the change and perhaps after it, so its stamp is
        made one that no file has.
        """
        names = [name for name in list(sys.modules) if name not in self._told]
        self._told.update(names)
        files = {file for file in map(_file_of, names) if file and _is_own(file)}
        return [
            (file, -1, -1) if changed > since else (file, changed, size) for file, changed, size in map(stamp, files)
        ]


def stamp(file: str) -> Stamp:
    """The stamp of a file as it is now; zeros when it is not there."""
    try:
        facts = os.stat(file)
    except OSError:
        return file, 0, 0
    return file, facts.st_mtime_ns, facts.st_size


def unchanged(stamps: Iterable[Stamp]) -> bool:
    """Whether every file is still as its stamp says."""
    return all(stamp(old[0]) == old for old in stamps)


def _file_of(module: str) -> str | None:
    # by way of __dict__: asking a lazy module for an attribute may import half a library
    return getattr(sys.modules.get(module), "__dict__", {}).get("__file__")


def _is_own(file: str) -> bool:
    """Whether a file is neither of the standard library nor installed, hence may be under work."""
    return not file.startswith(_STANDARD) and _INSTALLED.isdisjoint(Path(file).parts)
