"""What a real machine adds to what its links promise."""

from __future__ import annotations

from dataclasses import dataclass

from .. import checks
from ..spans import COMPUTE
from ..work import Measured
from .device import Device

TIMES = ("collective", "message", "message_byte", "beside")
TABLES = 'triples such as ("AllReduce", 2, Measured(…)), for a type and a number of members'
DELAYS = ("send_delays", "crossed_delays", "message_delays", "late_delays", "collective_delays")


@dataclass(frozen=True)
class Overheads:
    """What a real machine adds to latency and bandwidth; nothing unless measured.

    - ``collective`` [s]: before a collective moves its first byte. ``collectives``: what it was measured to be for some
      types and numbers of members, by the bytes that pass one rank's link; it stands in the place of ``collective``.
    - ``message`` [s], ``message_byte`` [s/B]: what a Send takes of the sender's time, and what each of its bytes does.
    - ``rendezvous``: bytes move only when the receiver waits, as with gloo: who waits late pays one latency more.
    - ``beside`` [s]: what a collective or a Recv takes longer on a stream, beside a program that computes: threads of
      an interpreter wait for each other.
    - ``send_delays``, ``message_delays``, ``collective_delays`` [s]: extra delays, as often as they were measured;
      every Send, message on its way, or collective draws one with the seed of the run. Operating systems make them.
    - ``crossed_delays`` [s]: those of one of two Sends that cross, if not ``send_delays``.
      ``late_delays`` [s]: those of a message whose receiver begins to wait after its Send, if not ``message_delays``.
    """

    collective: float = 0.0
    message: float = 0.0
    message_byte: float = 0.0
    rendezvous: bool = False
    send_delays: tuple[float, ...] = ()
    crossed_delays: tuple[float, ...] = ()
    message_delays: tuple[float, ...] = ()
    late_delays: tuple[float, ...] = ()
    collective_delays: tuple[float, ...] = ()
    collectives: tuple[tuple[str, int, Measured], ...] = ()
    beside: float = 0.0

    def __post_init__(self) -> None:
        checks.owned(self)
        checks.flags(self)
        for name in TIMES:
            checks.number(name, getattr(self, name), least=0, of="Overheads, in seconds")
        for name in DELAYS:
            given = checks.several(name, getattr(self, name), "a list of the delays that were measured, in seconds")
            found = tuple([checks.number(name, one, least=0, of="Overheads, in seconds") for one in given])
            object.__setattr__(self, name, found)
        tables = checks.several("collectives", self.collectives, TABLES)
        if not all(isinstance(one, tuple) and len(one) == 3 and isinstance(one[2], Measured) for one in tables):
            raise ValueError(f"collectives are {TABLES}; got collectives={checks.shown(self.collectives)}")

    @property
    def random(self) -> bool:
        """Whether something is drawn."""
        sends, messages = self.send_delays or self.crossed_delays, self.message_delays or self.late_delays
        return bool(sends or messages or self.collective_delays)

    def on(self, stream: str) -> float:
        """What something takes longer on a stream than in the program itself [s]."""
        return 0.0 if stream == COMPUTE else self.beside

    def before(self, kind: type[object], members: int, size: float) -> float:
        """Seconds before a collective moves its first byte; ``size`` [B] is what passes one rank's link.

        >>> from simulator import AllReduce
        >>> measured = Measured(((8.0, 1e-3), (1008.0, 2e-3)))
        >>> Overheads(collectives=(("AllReduce", 2, measured),)).before(AllReduce, 2, 508.0)
        0.0015
        """
        known = next((work for name, n, work in self.collectives if name == kind.__name__ and n == members), None)
        return self.collective if known is None else known.of(size, Device())
