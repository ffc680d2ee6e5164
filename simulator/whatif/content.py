"""What things are, as text: the same in every process for the same content, another one where anything differs.

Objects are told by their classes and fields; what they only remember, fields that nobody gives, is left out. Classes
and functions of a user's own are told by their code too, but not by the global variables that this reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from functools import cache, cached_property
from hashlib import sha256
from importlib.resources import files
from types import CodeType, FunctionType
from typing import Any

PLAIN = (str, bytes, int, float, complex, bool, type(None))
WRAPPERS = {property: "fget", cached_property: "func", classmethod: "__func__", staticmethod: "__func__"}
"""What stands around a function in a class, and where it has it."""
UNTOLD = ("__doc__", "__firstlineno__")


def digest(*things: object) -> str:
    """SHA-256 of the text of some things, as 64 hexadecimal digits.

    Raises ValueError for what does not tell its content, such as an open file.

    >>> digest({"a": 1.0, "b": [2]}) == digest({"b": [2], "a": 1.0}), digest(1.0) == digest(1.5)
    (True, False)
    """
    return Teller().of(things)


@cache
def version() -> str:
    """SHA-256 of this package's own files: results of another version are not those of this one."""
    found = sha256()
    for name, content in sorted(_files(files("simulator"), "")):
        found.update(f"{name} {len(content)}\n".encode() + content)
    return found.hexdigest()


def _files(folder: Any, path: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        name = f"{path}/{entry.name}"
        if entry.is_dir():
            yield from _files(entry, name)
        elif entry.name.endswith((".py", ".csv")):
            yield name, entry.read_bytes()


class Teller:
    """Tells things; what comes again is told once, so that a hundred alike blocks cost what one costs."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[object, str]] = {}  # things are kept, so that their numbers stay their own
        self.telling: set[int] = set()

    def of(self, thing: object) -> str:
        """The text of something plain; of all else the SHA-256 of its text."""
        if type(thing) in PLAIN:
            return f"{type(thing).__name__}:{thing!r}"
        if id(thing) in self.telling:
            return "itself"  # a function that calls itself, a list in itself
        if id(thing) not in self.known:
            self.telling.add(id(thing))
            self.known[id(thing)] = thing, sha256(self._text(thing).encode()).hexdigest()
            self.telling.remove(id(thing))
        return self.known[id(thing)][1]

    def _text(self, thing: Any) -> str:
        if isinstance(thing, type):
            return f"class {thing.__module__}.{thing.__qualname__} {'' if _ours(thing) else self._body(thing)}"
        name = self.of(type(thing))
        if isinstance(thing, Mapping):
            return f"{name} {sorted(self.of(key) + ' = ' + self.of(value) for key, value in thing.items())}"
        if isinstance(thing, Set):
            return f"{name} {sorted(map(self.of, thing))}"
        if is_dataclass(thing):
            return f"{name} {[(one.name, self.of(getattr(thing, one.name))) for one in fields(thing) if one.init]}"
        if isinstance(thing, Sequence) and not isinstance(thing, PLAIN):
            return f"{name} {list(map(self.of, thing))}"
        return f"{name} {self._code(thing) or self._graph(thing) or self._made_from(thing)}"

    def _body(self, kind: type) -> str:
        """What a class of a user's own adds to those that it stands on."""
        parts = {name: getattr(part, WRAPPERS.get(type(part), ""), part) for name, part in vars(kind).items()}
        told = {name: part for name, part in parts.items() if isinstance(part, (*PLAIN, tuple, FunctionType))}
        return self.of((kind.__bases__, {name: part for name, part in told.items() if name not in UNTOLD}))

    def _code(self, thing: Any) -> str:
        """Of functions and what they consist of; those of this package ``version`` tells."""
        if isinstance(thing, CodeType):
            return self.of((thing.co_code, thing.co_names, thing.co_varnames, thing.co_consts))
        if not isinstance(thing, FunctionType):
            return ""
        cells = [cell.cell_contents for cell in thing.__closure__ or ()]
        body = () if _ours(thing) else (thing.__code__,)
        return f"{thing.__module__}.{thing.__qualname__} {self.of((body, thing.__defaults__, cells))}"

    def _graph(self, thing: Any) -> str:
        """Of a networkx graph: nodes and links with all that they carry, in whatever order they came."""
        if not type(thing).__module__.startswith("networkx."):
            return ""
        links = sorted(self.of(link) for link in thing.edges(data=True))
        return f"{sorted(self.of(node) for node in thing.nodes(data=True))} {links}"

    def _made_from(self, thing: Any) -> str:
        """Of anything else: what a copy of it would be made from."""
        try:
            made = thing.__reduce_ex__(2)
        except TypeError:
            raise ValueError(
                f"results are kept by content, and {thing!r} does not tell its own: use a dataclass, or cache=None"
            ) from None
        return made if isinstance(made, str) else self.of((*made[:3], *map(list, filter(None, made[3:5]))))


def _ours(thing: Any) -> bool:
    return str(thing.__module__).split(".")[0] in ("simulator", "builtins", "abc", "functools", "networkx")
