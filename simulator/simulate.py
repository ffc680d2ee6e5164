"""``simulate``: a strategy on a modelled cluster, under the virtual clock."""

from __future__ import annotations

from dataclasses import replace
from types import NoneType
from typing import Any

from . import checks
from .checking import AnyStrategy, ensure_valid, validate
from .cluster import Cluster, Device, check_ranks
from .clusters.knobs import check_cluster
from .errors import CannotFold, ProgramError
from .experiment import Experiment
from .fitting import ensure_fits
from .folding import Programs, apart
from .memory import Text
from .model import Model
from .models import with_knobs
from .noise import Noise
from .peaks import ensure_peaks
from .problem import Problem
from .rank import Rank
from .run import Run
from .stack import Stack, stack
from .virtual import uncollected
from .workload import check_workload

DETAILS = ("flow", "messages")
ASSUMED = f"nobody said what computes: {Device().name} of {Device().flops:g} FLOP/s; give the cluster a device="
"""A note in runs whose times would surprise whoever forgot the device."""


def simulate(
    strategy: AnyStrategy,
    workload: Model | Problem,
    cluster: Cluster,
    ranks: int | None = None,
    steps: int = 10,
    seed: int = 0,
    noise: Noise | None = None,
    learn: bool | None = None,
    replay: Run | None = None,
    batch: int | None = None,
    dtype: str | None = None,
    recompute: str | None = None,
    detail: str = "flow",
    fold: bool | str = True,
    fit: bool = True,
) -> Run:
    """Run a strategy under the virtual clock.

    - ``workload``: a Model is timed; a Problem is learned, with real tensors, unless ``learn=False``.
    - ``ranks``: every process, servers included; it is the cluster's number, and anything else is refused.
    - ``steps``: updates per worker. ``seed``: of noise, data and initial weights.
    - ``noise``: a law of compute times; without it every computation takes exactly its time.
    - ``replay``: a wall-clock Run of the same strategy, problem, ranks, steps and seed, whose receives from any rank
      are repeated, so that asynchronous training gives its losses and parameters.
    - ``batch``, ``dtype``, ``recompute``: of a Model, instead of its own, as in ``with_knobs``.
    - ``detail``: a collective is one "flow" of bytes, or its single "messages".
    - ``fold``: simulate ranks that behave alike once, where that gives the same times; of few ranks all are simulated,
      unless it is "always".
    - ``fit``: refuse a Model that needs more memory than devices have, as ``memory`` counts it; OutOfMemoryError.

    Times are virtual seconds. Same arguments, same Run, bit for bit. Raises ValueError when strategy, workload and
    cluster do not fit, ProgramError when the program is wrong, DivergedError when a loss is not finite.

    >>> from simulator import DataParallel, Model, cluster
    >>> simulate(DataParallel(), Model.of_times(blocks=3), cluster("ideal", ranks=4), steps=2).makespan
    18.0
    """
    check_cluster(cluster)
    checks.kind("noise", noise, (Noise, NoneType), "a law such as noise.gamma(shape=4), or None")
    checks.kind("replay", replay, (Run, NoneType), "a wall-clock Run, or None")
    if detail not in DETAILS:
        raise ValueError(f"detail is one of {', '.join(map(repr, DETAILS))}; got detail={detail!r}")
    if fold != "always":
        fold = checks.flag("fold", fold, 'True, False or "always"')
    checks.kind("fit", fit, bool, "True or False")
    whole, ranks = stack(strategy), ranks_of(cluster, ranks)
    steps, seed = checks.whole("steps", steps, least=1), checks.whole("seed", seed)
    workload = adjusted(workload, batch=batch, dtype=dtype, recompute=recompute)
    problem, model = split(workload, learn)
    experiment = Experiment(whole, workload, problem, model, cluster, steps, seed, noise, None, detail)
    with uncollected():
        told = checked(experiment, fit, run=problem is not None)
        if replay is not None:
            experiment = replace(experiment, outcomes=_outcomes(replay, whole, workload, ranks, steps, seed))
        try:
            run = experiment.run(apart(ranks)) if not fold else _folded(experiment, told, fold == "always")
        except ProgramError as error:
            raise _shown(error, experiment) from None
    return replace(run, notes=run.notes | {"device": ASSUMED}) if _modest(cluster, model) else run


