"""A mix, simulated: a step of many microbatches follows from one of fewer, once all that comes repeats itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from ..checking import ensure_valid
from ..cluster import Cluster
from ..errors import CannotFold
from ..experiment import Experiment
from ..fitting import ensure_fits
from ..folding import Programs, apart, folded
from ..memory import Text
from ..model import Model
from ..rules import Rule
from ..run import Run
from ..settling import FULL, settled
from ..stack import Stack
from ..strategies.schedules.placing import cuts
from .mixes import Mix
from .steady import turn_time

ALONE = 4
"""So many microbatches are simulated of a mix without a pipeline."""


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
        memory = self.memory()
        for few, turns in self._fewer():
            run = self.run(few)
            for turn in turns:
                further = turn_time(run.spans, self._block, few - 1, turn)
                if further is not None:
                    rest = (self.mix.microbatches - few) // turn
                    return Step(run.makespan + rest * further, memory, few)
        return Step(self.run(self.mix.microbatches).makespan, memory, self.mix.microbatches)

    def memory(self) -> float:
        """Bytes of the fullest rank: more microbatches than fill a pipeline three times need no more."""
        text = self._text(min(self.mix.microbatches, FULL * max(2, self.mix.pipeline)))
        ensure_fits(text, self.cluster)
        return max(held.most.total for held in settled(text))

    def run(self, microbatches: int) -> Run:
        """A step of so many microbatches of the same size, ranks that are alike once."""
        text = self._text(microbatches)
        text.stack.check(text.ranks, text.model)
        experiment = Experiment(text.stack, text.model, None, text.model, self.cluster, steps=1, seed=0)
        try:
            return experiment.run(folded(self._told, text.stack, self.cluster, few=True))
        except CannotFold:
            return experiment.run(apart(self.cluster.ranks))

    def _fewer(self) -> Iterator[tuple[int, list[int]]]:
        """How many microbatches may do instead, the fewest first, and the turns in which the others may come.

        1F1B may repeat itself after one, or any number that goes round at once; its interleaved form after as many as
        there are stages.
        """
        mix, p = self.mix, self.mix.pipeline
        few = (ALONE if p == 1 else 2 * p if mix.chunks == 1 else 3 * p) + mix.microbatches % p
        while 4 * few <= 3 * mix.microbatches:
            yield few, [n for n in range(1 if mix.chunks == 1 else p, p + 1) if (mix.microbatches - few) % n == 0]
            few += max(few // p, 1) * p

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
