"""How long a step of a mix takes, in closed form: what a search asks of thousands of mixes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import fsum

from ..cluster import Cluster, Device
from ..communicating import AllGather, AllReduce, Collective, ReduceScatter
from ..model import Model
from ..models import with_knobs
from ..precision import Precision
from ..rules import Rule
from ..strategies.buckets import buckets
from ..strategies.data_parallel import DataParallel
from ..strategies.schedules.placing import cuts
from .mixes import Mix
from .moves import Asked, Moves
from .pipelining import Stage, pipelined
from .reading import Read, Reading, read
from .room import room
from .spent import Costs, Parts


class Estimator:
    """Estimates for one model on one cluster. What many mixes share is worked out once."""

    def __init__(self, model: Model, cluster: Cluster, rule: Rule | None, dtype: str | None):
        self.model, self.cluster, self.rule, self.dtype = model, cluster, rule, dtype
        self.devices = tuple(dict.fromkeys(cluster.devices)) or (cluster.device,)
        self.models: dict[str | None, Model] = {}
        self.readings: dict[tuple[str | None, int, bool], Reading] = {}
        self.costs: dict[tuple[object, ...], Costs] = {}
        self.places: dict[int, list[tuple[int, int]]] = {}
        self.moves = Moves(cluster)

    # ------------------------------------------------------------ what mixes share

    def reading(self, mix: Mix) -> Reading:
        """The model as a rank sees it."""
        key = mix.recompute, mix.tensor, mix.sequence
        if key not in self.readings:
            self.readings[key] = read(self.model_of(mix), mix.tensor, mix.sequence, self.dtype)
        return self.readings[key]

    def model_of(self, mix: Mix) -> Model:
        """The model that computes again what it does in this mix."""
        if mix.recompute not in self.models:
            self.models[mix.recompute] = with_knobs(self.model, recompute=mix.recompute)
        return self.models[mix.recompute]

    def devices_of(self, mix: Mix, at: int) -> tuple[Device, ...]:
        """The different devices of a stage's ranks: they wait for the slowest."""
        ranks = mix.data * mix.tensor
        return tuple(dict.fromkeys(self.cluster.devices[at * ranks : (at + 1) * ranks])) or self.devices

    def costs_of(self, mix: Mix) -> Costs:
        """What a microbatch costs in every block, on the devices that have it."""
        if len(self.devices) == 1:
            return self._costs_on(mix, self.devices)
        costs = [self._costs_on(mix, self.devices_of(mix, at)) for at in range(mix.pipeline)]
        chunks = enumerate(self._places(mix))
        owners = [chunk % mix.pipeline for chunk, (first, last) in chunks for _ in range(first, last)]
        return Costs(*zip(*(costs[at].block(number) for number, at in enumerate(owners))))

    def _costs_on(self, mix: Mix, devices: tuple[Device, ...]) -> Costs:
        key = mix.recompute, mix.tensor, mix.sequence, mix.microbatch, devices
        if key not in self.costs:
            self.costs[key] = self._costs(mix, self.reading(mix), devices)
        return self.costs[key]

    def _costs(self, mix: Mix, reading: Reading, devices: Sequence[Device]) -> Costs:
        found = []
        for kind in reading.kinds:
            told = [self._told(one.moves, mix) for one in (kind.forward, kind.backward)]
            passes = [one.seconds(mix.microbatch, devices) for one in (kind.forward, kind.backward)]
            found.append((passes[0] + told[0], passes[1] + told[1], sum(told), kind))
        every = [found[kind] for kind in reading.order]
        loss = max(self.model.loss.of(mix.microbatch, device) for device in devices)
        every[-1] = every[-1][0] + loss, *every[-1][1:]
        return Costs(*zip(*every))

    def _told(self, moves: Sequence[tuple[type[Collective], float]], mix: Mix) -> float:
        asked = [Asked(kind, size * mix.microbatch, mix.tensor) for kind, size in moves]
        return sum(map(self.moves.seconds, asked))

    # ------------------------------------------------------------ one mix

    def memory(self, mix: Mix) -> float:
        """Bytes on the fullest rank, about as ``simulator.memory`` counts them."""
        reading, blocks = self.reading(mix), self.costs_of(mix).blocks
        width = reading.model.parameter_bytes
        precision = Precision.plain(width) if self.dtype is None else Precision.mixed()
        numbers = self.rule.state if self.rule else 0
        chunks = [blocks[first:last] for first, last in self._places(mix)]
        p = mix.pipeline
        return max(room(mix, at, chunks[at::p], precision, numbers) for at in range(p))

    def parts(self, mix: Mix) -> Parts:
        """The seconds of a step."""
        costs = self.costs_of(mix)
        gathered = self._gathered(mix, costs)
        message = costs.blocks[len(costs.blocks) // 2].entering * mix.microbatch  # as large as one in the middle
        passes = list(zip(*self._sending(mix, message, *gathered)))
        stages = [Stage(*map(sum, zip(*mine))) for mine in self._owned(mix, passes)]
        hops = self.moves.hops(mix, message)
        span = pipelined(stages, hops, mix.microbatches, mix.chunks)
        ends = self._ends(mix, gathered[1], costs.blocks, stages, hops.each, span)
        updates = [self._update(mix, at, mine) for at, mine in enumerate(self._owned(mix, costs.blocks))]
        many, p = mix.microbatches, mix.pipeline
        told, waits = fsum(costs.told), fsum(map(sum, gathered)) - fsum(costs.forward) - fsum(costs.backward)
        busy = fsum(costs.forward) + fsum(costs.backward) - told
        load = max(self.model.load.of(many * mix.microbatch, device) for device in self.devices)
        return Parts(
            compute=many * busy / p + max(updates) + load,
            tensor=many * told / p,
            bubble=span - many * (busy + told + waits) / p,
            data=max(map(sum, zip(ends, updates))) - span - max(updates) + many * waits / p,
        )

    def _owned(self, mix: Mix, values: Sequence) -> list[list]:  # type: ignore[type-arg]
        """What belongs to the blocks of each stage, of all its chunks."""
        places = self._places(mix)
        return [
            [value for first, last in places[at :: mix.pipeline] for value in values[first:last]]
            for at in range(mix.pipeline)
        ]

    def _gathered(self, mix: Mix, costs: Costs) -> tuple[Sequence[float], Sequence[float]]:
        """Passes in which the next block's parameters are gathered meanwhile (stage 3): what takes longer counts.

        The first block of a visit is not gathered ahead.
        """
        if mix.stage < 3:
            return costs.forward, costs.backward
        gather = [self._over_data(mix, AllGather, block) for block in costs.blocks]
        forward, backward = list(costs.forward), list(costs.backward)
        for first, last in self._places(mix):
            for at in range(first, last - 1):
                forward[at] = max(forward[at], gather[at + 1])
                backward[at + 1] = max(backward[at + 1], gather[at])
            forward[first] += gather[first]
            backward[last - 1] += gather[last - 1]
        return forward, backward

    def _sending(
        self, mix: Mix, message: float, forward: Sequence[float], backward: Sequence[float]
    ) -> tuple[Sequence[float], Sequence[float]]:
        """Passes that end with a message to the next stage, or back: what it takes of the sender's time counts."""
        spent = self.moves.sending(message)
        if mix.pipeline == 1 or not spent:
            return forward, backward
        there, back = list(forward), list(backward)
        for first, _ in self._places(mix)[1:]:
            there[first - 1] += spent
            back[first] += spent
        return there, back

    def _places(self, mix: Mix) -> list[tuple[int, int]]:
        """The first block of each chunk of the pipeline, and one past the last."""
        chunks = mix.pipeline * mix.chunks
        if chunks not in self.places:
            self.places[chunks] = list(pairwise(cuts(self.model.asides, chunks)))
        return self.places[chunks]

    def _over_data(self, mix: Mix, kind: type[Collective], *blocks: Read) -> float:
        width = self.reading(mix).model.parameter_bytes
        size = width * sum(block.parameters for block in blocks)
        return self.moves.seconds(Asked(kind, size, mix.data, mix.tensor, beside=True))

    def _update(self, mix: Mix, at: int, blocks: Sequence[Read]) -> float:
        numbers = sum(block.parameters for block in blocks) / (mix.data if mix.stage else 1)
        return max(self.model.update.of(numbers, device) for device in self.devices_of(mix, at))

    # ------------------------------------------------------------ gradients

    def _ends(
        self,
        mix: Mix,
        backward: Sequence[float],
        blocks: Sequence[Read],
        stages: Sequence[Stage],
        hop: float,
        span: float,
    ) -> list[float]:
        """When each stage has its gradients averaged, and has given the parameters away that it updates for others."""
        earlier = [0.0, *accumulate(stage.backward / mix.chunks + hop for stage in stages)]
        pairs = self._owned(mix, list(zip(backward, blocks)))
        return [self._end(mix, mine, span - before) for mine, before in zip(pairs, earlier)]

    def _end(self, mix: Mix, mine: Sequence[tuple[float, Read]], end: float) -> float:
        """Buckets are averaged one after another, each as soon as its last block is done, until ``end`` or later."""
        if mix.data == 1:
            return end
        kind, limit = (ReduceScatter, 0.0) if mix.stage else (AllReduce, DataParallel().bucket_bytes)
        width = self.reading(mix).model.parameter_bytes
        groups = buckets(tuple(range(len(mine))), lambda at: width * mine[at][1].parameters, limit)
        ready = [end - after for after in accumulate((seconds for seconds, _ in mine), initial=0.0)]
        over = 0.0
        for group in groups:  # the first block of the group is done when all before it are still to come
            over = max(over, ready[group[0]]) + self._over_data(mix, kind, *(mine[at][1] for at in group))
        if mix.stage == 3:  # gathering and reducing share the links
            both = sum(self._over_data(mix, what, block) for _, block in mine for what in (AllGather, ReduceScatter))
            over = max(over, ready[-1] + both)
        again = sum(self._over_data(mix, AllGather, block) for _, block in mine) if mix.stage in (1, 2) else 0.0
        return max(over, end) + again
