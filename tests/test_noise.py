"""Laws of compute times: what each promises of its mean, its spread and its luck."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator as sim
from simulator import noise, theory

JITTER = {
    "fixed": noise.fixed(),
    "exponential": noise.exponential(),
    "gamma": noise.gamma(4.0),
    "lognormal": noise.lognormal(0.5),
    "normal": noise.normal(0.1),
    "pareto": noise.pareto(3.0),
    "measured": noise.measured([3.0, 4.0, 4.0, 9.0]),
}
STRAGGLERS = {
    "slow": noise.slow({1: 4.0}),
    "for a while": noise.slow({1: 4.0}, steps=range(5, 9)),
    "transient": noise.transient(3.0, lasts=4, between=12),
    "silicon": noise.silicon(0.02),
    "duplicated": noise.duplicated(noise.exponential()),
}
LAWS = {**JITTER, **STRAGGLERS, "product": noise.gamma(4.0) * noise.slow({2: 3.0}) * noise.silicon()}
DRAWS = 40_000


def draws(law: noise.Noise, rank: int = 0, seed: int = 0, steps: int = DRAWS) -> np.ndarray:
    factor = law.factor(rank, seed)
    return np.array([factor(step) for step in range(steps)])


# ---------------------------------------------------------------- means and shapes


@pytest.mark.parametrize("name", JITTER)
def test_jitter_has_mean_one(name: str):
    found = draws(JITTER[name])
    assert np.mean(found) == pytest.approx(1.0, abs=4 * np.std(found) / np.sqrt(DRAWS) + 1e-12) and np.all(found > 0)


def test_normal_times_spread_as_they_say_and_stay_positive():
    assert np.std(draws(noise.normal(0.1))) == pytest.approx(0.1, rel=0.02)
    wide = draws(noise.normal(1 / 3))
    assert wide.min() > 0 and wide.max() < 2 and np.std(wide) == pytest.approx(1 / 3, rel=0.03)


def test_pareto_times_have_the_tail_they_say():
    """P(x > t) = (least/t)^tail: the logarithm over the least is exponential with rate ``tail``."""
    found = draws(noise.pareto(3.0))
    assert found.min() >= 2 / 3 and np.mean(np.log(found * 1.5)) == pytest.approx(1 / 3, rel=0.02)


def test_measured_times_come_as_often_as_they_were_measured():
    values, counts = np.unique(draws(noise.measured([3.0, 4.0, 4.0, 9.0])), return_counts=True)
    assert values * 5 == pytest.approx([3.0, 4.0, 9.0]) and counts / DRAWS == pytest.approx([0.25, 0.5, 0.25], abs=0.01)


def test_transient_stragglers_last_as_long_as_they_say():
    found = draws(noise.transient(3.0, lasts=4, between=12)) == 3.0
    assert np.mean(found) == pytest.approx(4 / 16, abs=0.01)
    runs = [(slow, len(list(group))) for slow, group in groupby(found)][1:-1]
    for state, mean in ((True, 4), (False, 12)):
        lengths = [length for slow, length in runs if slow == state]
        assert np.mean(lengths) == pytest.approx(mean, rel=0.05) and min(lengths) == 1
    begins = [noise.transient(3.0, lasts=4, between=12).factor(rank, 0)(0) == 3.0 for rank in range(2000)]
    assert np.mean(begins) == pytest.approx(4 / 16, abs=0.04)  # in its steady state from the beginning


def test_a_named_straggler_is_slow_when_it_is_said_to_be():
    found = draws(noise.slow({1: 4.0}, steps=range(5, 9)), rank=1, steps=20)
    assert list(np.flatnonzero(found == 4.0)) == [5, 6, 7, 8] and set(found) == {1.0, 4.0}
    assert set(draws(noise.slow({1: 4.0}), rank=1, steps=20)) == {4.0}
    assert set(draws(noise.slow({1: 4.0}), rank=0, steps=20)) == {1.0}


def test_f11_devices_of_one_kind_differ_for_good():
    factors = np.array([draws(noise.silicon(0.02), rank, steps=3) for rank in range(4000)])
    assert np.all(factors == factors[:, :1])
    assert np.mean(factors) == pytest.approx(1, abs=2e-3) and np.std(factors) == pytest.approx(0.02, rel=0.05)


# ---------------------------------------------------------------- luck


@pytest.mark.parametrize("name", LAWS)
@settings(max_examples=10, deadline=None)
@given(rank=st.integers(0, 2000), seed=st.integers(0, 10**6), order=st.permutations(range(6)))
def test_luck_depends_on_seed_and_rank_alone(name: str, rank: int, seed: int, order: list[int]):
    """Whoever asks first, however often, and whoever else draws: a step's factor is the same."""
    law, first = LAWS[name], {}
    other, again = law.factor(rank + 1, seed), law.factor(rank, seed)
    for step in order:
        other(step)
        first[step] = again(step)
    assert [first[step] for step in range(6)] == list(draws(law, rank, seed, 6))
    assert [again(step) for step in range(6)] == list(draws(law, rank, seed, 6))


