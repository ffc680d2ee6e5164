"""A bar that shows how far something is."""

from __future__ import annotations

from typing import Any

from .. import checks


def bar(what: str, progress: bool | None, **knobs: Any) -> Any:
    """A bar of ``tqdm``; ``progress``: None: in terminals and notebooks. ``knobs`` are those of ``tqdm``.

    >>> with bar("search", False, total=8) as shown:
    ...     shown.update()
    """
    if progress is not None:
        progress = checks.flag("progress", progress, "True, False, or None: in terminals and notebooks")
    from tqdm.auto import tqdm

    notebook = any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)
    hidden = None if progress is None and not notebook else progress is False  # None: unless it is a terminal
    return tqdm(desc=what, disable=hidden, **knobs)
