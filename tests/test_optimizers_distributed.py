"""Every optimizer learns the same on one rank and on several, on both clocks; what needs the whole says so."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from common.runs import apart

import lab
import simulator as sim
from simulator.rules import (
    LAMB,
    LARS,
    SGD,
    Adam,
    Clipped,
    DelayCompensated,
    FixedScale,
    Groups,
    LossScale,
    Momentum,
    Rule,
    Scaled,
    Scheduled,
    StalenessAware,
)
from simulator.schedules import Cosine, Warmup

RULES: dict[str, Rule] = {
    "lars": LARS(1.0, trust=0.02, weight_decay=1e-3),
    "lamb": LAMB(0.02, weight_decay=1e-2),
    "scheduled": Scheduled(Momentum(0.3), Warmup(2).then(Cosine(5))),
    "clipped by norm": Clipped(SGD(0.3), norm=0.1),
    "clipped by value": Clipped(Momentum(0.3), value=0.01),
    "scaled": Scaled(Momentum(0.3), LossScale(4.0, interval=2)),
    "fixed scale": Scaled(Adam(0.01), FixedScale(128.0)),
    "groups": Groups({0: SGD(0.05), "*.bias": Adam(0.01)}, default=LARS(1.0, trust=0.02)),
    "all at once": Scaled(
        Scheduled(Clipped(Groups({"*.weight": LAMB(0.02)}, default=SGD(0.2)), value=0.05), Warmup(3)), FixedScale(8.0)
    ),
    "stale": StalenessAware(Scheduled(DelayCompensated(Groups({1: LAMB(0.02)}, default=SGD(0.1))), Warmup(3))),
}
STEPS, SEED = 4, 1

rules = pytest.mark.parametrize("name", RULES)


@cache
def problem() -> sim.Problem:
    """Digits in double precision, with batches that do not split evenly."""
    return sim.problem("digits-mlp", dtype="float64", hidden=16, batch=25)


@cache
def learned(strategy, ranks: int, what: sim.Problem | None = None) -> dict[str, np.ndarray]:
    """The parameters that the virtual clock ends with."""
    run = sim.simulate(strategy, what or problem(), sim.cluster("ideal", ranks=ranks), steps=STEPS, seed=SEED)
    return run.parameters


def single(name: str) -> dict[str, np.ndarray]:
    """The truth."""
    return learned(sim.Single(rule=RULES[name]), 1)


@rules
def test_the_single_process_learns(name):
    assert apart(single(name), problem().parameters(SEED)) > 1e-3


@rules
@pytest.mark.parametrize("ranks", [2, 3])
def test_data_parallel_is_the_single_process(name, ranks):
    assert apart(learned(sim.DataParallel(rule=RULES[name]), ranks), single(name)) < 1e-9


@pytest.mark.parametrize("name", set(RULES) - {"scaled"})
def test_a_parameter_server_is_the_single_process(name):
    assert apart(learned(sim.ParameterServer(rule=RULES[name]), 3), single(name)) < 1e-9


def test_the_workers_of_a_server_cannot_follow_a_scale_that_changes():
    with pytest.raises(ValueError, match=r"workers do not see how the scale of a server changes.*FixedScale"):
        learned(sim.ParameterServer(rule=RULES["scaled"]), 3)


@pytest.mark.parametrize("name", set(RULES) - {"clipped by norm"})
def test_a_pipeline_is_the_single_process(name):
    assert apart(learned(sim.Pipeline("1f1b", microbatches=2, rule=RULES[name]), 2), single(name)) < 1e-9


def test_the_stages_of_a_pipeline_have_norms_of_their_own():
    """So it clips each stage less than the whole; two clipped groups of the single process are the same."""
    clipped = Clipped(SGD(0.3), norm=0.1)
    piped = learned(sim.Pipeline("gpipe", microbatches=2, rule=clipped), 2)
    assert apart(piped, single("clipped by norm")) > 1e-3
    stages = Groups({"[01].*": clipped}, default=clipped)
    assert apart(piped, learned(sim.Single(rule=stages), 1)) < 1e-9


@rules
def test_real_ranks_learn_what_virtual_ones_do(name):
    run = lab.execute(
        sim.DataParallel(rule=RULES[name]), problem(), ranks=2, steps=STEPS, seed=SEED, timeout=120, progress=False
    )
    assert apart(run.parameters, single(name)) < 1e-9


@pytest.mark.parametrize("name", ["lars", "groups", "all at once"])
def test_real_stages_learn_what_virtual_ones_do(name):
    strategy = sim.Pipeline("1f1b", microbatches=2, rule=RULES[name])
    run = lab.execute(strategy, problem(), ranks=2, steps=STEPS, seed=SEED, timeout=120, progress=False)
    assert apart(run.parameters, single(name)) < 1e-9


def test_a_scale_is_taken_out_again():
    """Powers of two change no digit, so a scaled loss and its divided gradients give the very same numbers."""
    plain, scaled = (learned(sim.DataParallel(rule=rule), 2) for rule in (SGD(0.3), Scaled(SGD(0.3))))
    assert apart(plain, scaled) == 0


# ---------------------------------------------------------------- pieces


@pytest.mark.parametrize("name", ["lars", "lamb", "clipped by norm", "groups"])
def test_a_piece_has_no_norm_of_the_whole(name):
    with pytest.raises(ValueError, match=r"needs norms of whole tensors or vectors.*take an elementwise rule"):
        learned(sim.ParameterServer(servers=2, rule=RULES[name]), 4)


def test_groups_of_elementwise_rules_work_on_pieces():
    rule = Groups({0: SGD(0.05), "*.bias": Adam(0.01)}, default=Momentum(0.2))
    assert rule.elementwise
    for servers in (1, 2, 3):
        served = learned(sim.ParameterServer(servers=servers, rule=rule), servers + 2)
        assert apart(served, learned(sim.Single(rule=rule), 1)) < 1e-9


def test_frozen_parameters_stay_and_blocks_without_any_are_no_matter():
    import torch

    def blocks() -> list[torch.nn.Module]:
        made = [torch.nn.Flatten(), torch.nn.Linear(64, 8), torch.nn.Tanh(), torch.nn.Linear(8, 10)]
        made[1].weight.requires_grad_(False)
        return made

    own = sim.Problem(blocks, problem().loss, problem().data, dtype="float64")
    for rule in (LARS(1.0, trust=0.1, weight_decay=0.1), Groups({1: Adam(0.1, weight_decay=0.1)}, default=LAMB(0.1))):
        truth = learned(sim.Single(rule=rule), 1, own)
        assert (truth["1.weight"] == own.parameters(SEED)["1.weight"]).all()
        assert (truth["1.bias"] != own.parameters(SEED)["1.bias"]).all()
        for stages in (2, 3, 4):
            piped = learned(sim.Pipeline("gpipe", microbatches=2, rule=rule), stages, own)
            assert apart(piped, truth) < 1e-9


def test_a_key_that_fits_nothing_is_an_error_before_anything_runs():
    rule = Groups({"9.*": SGD(0.1)}, default=SGD(0.1))
    with pytest.raises(ValueError, match=r"every key fits a parameter; got '9\.\*'; there are 0\.0\.weight"):
        learned(sim.DataParallel(rule=rule), 2)
