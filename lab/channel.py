"""Frames over a socket: how a parent and its ranks talk.

A frame has a kind, a few small facts and a body of bytes. It travels as two lengths, the pickled kind and facts,
and the body as it is.  A rank blocks on its end of the socket; the parent never does, for a rank may be stopped
in the middle of a frame.
"""

from __future__ import annotations

import pickle
import selectors
import socket
import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_LENGTHS = struct.Struct(">QQ")
_PIECE = 1 << 18  # bytes read at once


@dataclass(frozen=True)
class Frame:
    """One message: what it is, small facts about it, and its content."""

    kind: str
    facts: dict[str, Any]
    body: bytes = b""

    def encoded(self) -> tuple[bytes, bytes]:
        """The bytes that travel, in two parts so that a large body is not copied."""
        head = pickle.dumps((self.kind, self.facts))
        return _LENGTHS.pack(len(head), len(self.body)) + head, self.body


class Channel:
    """One end of a socket that carries frames."""

    def __init__(self, end: socket.socket):
        self.end = end
        self._arrived = bytearray()
        self._waiting: deque[memoryview] = deque()

    def fileno(self) -> int:
        """The descriptor, for selectors."""
        return self.end.fileno()

    def send(self, frame: Frame) -> None:
        """Send a frame and wait until the system has taken it."""
        for part in frame.encoded():
            self.end.sendall(part)

    def post(self, frame: Frame) -> None:
        """Put a frame in the queue that ``flush`` sends."""
        self._waiting.extend(memoryview(part) for part in frame.encoded() if part)

    def flush(self) -> bool:
        """Send what the system takes without waiting; whether something is still in the queue."""
        try:
            while self._waiting:
                sent = self.end.send(self._waiting[0])
                self._waiting[0] = self._waiting[0][sent:]
                if not self._waiting[0]:
                    self._waiting.popleft()
        except BlockingIOError:
            pass
        except OSError:  # the other end is gone; whoever reads learns it
            self._waiting.clear()
        return bool(self._waiting)

    def read(self) -> list[Frame]:
        """What one read completes: no frame, one or several. Raises EOFError when the other end is closed."""
        try:
            piece = self.end.recv(_PIECE)
        except BlockingIOError:
            return []
        except OSError:
            piece = b""
        if not piece:
            raise EOFError("the other end of the channel is closed")
        self._arrived += piece
        return list(self._frames())

    def _frames(self) -> Iterator[Frame]:
        while len(self._arrived) >= _LENGTHS.size:
            head, body = _LENGTHS.unpack_from(self._arrived)
            middle, end = _LENGTHS.size + head, _LENGTHS.size + head + body
            if len(self._arrived) < end:
                return
            kind, facts = pickle.loads(self._arrived[_LENGTHS.size : middle])
            content = bytes(memoryview(self._arrived)[middle:end])
            del self._arrived[:end]
            yield Frame(kind, facts, content)


class Channels:
    """The parent's ends of several channels, listened to at once."""

    def __init__(self, channels: list[Channel]):
        self._channels = channels
        self._selector = selectors.DefaultSelector()
        for rank, channel in enumerate(channels):
            self._selector.register(channel, selectors.EVENT_READ, rank)

    def post(self, frame: Frame) -> None:
        """Put a frame in every queue; ``listen`` sends them."""
        for rank, channel in enumerate(self._channels):
            channel.post(frame)
            if channel.flush():
                self._selector.modify(channel, selectors.EVENT_READ | selectors.EVENT_WRITE, rank)

    def listen(self, seconds: float) -> Iterator[tuple[int, list[Frame] | None]]:
        """Who said something within ``seconds``: a rank and what it completed (None: its end is closed)."""
        for key, events in self._selector.select(seconds):
            channel, rank = self._channels[key.data], key.data
            if events & selectors.EVENT_WRITE and not channel.flush():
                self._selector.modify(channel, selectors.EVENT_READ, rank)
            if events & selectors.EVENT_READ:
                try:
                    yield rank, channel.read()
                except EOFError:
                    self._selector.unregister(channel)
                    yield rank, None

    def close(self) -> None:
        """Stop listening; the channels stay open."""
        self._selector.close()
