"""The report on this machine: profiles, predictions, rows, and, where networks can be made, the kernel's own counters.

Times on a busy machine are whatever they are; what is held here are laws that hold at any speed.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from cases import ALL

import lab
import simulator as sim
from lab.measuring import Costs
from lab.prediction import Here, predict
from lab.profiling import Profile, profile
from lab.truth import here
from lab.truth.here import report, shaped
from lab.truth.here.cells import Cell, cells, distinct, rows_of, workload
from lab.truth.here.host import Task
from lab.truth.here.namespaces import ForbiddenError, hosts
from lab.truth.here.observing import Machine, Watch, observe, own_seconds, steady, undisturbed
from lab.truth.here.rows import Row, Store
from simulator.metrics import COMPUTATION
from simulator.spans import kind

MLP = sim.problem("digits-mlp", hidden=8, batch=12)
PAUSE = 0.02


def pause() -> tuple[()]:
    """Takes its time."""
    time.sleep(PAUSE)
    return ()


@dataclass(frozen=True)
class Pausing(sim.Layer):
    """Every update is followed by a pause."""

    def rules(self, me):
        def then_pause(update):
            yield update
            yield sim.Compute(pause)

        return {sim.Update: then_pause}


def known(ranks: int, seconds: float) -> Profile:
    """Every Forward takes so long, every Backward twice that."""
    each = {f"Forward {block} mb0": seconds for block in range(4)}
    each |= {f"Backward {block} mb0": 2 * seconds for block in range(4)}
    return Profile((each,) * ranks)


@pytest.fixture(scope="module")
def measured() -> Profile:
    return profile(sim.stack(sim.DataParallel(), Pausing()), MLP, ranks=2, steps=4, measuring=1)


# ---------------------------------------------------------------- profiles and predictions


def test_a_profile_has_every_computation_of_the_program(measured: Profile):
    listed = sim.simulate(sim.stack(sim.DataParallel(), Pausing()), MLP, sim.cluster("ideal", ranks=2), steps=1)
    for rank in range(2):
        computed = {text for text in listed.instructions[rank, "compute"] if kind(text) in COMPUTATION}
        assert computed == set(measured.seconds[rank])
        assert all(seconds > 0 for seconds in measured.seconds[rank].values())


def test_a_profile_times_the_maths_of_a_program_of_ones_own(measured: Profile):
    assert measured.seconds[0]["Compute pause"] >= PAUSE
    assert measured.seconds[0]["Forward 0 mb0"] < measured.seconds[0]["Compute pause"]


@pytest.mark.parametrize("ranks, cores, slower", [(2, 2, 1.0), (4, 4, 1.0), (4, 2, 2.0), (4, 1, 4.0)])
def test_a_prediction_on_a_free_network_is_the_closed_form(ranks: int, cores: int, slower: float):
    machine = Here(sim.cluster("ideal", ranks=ranks), cores)
    run = predict(sim.DataParallel(), MLP, machine, known(ranks, 1.0), steps=5)
    assert run.step_times == pytest.approx([12.0 * slower] * 5, rel=1e-9)
    assert run.clock == "virtual" and run.ranks == ranks


def test_a_prediction_is_that_of_simulate_where_cores_are_enough():
    strategy = sim.Pipeline("1f1b", microbatches=2)
    model = sim.Model.of_times(blocks=4, forward=1.0, backward=2.0)
    cluster = sim.cluster("ideal", ranks=2)
    each = {f"{what} {block} mb{part}": s for what, s in (("Forward", 1.0), ("Backward", 2.0)) for block in range(4)
            for part in range(2)}  # fmt: skip
    run = predict(strategy, MLP, Here(cluster, 2), Profile((each, each)), steps=3)
    assert run.makespan == pytest.approx(sim.simulate(strategy, model, cluster, steps=3).makespan, rel=1e-12)


@pytest.mark.parametrize("strategy", [sim.DataParallel(), sim.ParameterServer(), sim.Pipeline("1f1b", 2)], ids=str)
def test_a_prediction_that_learns_gives_what_simulate_gives(strategy: sim.Order | sim.Layer):
    cluster = sim.Cluster.flat(4, 1e9, 1e-4)
    run = predict(strategy, MLP, Here(cluster, 2, Costs(copying=0.5)), known(4, 1e-3), steps=3, learn=True)
    same = sim.simulate(strategy, MLP, cluster, steps=3)
    assert run.losses == pytest.approx(same.losses, rel=1e-6) and run.bytes_sent == same.bytes_sent
    for name, values in same.parameters.items():
        assert run.parameters[name] == pytest.approx(values, rel=1e-4, abs=1e-6)


def test_an_instruction_costs_what_an_empty_one_costs():
    machine = Here(sim.cluster("ideal", ranks=2), 2, Costs(instruction=0.5))
    run = predict(sim.DataParallel(), MLP, machine, Profile(({}, {})), steps=2)
    computed = [text for text in run.instructions[0, "compute"] if kind(text) in COMPUTATION]
    assert run.makespan == pytest.approx(0.5 * len(computed), rel=1e-9)


def test_a_profile_belongs_to_a_number_of_ranks():
    with pytest.raises(ValueError, match="as many ranks"):
        predict(sim.DataParallel(), MLP, Here(sim.cluster("ideal", ranks=4), 2), known(2, 1.0))


def test_what_is_predicted_is_what_runs(measured: Profile):
    strategy = sim.stack(sim.DataParallel(), Pausing())
    wall = lab.execute(strategy, MLP, ranks=2, steps=4, progress=False)
    predicted = predict(strategy, MLP, Here(sim.Cluster.flat(2, 1e9, 1e-4), 2, Costs(1e-5)), measured, steps=4)
    assert predicted.instructions == wall.instructions and predicted.bytes_sent == wall.bytes_sent
    assert steady(wall) >= PAUSE and steady(predicted) >= PAUSE


# ---------------------------------------------------------------- observing


def test_runs_go_on_until_two_are_alike():
    asked: list[int] = []
    run = sim.simulate(sim.DataParallel(), sim.Model.of_times(blocks=2), sim.cluster("ideal", ranks=2), steps=6)

    def execute() -> sim.Run:
        asked.append(1)
        return run

    found = observe(execute, most=3)
    assert 2 <= len(asked) <= 3 and found.seconds == pytest.approx(6.0) and found.spread == 0.0
    assert found.stated == 0.0 and found.machine.busy >= 0.0


@pytest.mark.parametrize("idle, attempts", [([True], 1), ([False, True], 2), ([False] * 5, 3)])
def test_what_was_disturbed_is_measured_again(monkeypatch: pytest.MonkeyPatch, idle: list[bool], attempts: int):
    moments, asked = iter(idle), list[int]()
    monkeypatch.setattr(Watch, "stop", lambda _: Machine(0.0, 0.0, 0.0 if next(moments) else 0.5))
    found, calm = undisturbed(lambda: asked.append(1) or len(asked), most=3)
    assert found == len(asked) == attempts and calm is (attempts < 3)


def test_ones_own_work_counts_as_ones_own():
    watch, before, began = Watch(), own_seconds(), time.monotonic()
    matrix = torch.ones(64, 64)
    while own_seconds() < before + 0.4:
        matrix = matrix @ matrix * 0.01
    cores, seconds = os.cpu_count() or 1, time.monotonic() - began
    assert watch.stop().busy <= cores - 0.3 / seconds  # in ticks of 10 ms


# ---------------------------------------------------------------- cells, rows, report


def test_the_table_gives_each_strategy_once():
    strategies = distinct(ALL)
    texts = {str(sim.stack(row.strategy)) for row in ALL}
    assert {str(sim.stack(strategy)) for strategy in strategies.values()} == texts and len(strategies) == len(texts)
    assert "sharded-3" in strategies  # and not the name of that row with another problem
    assert {row.id for row in rows_of("tests.cases:ALL")} == {row.id for row in ALL}


@pytest.mark.parametrize("table", ["tests.cases", "tests.cases:NONE", "nowhere:ALL", ""])
def test_a_table_that_is_not_there_is_refused(table: str):
    with pytest.raises(ValueError, match="module:attribute"):
        rows_of(table)


def test_cells_say_why_a_strategy_does_not_run():
    strategies = {"single": sim.Single(), "data": sim.DataParallel()}
    found = {cell.name: cell.refused for cell in cells(strategies, ["digits-mlp"], [2])}
    assert found["data"] == "" and "1 rank" in found["single"]
    with pytest.raises(ValueError, match="data"):
        cells(strategies, only=["dato"])
    assert workload("digits-mlp hidden=9").model().parameters == sim.problem("digits-mlp", hidden=9).model().parameters


ROW = Row("loopback", "digits-mlp", 2, "data", "DataParallel()", 0.011, 0.01, 0.02, 0.1, True, 0.5, 0.0, 1e6, 1.01e6)


def test_rows_survive_their_file(tmp_path: Path):
    store = Store(tmp_path / "some" / "here.csv")
    without = Row("loopback", "digits-mlp", 2, "single", "Single()", remark='runs on 1 rank, "not" on 2')
    later = replace(ROW, measured=0.02, idle=False)
    for row in (ROW, without, later):
        store.add(row)
    assert store.read() == [later, without]
    assert ROW.error == pytest.approx(0.1) and ROW.uncounted == pytest.approx(0.01) and without.error is None


def test_a_report_lists_every_row_and_what_was_busy(tmp_path: Path):
    busy = replace(ROW, name="server", strategy="ParameterServer()", idle=False, predicted=0.005)
    without = Row("loopback", "digits-mlp", 2, "single", "Single()", remark="runs on 1 rank")
    text = report.write([ROW, busy, without], tmp_path, 57, {"1gbit": "not allowed"}).read_text()
    assert "Of the 57 strategies of the table 3 are here" in text
    assert "11 / 10 +10%" in text and "5 / 10 -50%†" in text and "runs on 1 rank" in text and "not allowed" in text
    assert "mean absolute error 10.0%" in text and "+1.00%" in text  # of the idle row; its bytes
    assert (tmp_path / "here-loopback.png").stat().st_size > 1000


def test_what_is_measured_is_not_measured_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    asked = ["--networks", "loopback", "--problems", "digits-mlp", "--ranks", "2", "--only", "single"]
    assert here.main([*asked, "--out", str(tmp_path)]) == 0
    first = (tmp_path / "here.csv").read_text()
    assert here.main([*asked, "--out", str(tmp_path)]) == 0
    assert (tmp_path / "here.csv").read_text() == first and "1 rank" in (tmp_path / "here.md").read_text()
    assert here.main(["--table", "nowhere:ALL", "--out", str(tmp_path)]) == 2
    assert "module:attribute" in capsys.readouterr().err


# ---------------------------------------------------------------- slow networks


@pytest.mark.slow
def test_the_kernel_counts_the_bytes_that_bind_on_a_slow_network(tmp_path: Path):
    """Stated = counted within 2 % from 1 MiB up; and nobody is faster than the link (A12)."""
    cell = Cell("data", sim.DataParallel(), "digits-mlp hidden=384", 2)
    try:
        with (
            hosts(2, shaped.RATES["100mbit"]) as names,
            shaped.started(Task((cell,), 2, 1), tmp_path, names) as processes,
        ):
            line = processes[0].stdout.readline()  # type: ignore[union-attr]
    except ForbiddenError as reason:
        pytest.skip(str(reason))
    assert line, (tmp_path / "errors-0").read_text()
    found = json.loads(line)
    print(found)
    assert found["stated"] >= 2**20
    assert found["counted"] == pytest.approx(found["stated"], rel=0.02)
    assert found["seconds"] >= 0.95 * found["stated"] / 2 / 12.5e6
    left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert not any(name in left for name in names)
