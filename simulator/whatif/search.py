"""``search``: the mixes of data, tensor and pipeline parallelism that are best for time or for money."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

from .. import checks
from ..cluster import Cluster
from ..clusters.knobs import check_cluster
from ..errors import OutOfMemoryError
from ..metrics.spending import HOUR
from ..model import Model
from ..models import model as published
from ..models import with_knobs
from ..models.chains import Chain
from ..models.transformer import Transformer
from ..peaks import lacking
from ..precision import TYPES
from ..rules import Adam, Rule
from .bar import bar
from .cases import listed
from .estimate import Estimator
from .found import GB, Choice, Found
from .mixes import Mix, mixes
from .spent import Parts
from .trial import Trial

OBJECTIVES = ("time", "cost")
UNSURE = 1.2
"""What closed forms say of memory may be so many times too much: only beyond that a mix is refused without a look."""
DOUBT = 0.15
"""What closed forms say of times may be too much by this share, while nothing better is known."""
LEAST_DOUBT, SEEN, TIMES = 0.01, 3, 3
"""Once so many mixes of a search have been simulated, it is so many times their largest error, but at least 1 %."""


class Candidate(NamedTuple):
    """A mix on a cluster, and what is estimated of it."""

    worth: float
    parts: Parts
    mix: Mix
    estimator: Estimator


@dataclass(frozen=True)
class Question:
    """What is looked for: of which model, by which measure, learned by which rule, in which mixed precision.

    ``knobs`` are those of ``simulate`` that were given.
    """

    model: Model
    objective: str
    rule: Rule
    dtype: str | None
    knobs: dict[str, Any]

    def worth(self, seconds: float, cluster: Cluster) -> float:
        """What a step is worth that takes so long; less is better."""
        return seconds if self.objective == "time" else seconds * priced(cluster)


def search(
    model: Model | str,
    cluster: Cluster | Sequence[Cluster],
    batch: int | None = None,
    objective: str = "time",
    *,
    dtype: str | None = None,
    rule: Rule | None = None,
    simulate: int = 8,
    progress: bool | None = None,
) -> Found:
    """The best mixes of data × tensor × pipeline parallelism, ZeRO stage, microbatch, schedule and recomputation.

    - ``model``: a Model, or the name of one; ``batch`` [samples], ``dtype``: instead of its own.
    - ``cluster``: one, or several to choose from. All ranks of it are used.
    - ``objective``: "time" of a step, or its "cost", for which every device has a price.
    - ``rule``: whose memory is counted; Adam unless told. Models in 2 bytes a number learn in mixed precision.
    - ``simulate``: how many of the mixes that promise most are simulated, at most: none that could not be the best even
      if it took 15 % less than estimated, or after three mixes three times the largest error seen, if that is less.
      Their order is that of simulated steps.
    - ``progress``: show a bar; None: in terminals and notebooks.

    Every mix that the model can be divided by is first estimated in closed form (``Estimator``). Pipelines run 1F1B, or
    with chunks its interleaved form; ranks that share blocks share tokens too. A mix must fit into memory. Of many
    microbatches as many are simulated as fill the pipeline and then repeat themselves; ``Choice.simulated`` says so.

    Raises ValueError where no mix fits, saying what the nearest lacks.

    >>> from simulator import cluster, model
    >>> found = search("gpt2-small", cluster("dgx-a100", ranks=4), batch=16, simulate=2)
    >>> print(found.best.mix.data, found.best.mix.tensor, found.best.mix.pipeline)
    4 1 1
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"objective is one of {', '.join(map(repr, OBJECTIVES))}; got objective={objective!r}")
    checks.whole("simulate", simulate, least=1, of="how many mixes")
    checks.kind("rule", rule, (Rule, type(None)), "one of simulator.rules, such as rules.Adam(), or None")
    whole = published(model) if isinstance(model, str) else model
    checks.kind("model", whole, Model, 'a Model, or the name of one, such as "gpt3-175b"')
    whole = with_knobs(whole, batch=batch, dtype=dtype)
    given = {name: value for name, value in (("batch", batch), ("dtype", dtype)) if value is not None}
    question = Question(whole, objective, rule or Adam(), _mixed(whole), given)
    refused, candidates = Counter[str](), list[Candidate]()
    for one in _able(whole, cluster, refused):
        candidates += _candidates(question, one, refused)
    candidates.sort(key=lambda candidate: candidate.worth)
    choices = _simulated(question, candidates, simulate, refused, progress)
    choices.sort(key=lambda choice: question.worth(choice.step_time, choice.cluster))
    return Found(tuple(choices), objective, dict(refused), len(candidates), whole.batch)