def _shown(error: ProgramError, one: Experiment) -> ProgramError:
    """What is wrong with a program that can be known before it runs, with the grid."""
    if one.whole.order.static:
        try:
            validate(one.whole, one.cluster.ranks, one.workload)
        except ProgramError as found:
            return found
    return error


def _folded(experiment: Experiment, told: Programs | None, always: bool) -> Run:
    """Run it with ranks that behave alike once, where that gives the same times; else with all."""
    one = experiment
    if told is None or not one.foldable:
        return one.run(apart(one.cluster.ranks))
    try:
        return one.run_folded(told, always)
    except CannotFold as reason:
        run = one.run(apart(one.cluster.ranks))
        return replace(run, notes=run.notes | {"not folded": str(reason)})


def _modest(cluster: Cluster, model: Model) -> bool:
    """Whether nobody said what computes operations, which take no time of their own."""
    return model.of_operations and any(device == Device() for device in cluster.devices or (cluster.device,))


def adjusted(workload: Model | Problem, **knobs: Any) -> Model | Problem:
    """A model with the knobs that were given; a Problem has its own, and refuses them."""
    given = {name: value for name, value in knobs.items() if value is not None}
    if isinstance(workload, Problem) and given:
        verb = "belongs" if len(given) == 1 else "belong"
        raise ValueError(f"{', '.join(given)} {verb} to a Model; a Problem brings its own: problem(name, …)")
    return with_knobs(workload, **given) if given and isinstance(workload, Model) else workload


def split(workload: Model | Problem, learn: bool | None) -> tuple[Problem | None, Model]:
    """(the problem that is learned, if any; the model that is timed)."""
    checks.kind("learn", learn, (bool, NoneType), "True, False, or None: a Problem is learned")
    if isinstance(workload, Problem):
        return (workload if learn is not False else None), workload.model()
    check_workload(workload)
    if learn:
        raise ValueError("a Model has no tensors to learn with; give a Problem, for example problem('digits-mlp')")
    return None, workload


def ranks_of(cluster: Cluster, ranks: int | None) -> int:
    """The number of ranks: the cluster's. Anything else is refused."""
    if ranks is not None and check_ranks(ranks) != cluster.ranks:
        raise ValueError(f"a cluster runs as many ranks as it has; got ranks={ranks} on a cluster of {cluster.ranks}")
    return cluster.ranks


def checked(experiment: Experiment, fit: bool, run: bool = True) -> Programs | None:
    """Everything that can be checked of an experiment before it runs; see ``prepare``."""
    one, ranks = experiment, experiment.cluster.ranks
    ensure_peaks(one.whole, one.model, one.cluster)
    told = prepare(one.whole, one.model, ranks, one.steps, one.seed, one.problem is not None, run)
    if one.noise is not None:
        one.noise.check(ranks)
    if fit and isinstance(one.workload, Model):
        ensure_fits(Text(one.whole, one.model, ranks, one.whole.rule, told), one.cluster)
    return told


def prepare(
    whole: Stack, model: Model, ranks: int, steps: int, seed: int, learning: bool, run: bool = True
) -> Programs | None:
    """Everything that can be checked before a machine runs; gives what all ranks say, where that is known before.

    ``run``: as of ``ensure_valid``.
    """
    check_ranks(ranks)
    checks.whole("steps", steps, least=1)
    checks.whole("seed", seed)
    whole.check(ranks, model)
    if learning or model.of_operations:
        parts = _parts(Rank(whole, ranks - 1, ranks, model, steps))
        if model.batch < parts:
            raise ValueError(
                f"every worker and microbatch needs a sample; got batch={model.batch} for {parts} parts: give"
                f" batch={parts} or more, or use fewer ranks or fewer microbatches"
            )
    return ensure_valid(whole, ranks, model, run)


def _parts(me: Rank) -> int:
    return (me.share[1] if me.share else 1) * me.microbatches


def _outcomes(
    replay: Run, whole: Stack, workload: Model | Problem, ranks: int, steps: int, seed: int
) -> tuple[list[int], ...]:
    mine = dict(strategy=str(whole), workload=workload.name, ranks=ranks, steps=steps, seed=seed)
    theirs = {name: getattr(replay, name) for name in mine}
    if mine != theirs:
        raise ValueError(
            f"a replay repeats the same strategy, workload, ranks, steps and seed; it has {theirs}, asked is {mine}"
        )
    return replay.outcomes
