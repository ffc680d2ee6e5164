"""How a library packs messages, as its tables say."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Protocol:
    """How messages are packed: what they cost in software, and which part of what passes a link is data.

    ``base`` [s] once, ``inside`` and ``between`` [s] for each message within a machine and between machines; links that
    take longer count instead. ``corrections``: the share of the bandwidth that NCCL expects for values of 64 bytes,
    128, and so on; all of it beyond.
    """

    name: str = ""
    base: float = 0.0
    inside: float = 0.0
    between: float = 0.0
    fraction: float = 1.0
    corrections: tuple[float, ...] = ()


PLAIN = Protocol()


def protocols(algorithm: str) -> tuple[Protocol, ...]:
    """What NCCL chooses from for an algorithm, by its own tables."""
    from .catalog import own

    rows = [entry for entry in own("nccl").values() if entry.texts["algorithm"] == algorithm]
    return tuple(
        Protocol(
            row.texts["protocol"],
            row["base_latency"],
            row["inside_latency"],
            row["between_latency"],
            row["bandwidth"],
            tuple(map(float, row.texts.get("corrections", "").split())),
        )
        for row in rows
    )
