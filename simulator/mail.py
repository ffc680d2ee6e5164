"""Messages from rank to rank under the virtual clock: sent without waiting, delivered in order, taken when wanted."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING

from .cluster import Link
from .program import ANY, Message, Recv, Send
from .threads import BLOCKED, Decoded, Parcel, State, Thread
from .values import Nothing, Params, whole

if TYPE_CHECKING:
    from .virtual import Machine


class Channel:
    """From one rank to another: one transfer at a time, in the order of the Sends."""

    def __init__(self, source: int, target: int, path: Counter[Link], latency: float, stream: int):
        self.source, self.target, self.path, self.latency, self.stream = source, target, path, latency, stream
        self.queue: deque[Parcel] = deque()
        self.busy = False


class Mail:
    """All channels and letterboxes of a simulation."""

    def __init__(self, machine: Machine):
        self.machine = machine
        self.channels: dict[tuple[int, int], Channel] = {}

    # ------------------------------------------------------------ sending

    def send(self, thread: Thread, send: Send, decoded: Decoded) -> None:
        """Take a snapshot and put it on its way; the sender goes on at once."""
        state = thread.state
        tensors = state.tensors
        parcel = Parcel(
            state.me.rank,
            send.value,
            send.version,
            state.me.bytes(send.value),
            tensors.read(send.value).clone() if tensors is not None else None,
            decoded.label,
            thread.step,
        )
        channel = self._channel(parcel.source, state.me.peer(send.over, send.to))
        thread.clock += self.machine.cluster.overheads.message
        self.machine.at(thread.clock, lambda: self._push(channel, parcel))

    def _channel(self, source: int, target: int) -> Channel:
        channel = self.channels.get((source, target))
        if channel is None:
            cluster, spans = self.machine.cluster, self.machine.spans
            path = Counter(cluster.route(source, target))
            latency = cluster.latency(source, target)
            channel = Channel(source, target, path, latency, spans.stream(f"to {target}"))
            self.channels[source, target] = channel
        return channel

    def _push(self, channel: Channel, parcel: Parcel) -> None:
        channel.queue.append(parcel)
        if not channel.busy:
            self._transfer(channel)

    def _transfer(self, channel: Channel) -> None:
        if not channel.queue:
            return
        parcel = channel.queue.popleft()
        channel.busy = True
        start = self.machine.env.now

        def done() -> None:
            now = self.machine.env.now
            span = (channel.source, channel.stream, parcel.label, parcel.step, start, now, parcel.size)
            self.machine.spans.data.extend(span)
            channel.busy = False
            parcel.time = now + channel.latency
            self.machine.at(parcel.time, lambda: self._deliver(channel.target, parcel))
            self._transfer(channel)

        if parcel.size:
            self.machine.network.start(channel.path, parcel.size, self.machine.drained(done))
        else:
            done()

    # ------------------------------------------------------------ receiving

    def _deliver(self, target: int, parcel: Parcel) -> None:
        state = self.machine.states[target]
        for index, (thread, recv, source, abandoned) in enumerate(state.waiting):
            if source in (ANY, parcel.source):
                del state.waiting[index]
                if source == ANY:
                    state.outcomes.append(parcel.source)
                self.machine.resume(thread, self.accept(thread, recv, parcel, thread.clock, abandoned))
                return
        guard = state.main.guard
        if guard is not None and guard.live and guard.source == parcel.source:
            self.machine.races.abandon(state.main, parcel)
        else:
            state.inbox.append(parcel)

    def recv(self, thread: Thread, recv: Recv, decoded: Decoded) -> object:
        """Take a message that is here, or wait for it."""
        state = thread.state
        if recv.source != ANY:
            return self.receive(thread, recv, state.me.peer(recv.over, recv.source))
        if state.replay is not None:
            source = state.replay.popleft()
            state.outcomes.append(source)
            return self.receive(thread, recv, source)
        if thread.clock > self.machine.env.now:
            # Who comes first is known only when the simulation is where this rank is.
            self.machine.at(thread.clock, lambda: self._receive_any(thread, recv))
            return BLOCKED
        return self.receive(thread, recv, ANY)

    def _receive_any(self, thread: Thread, recv: Recv) -> None:
        result = self.receive(thread, recv, ANY)
        if result is not BLOCKED:
            self.machine.resume(thread, result)

    def receive(self, thread: Thread, recv: Recv, source: int, abandoned: bool = False) -> object:
        """Take the first message from a rank, or from ANY, if it is here; else wait for it."""
        parcel = self.take(thread.state, source)
        if parcel is None:
            thread.state.waiting.append((thread, recv, source, abandoned))
            return BLOCKED
        if source == ANY:
            thread.state.outcomes.append(parcel.source)
        return self.accept(thread, recv, parcel, thread.clock, abandoned)

    def take(self, state: State, source: int) -> Parcel | None:
        """The first message from a rank, or from ANY, that waits to be taken."""
        for index, parcel in enumerate(state.inbox):
            if source in (ANY, parcel.source):
                return state.inbox.pop(index)
        return None

    def accept(self, thread: Thread, recv: Recv, parcel: Parcel, start: float, abandoned: bool = False) -> Message:
        """Store what has come, and say so."""
        state, machine = thread.state, self.machine
        me, empty = state.me, isinstance(parcel.value, Nothing)
        if parcel.value != recv.value and not empty:
            thread.current = recv
            raise machine.error(
                f"a Recv names the value that is sent; rank {me.rank} expects {recv.value},"
                f" rank {parcel.source} sent {parcel.value}"
            )
        thread.clock = max(thread.clock, parcel.time)
        label = machine.spans.label(str(recv))
        machine.spans.data.extend((me.rank, thread.index, label, thread.step, start, thread.clock, 0.0))
        if not empty:
            me.sizes[recv.stored] = parcel.size
            if isinstance(whole(recv.stored), Params):
                me.versions[recv.stored] = parcel.version
            if state.tensors is not None:
                state.tensors.write(recv.stored, parcel.data)
        position = me.position(parcel.source, recv.over)
        return Message(position, parcel.version, empty, abandoned)
