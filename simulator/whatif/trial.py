"""A mix, simulated: a step of many microbatches follows from one of fewer, once all that comes repeats itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

from ..checking import ensure_valid
from ..cluster import Cluster
from ..errors import CannotFold, OutOfMemoryError
from ..experiment import Experiment
from ..fitting import ensure_fits
from ..folding import Programs, apart
from ..memory import Text, alone
from ..model import Model
from ..rules import Rule
from ..run import Run
from ..settling import FULL, settled
from ..stack import Stack
from ..strategies.schedules.placing import cuts
from .mixes import Mix
from .steady import ALIKE, turn_time

ALONE = 4
"""So many microbatches are simulated of a mix without a pipeline."""
TRIES = 3
"""So many lengths are tried before all microbatches are simulated."""
ENOUGH = 1.3
"""So many times as many microbatches are worth the effort."""


@dataclass(frozen=True)
class Step:
    """``seconds`` of a step, and ``memory`` [B] of the fullest rank; ``simulated``: so many microbatches."""

    seconds: float
    memory: float
    simulated: int


@dataclass(frozen=True, eq=False)
class Trial:
    """A mix of a model, as it recomputes in this mix, on a cluster."""

    mix: Mix
    model: Model
    cluster: Cluster
    rule: Rule | None
    dtype: str | None

    def step(self) -> Step:
        """Simulate it. Raises OutOfMemoryError where it does not fit, ValueError where it cannot be."""
        memory, spans = self.memory(), list[float]()
        for few in self._fewer():
            run = self.run(few)
            spans.append(run.makespan)
            each = self._repeated(run, few) or self._grown(spans)
            if each is not None:
                return Step(run.makespan + (self.mix.microbatches - few) * each, memory, few)
        return Step(self.run(self.mix.microbatches).makespan, memory, self.mix.microbatches)

    def memory(self) -> float:
        """Bytes of the fullest rank: more microbatches than fill a pipeline three times need no more."""
        self._glance()
        text = self._text(min(self.mix.microbatches, FULL * max(2, self.mix.pipeline)))
        ensure_fits(text, self.cluster)
        return max(held.most.total for held in settled(text))

    def _glance(self) -> None:
        """Raise OutOfMemoryError where the first rank of the first or last stage is full with few microbatches."""
        p = self.mix.pipeline
        text = self._text(min(self.mix.microbatches, p if self.mix.chunks == 1 else 2 * p))
        for rank in {0, (p - 1) * self.mix.data * self.mix.tensor}:
            held, room = alone(text, rank).most, self.cluster.device_of(rank).memory
            if room and held.total > room:
                said = f"a rank holds at most what its device has; rank {rank} of {self.mix} needs more"
                raise OutOfMemoryError(said, rank, held.total, room, held)

    def run(self, microbatches: int) -> Run:
        """A step of so many microbatches of the same size, ranks that are alike once."""
        text = self._text(microbatches)
        text.stack.check(text.ranks, text.model)
        experiment = Experiment(text.stack, text.model, None, text.model, self.cluster, steps=1, seed=0)
        try:
            return experiment.run_folded(self._told, few=True)
        except CannotFold:
            return experiment.run(apart(self.cluster.ranks))

    def _fewer(self) -> Iterator[int]:
        """How many microbatches may do instead, each time a turn more."""
        mix, p = self.mix, self.mix.pipeline
        few = (ALONE if p == 1 else 2 * p if mix.chunks == 1 else 3 * p) + mix.microbatches % p
        for more in range(TRIES):
            if ENOUGH * (few + more * p) < mix.microbatches:
                yield few + more * p

    def _repeated(self, run: Run, few: int) -> float | None:
        """Seconds of each further microbatch, where all ranks repeat themselves, in turns that divide the others.

        1F1B may do so after one, or any number that goes round at once; its interleaved form after as many as there are
        stages.
        """
        p, block = self.mix.pipeline, self._block
        turns = (n for n in range(1 if self.mix.chunks == 1 else p, p + 1) if (self.mix.microbatches - few) % n == 0)
        found = ((turn_time(run.spans, block, few - 1, turn), turn) for turn in turns)
        return next((seconds / turn for seconds, turn in found if seconds is not None), None)

    def _grown(self, spans: list[float]) -> float | None:
        """The same, where a step has twice grown by as much, with a turn more each time.

        So it may be before all ranks repeat themselves: those that are ahead go on ahead, and wait later.
        """
        if len(spans) < TRIES:
            return None
        first, second = (after - before for before, after in pairwise(spans[-TRIES:]))
        return second / self.mix.pipeline if abs(second - first) <= ALIKE * spans[-1] else None

    @cached_property
    def _told(self) -> Programs:
        """What all ranks say, of the fewest microbatches: more of them are more of the same."""
        fewest = self.mix.pipeline if self.mix.chunks > 1 else min(2, self.mix.microbatches)
        text = self._text(fewest, size=1)
        told = ensure_valid(text.stack, text.ranks, text.model)
        if told is None:
            raise ValueError(f"a search is among programs that are known before they run; got {text.stack}")
        return told

    @cached_property
    def _block(self) -> int:
        """The first block of the first stage's last chunk."""
        mix = self.mix
        return cuts(self.model.asides, mix.pipeline * mix.chunks)[(mix.chunks - 1) * mix.pipeline]

    def _text(self, microbatches: int, size: float | None = None) -> Text:
        """The program of so many microbatches, of so many samples each."""
        mix = replace(self.mix, microbatches=microbatches)
        batch = round(mix.data * microbatches * (size or mix.microbatch))
        whole: Stack = mix.strategy(self.rule, self.dtype)
        return Text(whole, self.model.with_batch(batch), self.cluster.ranks, whole.rule)
