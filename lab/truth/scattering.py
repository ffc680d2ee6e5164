"""Megatron's scatter/gather: tensor-parallel ranks that all have the same tokens each send a part of them on."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.program import AllGather, Recv, Send
from simulator.rank import Rank
from simulator.stack import Layer, Program, Rules
from simulator.values import Act, ActGrad, Chunk


@dataclass(frozen=True)
class ScatterGather(Layer):
    """Ranks along "tensor" send 1/n of what passes to the next stage, over a card each, and gather it there.

    Narayanan et al. 2021 (arXiv:2104.04473), section 4.1. It stands over a pipeline, below tensor parallelism without
    ``sequence``, and only times: all say that they send the first part, so that they are alike.
    """

    def rules(self, me: Rank) -> Rules:
        ways = me.size("tensor")

        def send(send: Send) -> Program:
            if isinstance(send.value, (Act, ActGrad)):
                yield Send(Chunk(send.value, 0, ways), to=send.to, over=send.over)
            else:
                yield send

        def recv(recv: Recv) -> Program:
            if isinstance(recv.value, (Act, ActGrad)):
                yield Recv(Chunk(recv.value, 0, ways), source=recv.source, over=recv.over)
                yield AllGather(recv.value, over="tensor")
            else:
                yield recv

        return {Send: send, Recv: recv}