def _able(model: Model, given: Cluster | Sequence[Cluster], refused: Counter[str]) -> list[Cluster]:
    """The clusters whose devices compute in the model's dtype; of the others ``refused`` says why."""
    example = 'a cluster, such as cluster("dgx-a100", nodes=2), or a list of them'
    clusters = listed(given)
    if not clusters:
        raise ValueError(f"cluster is {example}; got {given!r}: a cluster is missing")
    for one in clusters:
        check_cluster(one, example=example)
    wrong = [next(filter(None, lacking(model, one).values()), "") for one in clusters]
    if all(wrong):
        raise ValueError(f"a cluster computes in the dtype of {model.name}; {wrong[0]}, or another device")
    refused.update(filter(None, wrong))
    return [one for one, why in zip(clusters, wrong) if not why]


def priced(cluster: Cluster) -> float:
    """USD per second of all devices. Raises ValueError where one has no price."""
    devices = cluster.devices or (cluster.device,) * cluster.ranks
    for device in devices:
        if device.price is None:
            raise ValueError(f"what a step costs follows from prices; {device.name} has none: give its Device a price")
    return sum(device.price or 0.0 for device in devices) / HOUR


def _mixed(model: Model) -> str | None:
    """The dtype of mixed precision, where a model of 2 bytes a number can learn so: a mixture of experts cannot."""
    if model.parameter_bytes != 2 or any(part.routes for block in model.blocks for part in block.parts):
        return None
    dtype = model.recipe.dtype if isinstance(model.recipe, (Transformer, Chain)) else "bf16"
    return dtype if dtype in TYPES else None


def _candidates(question: Question, cluster: Cluster, refused: Counter[str]) -> Iterator[Candidate]:
    """All mixes that may fit."""
    estimator = Estimator(question.model, cluster, question.rule, question.dtype)
    room, nearest, many = min((d.memory for d in estimator.devices if d.memory), default=0.0), inf, 0
    for mix in mixes(question.model, cluster.ranks, refused):
        try:
            beyond = estimator.memory(mix) - room * UNSURE
        except ValueError as error:  # blocks that cannot be shared so
            refused[str(error)] += 1
            continue
        if room and beyond > 0:
            nearest, many = min(nearest, beyond), many + 1
            continue
        parts = estimator.parts(mix)
        yield Candidate(question.worth(parts.total, cluster), parts, mix, estimator)
    if many:
        short = nearest + room * (UNSURE - 1)
        refused[f"does not fit into {room / GB:.1f} GB, by {short / GB:,.1f} GB or more"] += many


def _simulated(
    question: Question, candidates: Sequence[Candidate], wanted: int, refused: Counter[str], progress: bool | None
) -> list[Choice]:
    """The first candidates that fit, simulated, as long as one may be the best; fitting is read from their programs."""
    choices, beyond = list[Choice](), list[float]()
    with bar("search", progress, total=wanted, unit="mix") as shown:
        for candidate in candidates:
            if len(choices) == wanted or _hopeless(question, candidate, choices):
                break
            try:
                choices.append(_choice(question, candidate))
                shown.update()
            except OutOfMemoryError as error:
                beyond.append(error.needed - error.available)
            except ValueError as error:  # such as a rule that needs whole tensors
                refused[str(error)] += 1
    if beyond:
        refused[f"does not fit by its program, by {min(beyond) / GB:,.1f} GB or more"] += len(beyond)
    if not choices:
        why = "; ".join(f"{many} times: {reason}" for reason, many in refused.items())
        raise ValueError(f"no mix can train {question.model.name} so: {why}. Use more ranks, or a smaller batch")
    return choices


def _hopeless(question: Question, candidate: Candidate, choices: Sequence[Choice]) -> bool:
    """Whether one has been simulated that a candidate cannot beat, even if it was estimated that much too high."""
    worths = (question.worth(choice.step_time, choice.cluster) for choice in choices)
    return candidate.worth * (1 - _doubt(choices)) > min(worths, default=inf)


def _doubt(choices: Sequence[Choice]) -> float:
    """By how much of it an estimate may be too high, as those were that have been simulated."""
    if len(choices) < SEEN:
        return DOUBT
    worst = max(abs(1 - choice.step_time / choice.parts.total) for choice in choices)
    return min(DOUBT, max(LEAST_DOUBT, TIMES * worst))


def _choice(question: Question, candidate: Candidate) -> Choice:
    mix, estimator = candidate.mix, candidate.estimator
    cluster, strategy = estimator.cluster, mix.strategy(question.rule, question.dtype)
    step = Trial(mix, estimator.model_of(mix), cluster, question.rule, question.dtype).step()
    known = all(device.price is not None for device in estimator.devices)
    cost = step.seconds * priced(cluster) if known else None
    knobs = {**question.knobs, **mix.knobs}
    return Choice(mix, strategy, cluster, knobs, candidate.parts, step.seconds, cost, step.memory, step.simulated)
