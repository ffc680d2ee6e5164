"""``simulate``: a strategy on a modelled cluster, under the virtual clock."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import NoneType
from typing import TYPE_CHECKING, Any

from . import checks
from .checking import AnyStrategy, ensure_valid
from .cluster import Cluster, check_ranks
from .holdings import assemble, firsts, replicas
from .memory import Text
from .model import Model
from .models import with_knobs
from .noise import Noise
from .problem import Problem
from .rank import Rank
from .run import Run
from .stack import Stack, stack
from .virtual import Machine

if TYPE_CHECKING:
    from .learning import Tensors

DETAILS = ("flow", "messages")


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
    fold: bool = True,
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
    - ``fold``: simulate ranks that behave alike once, where that gives the same times.

    Times are virtual seconds. Same arguments, same Run, bit for bit. Raises ValueError when strategy, workload and
    cluster do not fit, ProgramError when the program is wrong, DivergedError when a loss is not finite.

    >>> from simulator import DataParallel, Model, cluster
    >>> simulate(DataParallel(), Model.of_times(blocks=3), cluster("ideal", ranks=4), steps=2).makespan
    18.0
    """
    checks.kind("cluster", cluster, Cluster, 'a Cluster, as in cluster("ideal", ranks=4)')
    checks.kind("noise", noise, (Noise, NoneType), "a law such as noise.gamma(shape=4), or None")
    checks.kind("replay", replay, (Run, NoneType), "a wall-clock Run, or None")
    if detail not in DETAILS:
        raise ValueError(f"detail is one of {', '.join(map(repr, DETAILS))}; got detail={detail!r}")
    checks.kind("fold", fold, bool, "True or False")
    whole, ranks = stack(strategy), ranks_of(cluster, ranks)
    workload = adjusted(workload, batch=batch, dtype=dtype, recompute=recompute)
    problem, model = split(workload, learn)
    prepare(whole, model, ranks, steps, seed, learning=problem is not None)
    rule = whole.rule or (problem.rule if problem else None)
    members = [Rank(whole, rank, ranks, model, steps, rule) for rank in range(ranks)]
    outcomes = None if replay is None else _outcomes(replay, whole, workload, ranks, steps, seed)
    with single_threaded(problem):
        if problem is not None:
            problem.check()
        tensors = _tensors(problem, members, seed)
        machine = Machine(whole, members, cluster, seed, noise, tensors, outcomes, check=not whole.order.static)
        machine.run()
        parameters, notes = _parameters(problem, whole, members, tensors, seed)
    return Run(
        clock="virtual",
        cluster=str(cluster),
        spans=machine.spans,
        samples=machine.samples,
        outcomes=tuple(state.outcomes for state in machine.states),
        parameters=parameters,
        buffers=firsts(mine.buffers() for mine in tensors or ()),
        notes=notes,
        **identity(whole, workload, members, steps, seed),
    )


def adjusted(workload: Model | Problem, **knobs: Any) -> Model | Problem:
    """A model with the knobs that were given; a Problem has its own, and refuses them."""
    given = {name: value for name, value in knobs.items() if value is not None}
    if isinstance(workload, Problem) and given:
        raise ValueError(f"{', '.join(given)} belong to a Model; a Problem brings its own: problem(name, …)")
    return with_knobs(workload, **given) if given and isinstance(workload, Model) else workload


def split(workload: Model | Problem, learn: bool | None) -> tuple[Problem | None, Model]:
    """(the problem that is learned, if any; the model that is timed)."""
    if isinstance(workload, Problem):
        return (workload if learn is not False else None), workload.model()
    if not isinstance(workload, Model):
        raise ValueError(f"a workload is a Model (timed) or a Problem (learned); got {workload!r}")
    if learn:
        raise ValueError("a Model has no tensors to learn with; give a Problem, for example problem('digits-mlp')")
    return None, workload


def ranks_of(cluster: Cluster, ranks: int | None) -> int:
    """The number of ranks: the cluster's. Anything else is refused."""
    if ranks is not None and check_ranks(ranks) != cluster.ranks:
        raise ValueError(f"a cluster runs as many ranks as it has; got ranks={ranks} on a cluster of {cluster.ranks}")
    return cluster.ranks


def prepare(whole: Stack, model: Model, ranks: int, steps: int, seed: int, learning: bool) -> None:
    """Everything that can be checked before a machine runs."""
    check_ranks(ranks)
    checks.whole("steps", steps, least=1)
    checks.whole("seed", seed)
    whole.check(ranks, model)
    if learning:
        parts = _parts(Rank(whole, ranks - 1, ranks, model, steps))
        if model.batch < parts:
            raise ValueError(
                f"every worker and microbatch needs a sample; got a batch of {model.batch} samples for {parts} parts:"
                " use a larger batch, fewer ranks or fewer microbatches"
            )
    ensure_valid(whole, ranks, model)


def _parts(me: Rank) -> int:
    return (me.share[1] if me.share else 1) * me.microbatches


def identity(whole: Stack, workload: Model | Problem, members: Sequence[Rank], steps: int, seed: int) -> dict[str, Any]:
    """The fields of a Run that say what ran; the same on both clocks."""
    model = members[0].model
    rule = whole.rule or (workload.rule if isinstance(workload, Problem) else None)
    return dict(
        strategy=str(whole),
        workload=workload.name,
        ranks=len(members),
        workers=tuple(me.rank for me in members if me.share is not None),
        slices=tuple(me.slice[1] - me.slice[0] for me in members if me.share is not None),
        steps=steps,
        seed=seed,
        batch=model.batch,
        asynchronous=whole.order.asynchronous,
        versions=versions(),
        text=Text(whole, members[0].whole_model, len(members), rule),
    )


def versions() -> dict[str, str]:
    """Of Python and of what matters for the numbers."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("two-clocks", "simpy", "networkx", "torch"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@contextmanager
def single_threaded(problem: Problem | None) -> Iterator[None]:
    """One torch thread, as real ranks have, so that sums are added in the same order on both clocks."""
    if problem is None:
        yield
        return
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _tensors(problem: Problem | None, members: Sequence[Rank], seed: int) -> list[Tensors] | None:
    if problem is None:
        return None
    from .learning import Batches, Tensors

    batches = Batches(problem, seed)
    return [Tensors(me, problem, seed, batches) for me in members]


def _parameters(
    problem: Problem | None, whole: Stack, members: Sequence[Rank], tensors: list[Tensors] | None, seed: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """The parameters at the end, and what is to be said about them."""
    if problem is None or tensors is None:
        return {}, {}
    pieces = [piece for me, mine in zip(members, tensors) for piece in mine.pieces(whole.holds(me))]
    return assemble(problem, seed, pieces), {} if whole.drifts else replicas(pieces)


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
