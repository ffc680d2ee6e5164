"""What a search finds: the best mixes as a table, the winner ready to be simulated, and why it wins."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import nan
from typing import TYPE_CHECKING, Any

from ..cluster import Cluster
from ..clusters.knobs import many
from ..metrics import readable
from ..stack import Stack
from .mixes import Mix
from .spent import Parts

if TYPE_CHECKING:
    import pandas as pd

GB = 1e9


@dataclass(frozen=True)
class Choice:
    """One mix, ready for ``simulate(choice.strategy, model, choice.cluster, **choice.knobs)``.

    - ``parts``: what its step is estimated to spend its seconds on. ``step_time`` [s]: simulated.
    - ``cost`` [USD]: of a step; None where nobody knows the devices' price. ``memory`` [B]: of the fullest rank.
    - ``simulated``: so many microbatches; of more the step is extrapolated, each adding as much as the last.
    """

    mix: Mix
    strategy: Stack
    cluster: Cluster
    knobs: dict[str, Any]
    parts: Parts = field(repr=False)
    step_time: float
    cost: float | None
    memory: float
    simulated: int

    @property
    def extrapolated(self) -> bool:
        """Whether its step follows from one of fewer microbatches."""
        return self.simulated < self.mix.microbatches

    def columns(self, batch: int) -> dict[str, Any]:
        """Its row of the table."""
        return {
            "ranks": self.cluster.ranks,
            **self.mix.columns(),
            "step_time": self.step_time,
            "throughput": batch / self.step_time,
            "cost": nan if self.cost is None else self.cost,
            "memory": self.memory,
            "simulated": self.simulated,
            "estimate": self.parts.total,
            **{f"{name}_time": getattr(self.parts, name) for name in MEANT},
        }


MEANT = {
    "compute": "computation",
    "tensor": "what ranks tell each other that share blocks",
    "bubble": "waiting in the pipeline",
    "data": "exchanging gradients and parameters",
}
"""The parts of a step, as they are called in sentences."""
TOLD = 0.001
"""Of a step, what is worth a word."""


@dataclass(frozen=True, repr=False)
class Found:
    """The mixes that were simulated, the best first. It shows itself as a table with the reasons below.

    - ``table``: a DataFrame. Times in seconds, memory in bytes, cost in USD per step; ``simulated`` is how many of the
      microbatches were: steps of more are extrapolated from them; ``estimate`` is the closed form, and
      ``compute_time``, ``tensor_time``, ``bubble_time`` and ``data_time`` are its parts.
    - ``best``: the winner. ``why``: text that explains it. ``refused``: how many mixes cannot be, by reason.
    - ``estimated``: how many mixes there were to choose from.
    """

    choices: tuple[Choice, ...]
    objective: str
    refused: dict[str, int]
    estimated: int
    batch: int

    @property
    def best(self) -> Choice:
        """The winner."""
        return self.choices[0]

    @property
    def table(self) -> pd.DataFrame:
        """All that was simulated, the best first."""
        import pandas as pd

        return pd.DataFrame([choice.columns(self.batch) for choice in self.choices])

    @property
    def why(self) -> str:
        """Why the winner wins, in sentences."""
        others = [_against(self.best, other, self.objective) for other in self.choices[1:4]]
        refused = [f"{many} refused: {reason}." for reason, many in self.refused.items()]
        return "\n".join([*_winner(self.best), *others, *self._extent(), *refused])

    def _extent(self) -> list[str]:
        """How many mixes were looked at, and how closely."""
        fewer = [choice for choice in self.choices if choice.extrapolated]
        told = (
            f" Of {len(fewer)} of these a step is extrapolated: of its microbatches fewer were simulated, until time"
            f" repeated itself (of the best {self.best.simulated} of {self.best.mix.microbatches})."
        )
        return [f"{self.estimated} mixes were compared, {len(self.choices)} simulated.{told if fewer else ''}"]

    def __str__(self) -> str:
        table = self.table.drop(columns=[f"{name}_time" for name in MEANT])
        return f"{table.to_string()}\n\n{self.why}"

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        from html import escape

        return f"{self.table.to_html()}<pre>{escape(self.why)}</pre>"


def _winner(best: Choice) -> list[str]:
    spent = ", ".join(
        f"{getattr(best.parts, name) / best.parts.total:.0%} {what}"
        for name, what in MEANT.items()
        if getattr(best.parts, name) > 0.005 * best.parts.total
    )
    cost = "" if best.cost is None else f" and {best.cost:.3g} USD"
    room = best.cluster.device.memory
    of = f" of {room / GB:.1f}" if room else ""
    return [
        f"Best of those simulated: {best.mix}, on {many(best.cluster.ranks)}.",
        f"A step takes {readable(best.step_time)}{cost}: {spent}.",
        f"The fullest rank holds {best.memory / GB:.1f}{of} GB.",
    ]


def _against(best: Choice, other: Choice, objective: str) -> str:
    """What another choice loses, and on what."""
    rates = [_worth(one, objective) / one.step_time for one in (best, other)]
    more = {name: rates[1] * getattr(other.parts, name) - rates[0] * getattr(best.parts, name) for name in MEANT}
    most = max(more, key=lambda name: more[name])
    lost = _worth(other, objective) / _worth(best, objective) - 1
    where = f", on {many(other.cluster.ranks)}" if other.cluster.ranks != best.cluster.ranks else ""
    worse = f"{other.mix}{where}: {max(lost, 0.0):.1%} {'dearer' if objective == 'cost' else 'slower'}"
    amount = f"{more[most]:.3g} USD" if objective == "cost" else readable(more[most])
    matters = more[most] > TOLD * _worth(best, objective)
    return f"{worse}; {MEANT[most]} takes {amount} more." if matters else f"{worse}."


def _worth(choice: Choice, objective: str) -> float:
    return choice.cost or 0.0 if objective == "cost" else choice.step_time
