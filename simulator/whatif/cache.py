"""Results in a directory: one small file each, named by the content of what was asked."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from .. import checks

FORMAT = 1


@dataclass(frozen=True)
class Cache:
    """A directory of results, made when the first is kept; None: nothing is kept.

    A file appears under its name when it is whole, so that whatever ends a sweep, what is there is good. One that was
    damaged since is not trusted: its result is computed again.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     Cache(folder).keep("abc", {"step_time": 0.5})
    ...     Cache(folder).find("abc"), Cache(folder).find("abd")
    ({'step_time': 0.5}, None)
    """

    folder: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        checks.kind("cache", self.folder, (str, os.PathLike, type(None)), "a directory such as 'sweeps', or None")
        if self.folder is not None and Path(self.folder).exists() and not Path(self.folder).is_dir():
            raise ValueError(f"cache is a directory; {self.folder} is a file: name another")

    def find(self, key: str) -> dict[str, Any] | None:
        """The result of a key, if it is there and whole."""
        if self.folder is None:
            return None
        try:
            kept = json.loads(self._path(key).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):  # or no JSON, or no text
            return None
        whole = isinstance(kept, dict) and kept.get("seal") == _seal(key, kept.get("result"))
        return kept["result"] if whole else None

    def keep(self, key: str, result: dict[str, Any]) -> None:
        """Write a result."""
        if self.folder is None:
            return
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, suffix=".new", delete=False) as file:
            json.dump({"result": result, "seal": _seal(key, result)}, file)
        os.replace(file.name, path)

    def _path(self, key: str) -> Path:
        return Path(self.folder or "") / f"{key}.json"


def _seal(key: str, result: object) -> str:
    """What tells a result that was changed from one that was not."""
    return sha256(f"{FORMAT} {key} {json.dumps(result, sort_keys=True)}".encode()).hexdigest()
