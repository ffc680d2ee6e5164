"""Closed forms of many machines: how often one fails, what those left do, and what a second copy of a task saves."""

from __future__ import annotations

from math import exp, inf

from .. import checks

DAY = 86400.0


def system_mtbf(component: float, n: int) -> float:
    """M/n: mean time between failures of n independent components with M each, where any failure counts [s].

    Raises ValueError unless ``component`` [s] is positive and ``n`` at least 1. Source: rates of independent failures
    without memory add up.

        >>> years = 365.25 * 24 * 3600
        >>> round(system_mtbf(5.78 * years, 16_384) / 3600, 2)
        3.09
    """
    return checks.number("component", component, above=0) / checks.whole("n", n, least=1)


def survival(n: int, time: float, mtbf: float) -> float:
    """e^(−n·T/M): the chance that none of n components with M = ``mtbf`` each fails within T = ``time`` [s].

    Raises ValueError unless ``mtbf`` is positive, ``time`` at least 0 and ``n`` at least 1. Source: no event of a
    Poisson process with rate n/M.

        >>> round(survival(n=1000, time=3600, mtbf=3_600_000), 4)
        0.3679
    """
    return exp(-checks.number("time", time, least=0) / system_mtbf(mtbf, n))


def mtbf_of_rate(nodes: int, per_1000_node_days: float = 6.5) -> float:
    """1000 days / (nodes · rate): the mean time between failures of a job from a rate per 1000 node-days [s].

    It takes nodes as independent, which holds for large jobs only: at 128 nodes the same source measured 7.9 h where
    this says 28.8 h. Failures that strike a job whatever its size stand in ``Failures(common_mtbf=…)``.

    Raises ValueError unless ``nodes`` is at least 1 and the rate positive. Source: Kokolis et al. 2024,
    arXiv:2410.21680; 6.50 is that of its cluster RSC-1, with 8 GPUs a node.

        >>> round(mtbf_of_rate(16_384 // 8) / 3600, 1)
        1.8
    """
    rate = checks.number("per_1000_node_days", per_1000_node_days, above=0)
    return 1000 * DAY / (checks.whole("nodes", nodes, least=1) * rate)


def elastic_step_time(step_time: float, nodes: int, left: int) -> float:
    """t·N/n: a step of the same global batch on ``left`` of ``nodes`` nodes, which accumulate more gradients [s].

    The batch divides freely and communication shrinks alike; with whole microbatches, a step takes as long as the
    node that has most. Raises ValueError unless 1 ≤ ``left`` ≤ ``nodes``. Source: samples per second go with nodes.

        >>> elastic_step_time(7.0, nodes=8, left=7)
        8.0
    """
    return checks.number("step_time", step_time, above=0) / _share(nodes, left)


def rescaled_rate(rate: float, nodes: int, left: int) -> float:
    """r·n/N: the learning rate where ``left`` of ``nodes`` nodes keep their share of the batch, so that it shrinks.

    Raises ValueError unless 1 ≤ ``left`` ≤ ``nodes``. Source: the linear scaling rule, Goyal et al. 2017,
    arXiv:1706.02677.

        >>> rescaled_rate(1.0, nodes=8, left=6)
        0.75
    """
    return checks.number("rate", rate, least=0) * _share(nodes, left)


def _share(nodes: int, left: int) -> float:
    if checks.whole("left", left, least=1) > checks.whole("nodes", nodes, least=1):
        raise ValueError(f"nodes that are left are some of all nodes; got left={left} of nodes={nodes}")
    return left / nodes


def speculative_time(mean: float, copies: int = 2) -> float:
    """mean/c: mean time until the first of c copies of a task with exponential times ends [s].

    Raises ValueError unless ``mean`` is positive and ``copies`` at least 1. Source: rates add up.

        >>> speculative_time(1.0)
        0.5
    """
    return checks.number("mean", mean, above=0) / checks.whole("copies", copies, least=1)


def speculative_tail(index: float, copies: int = 2) -> float:
    """c·α: the tail index of the first of c copies of a task whose times have a Pareto tail, P(T > t) ∝ t^(−α).

    So two copies of a task without a mean time (α ≤ 1) have one as soon as 2α > 1. Raises ValueError unless ``index``
    is positive and ``copies`` at least 1. Source: P(min > t) = P(T > t)^c.

        >>> speculative_tail(0.8), pareto_mean(0.8), round(pareto_mean(speculative_tail(0.8)), 3)
        (1.6, inf, 2.667)
    """
    return checks.number("index", index, above=0) * checks.whole("copies", copies, least=1)


def pareto_mean(index: float, least: float = 1.0) -> float:
    """t₀·α/(α − 1): the mean of Pareto times of at least t₀ = ``least`` [s]; infinite for α ≤ 1.

    Raises ValueError unless both are positive. Source: ∫ t dF for P(T > t) = (t₀/t)^α.

        >>> pareto_mean(2.0)
        2.0
    """
    checks.number("index", index, above=0)
    return checks.number("least", least, above=0) * index / (index - 1) if index > 1 else inf
