"""Messages from rank to rank under the virtual clock: sent without waiting, delivered in order, taken by name."""

from __future__ import annotations

from collections import Counter, deque
from math import inf
from typing import TYPE_CHECKING

from .fairness import Path
from .narrowing import narrowed
from .program import ANY, Message, Recv, Send
from .threads import BLOCKED, Decoded, Guard, Parcel, State, Thread, Wanted
from .values import Nothing, Params, whole

if TYPE_CHECKING:
    from .virtual import Machine


class Channel:
    """From one rank to another: one transfer at a time, in the order of the Sends, or in which they are wanted."""

    def __init__(self, source: int, target: int, path: Path, latency: float, stream: int):
        self.source, self.target, self.path, self.latency, self.stream = source, target, path, latency, stream
        self.queue: deque[Parcel] = deque()
        self.busy = False
        self.last = 0.0
        self.sending = (-inf, -inf)


class Mail:
    """All channels and letterboxes of a simulation."""

    def __init__(self, machine: Machine):
        self.machine = machine
        self.channels: dict[tuple[int, int], Channel] = {}

    # ------------------------------------------------------------ sending

    def send(self, thread: Thread, send: Send, decoded: Decoded) -> None:
        """Take a snapshot and put it on its way; the sender goes on at once."""
        state = thread.state
        data = state.tensors.read(send.value).clone() if state.tensors is not None else None
        parcel = Parcel(
            state.me.rank,
            send.value.stands_for if isinstance(send.value, Nothing) else send.value,
            isinstance(send.value, Nothing),
            send.version,
            state.me.bytes(send.value) if data is None else float(data.nbytes),  # parts of buffers are not all alike
            data,
            decoded.label,
            thread.step,
        )
        overheads = self.machine.cluster.overheads
        self.machine.folding.ensure_foreseen(state.me, send.over, place=True)
        channel = self._channel(parcel.source, state.me.peer(send.over, send.to))
        spent = overheads.message + parcel.size * overheads.message_byte
        spent += self._delay(channel, parcel, thread.clock, thread.clock + spent)
        if spent:  # where a Send takes its sender's time, that time is what is seen of it, as on real ranks
            parcel.seen = True
            self._observe(channel, parcel, thread.clock, thread.clock + spent)
        thread.clock += spent
        self.machine.at(thread.clock, lambda: self._push(channel, parcel))

    def _delay(self, channel: Channel, parcel: Parcel, start: float, end: float) -> float:
        """What holds a Send up that would take from ``start`` to ``end``; of two that cross it is one."""
        parcel.sent, channel.sending = start, (start, end)
        back = self.channels.get((channel.target, channel.source))
        crossed = back is not None and back.sending[0] < end and start < back.sending[1]
        return self.machine.delays.crossed() if crossed else self.machine.delays.send()

    def _channel(self, source: int, target: int) -> Channel:
        channel = self.channels.get((source, target))
        if channel is None:
            cluster, spans, of = self.machine.cluster, self.machine.spans, self.machine.folding.of
            path: Path = Counter(cluster.route(source, target))
            if self.machine.folding.folds:
                path, _ = narrowed(cluster, (source, target), of, path)
            latency = cluster.latency(source, target)
            channel = Channel(source, of[target], path, latency, spans.stream(f"to {target}"))
            self.channels[source, target] = channel
        return channel

    def _push(self, channel: Channel, parcel: Parcel) -> None:
        channel.queue.append(parcel)
        if not channel.busy:
            self._offer(channel)

    def _offer(self, channel: Channel) -> None:
        """Transfer the next parcels of a channel: at once, or, in a rendezvous, when the receiver waits for them."""
        while channel.queue and not channel.busy:
            start = now = self.machine.env.now
            parcel = channel.queue[0]
            if self.machine.cluster.overheads.rendezvous:
                state = self.machine.state_of(channel.target)
                agreed = _agreed(channel, state)
                if agreed is None:
                    state.offers.append(channel)
                    return
                parcel, wanted = agreed
                wanted.parcel, parcel.late = parcel, wanted.posted > parcel.sent
                start = wanted.posted + channel.latency
            channel.busy = True
            channel.queue.remove(parcel)
            if start > now:
                self.machine.at(start, lambda parcel=parcel: self._transfer_and_go_on(channel, parcel))  # type: ignore[misc]
            else:
                self._transfer(channel, parcel)

    def _transfer_and_go_on(self, channel: Channel, parcel: Parcel) -> None:
        self._transfer(channel, parcel)
        self._offer(channel)

    def _transfer(self, channel: Channel, parcel: Parcel) -> None:
        machine, start = self.machine, self.machine.env.now

        def done() -> None:
            now = machine.env.now
            if not parcel.seen:
                self._observe(channel, parcel, start, now)
            channel.busy = False
            # Delayed or not, messages from one rank to another arrive in the order in which they were sent.
            delay = machine.delays.late() if parcel.late else machine.delays.message()
            channel.last = parcel.time = max(channel.last, now + channel.latency + delay)
            machine.at(parcel.time, lambda: self._deliver(channel.target, parcel))

        def done_later() -> None:
            done()
            self._offer(channel)

        if parcel.size:
            machine.network.start(channel.path, parcel.size, machine.drained(done_later))
        else:
            done()

    def _observe(self, channel: Channel, parcel: Parcel, start: float, end: float) -> None:
        span = (channel.source, channel.stream, parcel.label, parcel.step, start, end, parcel.size)
        self.machine.spans.data.extend(span)

    # ------------------------------------------------------------ receiving

    def _deliver(self, target: int, parcel: Parcel) -> None:
        state = self.machine.state_of(target)
        wanted = next((w for w in state.waiting if _is_for(parcel, w)), None)
        guard = state.main.guard
        if wanted is not None:
            state.waiting.remove(wanted)
            if wanted.source == ANY:
                state.outcomes.append(parcel.source)
            thread = wanted.thread
            self.machine.resume(thread, self.accept(thread, wanted.recv, parcel, thread.clock, wanted.abandoned))
        elif guard is not None and guard.live and _is_for(parcel, guard):
            self.machine.races.abandon(state.main, parcel)
        else:
            state.inbox.append(parcel)

    def post(self, state: State) -> None:
        """A rank begins to wait: in a rendezvous, the first who offers what it wants may send."""
        for channel in state.offers:
            if _agreed(channel, state) is not None:
                state.offers.remove(channel)
                self._offer(channel)
                return

    def recv(self, thread: Thread, recv: Recv, decoded: Decoded) -> object:
        """Take a message that is here, or wait for it."""
        state = thread.state
        if recv.source != ANY:
            self.machine.folding.ensure_foreseen(state.me, recv.over, place=True)
            return self.receive(thread, recv, self.machine.folding.of[state.me.peer(recv.over, recv.source)])
        if state.replay is not None:
            source = self.machine.ending.replayed(state)
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

    def receive(
        self, thread: Thread, recv: Recv, source: int, abandoned: bool = False, coming: Parcel | None = None
    ) -> object:
        """Take the first message from a rank, or from ANY, if it is here; else wait for it, or for what is coming."""
        state = thread.state
        parcel = self.take(state, source, recv)
        if parcel is None:
            state.waiting.append(Wanted(thread, recv, source, thread.clock, abandoned, coming))
            if coming is None:
                self.post(state)
            return BLOCKED
        if source == ANY:
            state.outcomes.append(parcel.source)
        return self.accept(thread, recv, parcel, thread.clock, abandoned)

    def take(self, state: State, source: int, recv: Recv) -> Parcel | None:
        """The first message that a Recv asks for, from a rank or from ANY, that waits to be taken."""
        for index, parcel in enumerate(state.inbox):
            if source in (ANY, parcel.source) and parcel.value == recv.value:
                return state.inbox.pop(index)
        return None

    def accept(self, thread: Thread, recv: Recv, parcel: Parcel, start: float, abandoned: bool = False) -> Message:
        """Store what has come, and say so."""
        state, machine = thread.state, self.machine
        me, empty = state.me, parcel.empty
        thread.clock = max(thread.clock, parcel.time) + machine.cluster.overheads.on(thread.stream)
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


def _is_for(parcel: Parcel, wanted: Wanted | Guard) -> bool:
    """Whether a message goes to who waits: as agreed in a rendezvous, else to the first who wants it."""
    if wanted.parcel is not None:
        return wanted.parcel is parcel
    return wanted.source in (ANY, parcel.source) and wanted.recv.value == parcel.value


def _agreed(channel: Channel, state: State) -> tuple[Parcel, Wanted | Guard] | None:
    """The first parcel of a channel that somebody waits for who has not been promised one, and who that is."""
    guard = state.main.guard
    who_wait: list[Wanted | Guard] = [*state.waiting]
    if guard is not None and guard.live:
        who_wait.append(guard)
    who_wait = [wanted for wanted in who_wait if wanted.parcel is None]
    pairs = ((parcel, wanted) for parcel in channel.queue for wanted in who_wait if _is_for(parcel, wanted))
    return next(pairs, None)