@pytest.mark.parametrize("name", sorted(LAWS.keys() - {"fixed", "slow", "for a while", "silicon"}))
def test_ranks_and_seeds_do_not_share_their_luck(name: str):
    found = [draws(LAWS[name], rank, seed, 2000) for rank in (0, 3) for seed in (0, 1)]
    spread = np.corrcoef(found) - np.eye(4)
    assert np.abs(spread).max() < (0.2 if name == "transient" else 0.1)


@pytest.mark.parametrize("name", ["exponential", "normal", "pareto", "measured"])
def test_what_is_drawn_per_instruction_is_drawn_for_each(name: str):
    kinds = {
        "exponential": noise.exponential,
        "normal": lambda per: noise.normal(0.1, per),
        "pareto": lambda per: noise.pareto(3.0, per),
        "measured": lambda per: noise.measured([1, 2, 3], per),
    }
    each, one = (kinds[name](per=per).factor(0, 0) for per in ("instruction", "step"))
    assert len({each(7) for _ in range(50)}) > 1 and len({one(7) for _ in range(50)}) == 1


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("fewer, more", [(3, 4), (5, 16)])
def test_adding_a_rank_changes_nobody_s_times(name: str, fewer: int, more: int):
    model = sim.Model.of_times(blocks=2)
    runs = [
        sim.simulate(sim.DataParallel(), model, sim.cluster("ideal", ranks=ranks), steps=8, noise=LAWS[name])
        for ranks in (fewer, more)
    ]
    times = [[busy for _, busy in zip(range(fewer), run.busy)] for run in runs]
    assert times[0] == pytest.approx(times[1], rel=1e-12)


# ---------------------------------------------------------------- F9: twice the work


def test_f9_the_first_of_two_exponential_copies_takes_half_the_time():
    for copies in (1, 2, 4):
        found = draws(noise.duplicated(noise.exponential(), copies))
        assert np.mean(found) == pytest.approx(1 / copies, rel=0.02) == pytest.approx(np.std(found), rel=0.04)


@pytest.mark.parametrize("tail", [1.5, 3.0])
def test_f9_the_first_of_two_heavy_tails_has_twice_the_index(tail: float):
    """(tail-1)/tail is the least of both: the mean of the smaller one is that times 2 tail/(2 tail - 1)."""
    found = draws(noise.duplicated(noise.pareto(tail)))
    least = (tail - 1) / tail
    assert np.mean(np.log(found / least)) == pytest.approx(1 / (2 * tail), rel=0.02)
    assert np.mean(found) == pytest.approx(least * 2 * tail / (2 * tail - 1), rel=0.02)


def test_f9_duplicates_of_a_strategy():
    """All computation done twice: a synchronous step of N exponential workers takes H(N)/2."""
    cluster, law = sim.cluster("ideal", ranks=8), noise.duplicated(noise.exponential())
    run = sim.simulate(sim.DataParallel(), sim.Model.of_times(1, 0.25, 0.75), cluster, steps=3000, noise=law)
    assert run.makespan / run.steps == pytest.approx(theory.harmonic(8) / 2, rel=0.02)


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: noise.normal(0.5), "cv is at most 1/3"),
        (lambda: noise.normal(-0.1), "at least 0"),
        (lambda: noise.pareto(1.0), "above 1"),
        (lambda: noise.measured([]), "at least one"),
        (lambda: noise.measured([0.0, 0.0]), "not all 0"),
        (lambda: noise.measured([1.0, -1.0]), "at least 0"),
        (lambda: noise.measured(3.0), "a list of times"),
        (lambda: noise.transient(0.0, 1, 1), "above 0"),
        (lambda: noise.transient(3.0, 0.5, 1), "at least 1"),
        (lambda: noise.silicon(1.0), "use gamma or lognormal"),
        (lambda: noise.slow({0: 2.0}, steps=[-1]), "at least 0"),
        (lambda: noise.slow({0: 2.0}, steps=3), "the numbers of some steps"),
        (lambda: noise.duplicated(noise.gamma(1.0), copies=0), "at least 1"),
        (lambda: noise.duplicated(2.0), "a law such as"),
        (lambda: noise.gamma(1.0, per="block"), "per 'step' or per 'instruction'"),
        (lambda: noise.Noise().factor(0, 0), None),
    ],
)
def test_what_is_wrong_with_a_law_is_said(make: object, said: str | None):
    with pytest.raises(NotImplementedError if said is None else ValueError, match=said):
        make()  # type: ignore[operator]


@pytest.mark.parametrize("wrap", [lambda law: law, lambda law: noise.gamma(4.0) * law, noise.duplicated])
def test_slow_ranks_that_are_not_there_are_refused(wrap):
    cluster, model = sim.cluster("ideal", ranks=4), sim.Model.of_times()
    assert sim.simulate(sim.DataParallel(), model, cluster, steps=1, noise=wrap(noise.slow({3: 2.0}))).makespan > 0
    with pytest.raises(ValueError, match="ranks are numbered 0 to 3; got 99"):
        sim.simulate(sim.DataParallel(), model, cluster, steps=1, noise=wrap(noise.slow({0: 2.0, 99: 2.0})))
