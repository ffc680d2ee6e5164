"""What was observed: spans of time, kept as columns, and samples of numbers.

A virtual machine records more than a hundred thousand spans per second, so a span is seven numbers at the end of
one array and becomes an object only when somebody looks at it.

    >>> spans = Spans()
    >>> spans.add(0, "compute", "Forward 2 mb1", step=0, start=0.0, end=1.5)
    >>> spans[0].instruction, len(spans)
    ('Forward 2 mb1', 1)
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple, overload

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

WIDTH = 7
"""Numbers per span in ``Spans.data``."""

RANK, STREAM, LABEL, STEP, START, END, BYTES = range(WIDTH)
"""The columns of ``Spans.data`` and of ``Spans.table()``."""

COMPUTE = "compute"
"""The stream on which a rank computes, and on which it waits."""


class Span(NamedTuple):
    """One instruction of one rank: when it ran, and what it sent.

    ``start`` and ``end`` are seconds on the run's clock; ``bytes`` is what the rank itself sent. ``instruction`` is
    the instruction as text; its first word is the instruction's type.
    """

    rank: int
    stream: str
    instruction: str
    step: int
    start: float
    end: float
    bytes: float = 0.0


class Sample(NamedTuple):
    """A number that a rank noted at some time [s].

    A "loss" is weighted: those of one rank and step add up to that rank's mean loss. A "staleness" is noted by a
    server, one per gradient that it applies. ``version`` counts the updates in the parameters that were used.
    """

    rank: int
    step: int
    time: float
    name: str
    value: float
    version: int = 0


@dataclass(repr=False)
class Spans:
    """A growing sequence of ``Span``.

    ``data`` holds rank, stream index, label index, step, start, end and bytes of one span after another; the indices
    point into ``streams`` and ``labels``. Machines in a hurry extend it themselves::

        spans.data.extend((rank, spans.stream("compute"), spans.label("Load mb0"), step, start, end, 0.0))
    """

    data: array[float] = field(default_factory=lambda: array("d"))
    streams: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._streams = {name: index for index, name in enumerate(self.streams)}
        self._labels = {text: index for index, text in enumerate(self.labels)}
        self._turn = Lock()

    def __reduce__(self) -> tuple[object, ...]:
        return Spans, (self.data, self.streams, self.labels)  # a lock belongs to its process

    def stream(self, name: str) -> int:
        """The index of a stream, new or known."""
        return _interned(name, self.streams, self._streams)

    def label(self, text: str) -> int:
        """The index of an instruction's text, new or known."""
        return _interned(text, self.labels, self._labels)

    def add(
        self, rank: int, stream: str, instruction: str, step: int, start: float, end: float, nbytes: float = 0.0
    ) -> None:
        """Append one span; times in seconds. Streams of a real rank are threads, which may do so at once."""
        with self._turn:
            self.data.extend((rank, self.stream(stream), self.label(instruction), step, start, end, nbytes))

    def __len__(self) -> int:
        return len(self.data) // WIDTH

    @overload
    def __getitem__(self, index: int) -> Span: ...
    @overload
    def __getitem__(self, index: slice) -> list[Span]: ...
    def __getitem__(self, index: int | slice) -> Span | list[Span]:
        where = range(len(self))[index]
        return self._span(where) if isinstance(where, int) else [self._span(i) for i in where]

    def __iter__(self) -> Iterator[Span]:
        return map(self._span, range(len(self)))

    def _span(self, index: int) -> Span:
        first = index * WIDTH
        rank, stream, label, step, start, end, nbytes = self.data[first : first + WIDTH]
        return Span(int(rank), self.streams[int(stream)], self.labels[int(label)], int(step), start, end, nbytes)

    def __repr__(self) -> str:
        return f"<{len(self)} spans on streams {', '.join(self.streams) or 'none'}>"

    @property
    def extent(self) -> tuple[float, float]:
        """When the first span starts and the last ends, on the clock of the run; (0, 0) without spans."""
        return min(self.data[START::WIDTH], default=0.0), max(self.data[END::WIDTH], default=0.0)

    def table(self) -> np.ndarray:
        """All spans as a read-only float64 array (spans, 7) without copying; columns ``RANK`` … ``BYTES``.

        While the array is alive, ``data`` cannot grow (Python raises BufferError): ask for it when the run is over.
        """
        import numpy as np

        table = np.frombuffer(self.data, dtype=np.float64).reshape(-1, WIDTH)
        table.flags.writeable = False
        return table

    def frame(self) -> pd.DataFrame:
        """All spans as a pandas DataFrame with the columns of ``Span``."""
        import pandas as pd

        table = self.table()
        return pd.DataFrame(
            {
                "rank": table[:, RANK].astype(int),
                "stream": pd.Categorical.from_codes(table[:, STREAM].astype(int), categories=self.streams),
                "instruction": pd.Categorical.from_codes(table[:, LABEL].astype(int), categories=self.labels),
                "step": table[:, STEP].astype(int),
                "start": table[:, START].copy(),
                "end": table[:, END].copy(),
                "bytes": table[:, BYTES].copy(),
            }
        )


def kind(instruction: str) -> str:
    """The type in an instruction's text. ``kind("Forward 2 mb1") == "Forward"``."""
    return instruction.partition(" ")[0]


def merged(parts: Iterable[Spans]) -> Spans:
    """The spans of several ranks as one sequence, one rank after another."""
    whole = Spans()
    for part in parts:
        streams, labels = [whole.stream(name) for name in part.streams], [whole.label(text) for text in part.labels]
        data = part.data[:]
        data[STREAM::WIDTH] = array("d", (streams[int(index)] for index in part.data[STREAM::WIDTH]))
        data[LABEL::WIDTH] = array("d", (labels[int(index)] for index in part.data[LABEL::WIDTH]))
        whole.data.extend(data)
    return whole


def _interned(text: str, texts: list[str], index: dict[str, int]) -> int:
    found = index.get(text)
    if found is None:
        found = index[text] = len(texts)
        texts.append(text)
    return found
