"""What a real machine adds to what its links promise."""

from __future__ import annotations

from dataclasses import dataclass

from ..spans import COMPUTE
from ..work import Measured
from .device import Device


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
