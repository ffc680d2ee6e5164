"""How long a step of a mix takes, in closed form: what a search asks of thousands of mixes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import fsum, inf

from ..cluster import Cluster, Link
from ..communicating import AllGather, AllReduce, Collective, ReduceScatter
from ..model import Model
from ..models import with_knobs
from ..plans import Planner
from ..precision import Precision
from ..rules import Rule
from ..strategies.buckets import buckets
from ..strategies.data_parallel import DataParallel
from ..strategies.schedules.placing import cuts
from .mixes import Mix
from .pipelining import Hops, Stage, pipelined
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
        self.costs: dict[tuple[str | None, int, bool, float], Costs] = {}
        self.places: dict[int, list[tuple[int, int]]] = {}
        self.planners: dict[tuple[int, int], Planner] = {}
        self.times: dict[tuple[int, int, type[Collective], float], float] = {}

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

    def costs_of(self, mix: Mix) -> Costs:
        """What a microbatch costs in every block."""
        key = mix.recompute, mix.tensor, mix.sequence, mix.microbatch
        if key not in self.costs:
            self.costs[key] = self._costs(mix, self.reading(mix))
        return self.costs[key]

    def _costs(self, mix: Mix, reading: Reading) -> Costs:
        found = []
        for kind in reading.kinds:
            told = [self._told(one.moves, mix) for one in (kind.forward, kind.backward)]
            passes = [one.seconds(mix.microbatch, self.devices) for one in (kind.forward, kind.backward)]
            found.append((passes[0] + told[0], passes[1] + told[1], sum(told), kind))
        return Costs(*zip(*(found[kind] for kind in reading.order)))

    def _told(self, moves: Sequence[tuple[type[Collective], float]], mix: Mix) -> float:
        return sum(self.seconds(kind, size * mix.microbatch, mix.tensor, 1) for kind, size in moves)

    def seconds(self, kind: type[Collective], size: float, members: int, apart: int) -> float:
        """Of a collective of so many ranks, each ``apart`` from the next, beginning with the first."""
        if members == 1 or not size:
            return 0.0
        key = members, apart, kind, size
        if key not in self.times:
            planner = self.planners.get((members, apart))
            if planner is None:
                planner = self.planners[members, apart] = Planner(self.cluster, range(0, members * apart, apart))
            once = self.cluster.overheads.collective
            self.times[key] = once + planner.best(kind, size).seconds(size)
        return self.times[key]

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
        stages = [Stage(*map(sum, zip(*mine))) for mine in self._owned(mix, list(zip(*gathered)))]
        hops = self._hops(mix, costs)
        span = pipelined(stages, hops, mix.microbatches, mix.chunks)
        ends = self._ends(mix, gathered[1], costs.blocks, stages, hops.each, span)
        updates = [self._update(mix, mine) for mine in self._owned(mix, costs.blocks)]
        many, p = mix.microbatches, mix.pipeline
        told, waits = fsum(costs.told), fsum(map(sum, gathered)) - fsum(costs.forward) - fsum(costs.backward)
        busy = fsum(costs.forward) + fsum(costs.backward) - told
        return Parts(
            compute=many * busy / p + max(updates),
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

    def _places(self, mix: Mix) -> list[tuple[int, int]]:
        """The first block of each chunk of the pipeline, and one past the last."""
        chunks = mix.pipeline * mix.chunks
        if chunks not in self.places:
            self.places[chunks] = list(pairwise(cuts(self.model.asides, chunks)))
        return self.places[chunks]

    def _over_data(self, mix: Mix, kind: type[Collective], *blocks: Read) -> float:
        width = self.reading(mix).model.parameter_bytes
        return self.seconds(kind, width * sum(block.parameters for block in blocks), mix.data, mix.tensor)

    def _hops(self, mix: Mix, costs: Costs) -> Hops:
        """Messages between stages, each with what enters a block in the middle, both ways."""
        size = costs.blocks[len(costs.blocks) // 2].entering * mix.microbatch
        passing, latency, slowest = Counter[Link](), 0.0, inf
        for at in range(mix.pipeline if mix.chunks > 1 else mix.pipeline - 1):
            ends = at * mix.data * mix.tensor, (at + 1) % mix.pipeline * mix.data * mix.tensor
            visits = mix.chunks if at + 1 < mix.pipeline else mix.chunks - 1
            for source, target in (ends, ends[::-1]):
                route = self.cluster.route(source, target)
                passing.update(dict.fromkeys(route, visits))
                latency = max(latency, self.cluster.latency(source, target))
                slowest = min([slowest, *map(self.cluster.bandwidth, route)])
        busiest = max((many * size / self.cluster.bandwidth(link) for link, many in passing.items()), default=0.0)
        return Hops(latency + size / slowest, latency + busiest / mix.chunks, busiest)

    def _update(self, mix: Mix, blocks: Sequence[Read]) -> float:
        numbers = sum(block.parameters for block in blocks) / (mix.data if mix.stage else 1)
        return max(self.model.update.of(numbers, device) for device in self.devices)

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
