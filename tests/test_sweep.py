"""Sweeps: the product of lists as rows, kept by content, gone on with after an interruption."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import networkx as nx
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator as sim
from simulator.whatif.cache import Cache
from simulator.whatif.content import digest
from simulator.whatif.interval import interval, student

MODEL = sim.Model.of_times(blocks=2, parameters=1000)


def ideal(ranks):
    return sim.cluster("ideal", ranks=ranks)


# ---------------------------------------------------------------- rows


def test_a_row_is_what_simulate_says():
    """Every number is that of the run, per step."""
    model, cluster = sim.model("gpt2-small"), sim.cluster("dgx-a100", ranks=2)
    table = sim.sweep(sim.DataParallel(), model, cluster, batch=[4, 8], steps=3)
    assert list(table.batch) == [4, 8]
    for _, row in table.iterrows():
        run = sim.simulate(sim.DataParallel(), model, cluster, steps=3, batch=row.batch)
        assert row.step_time == run.makespan / 3
        assert row.throughput == run.throughput
        assert (row.mfu, row.hfu, row.bubble) == (run.mfu, run.hfu, run.bubble)
        assert row.cost == pytest.approx(run.cost() / 3) and row.energy == pytest.approx(run.energy / 3)
        assert row.bytes_sent == max(run.bytes_sent) / 3 and row.peak_memory == max(run.peak_memory)
        assert row.error == ""


def test_there_is_a_row_for_every_combination():
    table = sim.sweep(
        ["Single", sim.DataParallel()], [MODEL], ["ideal"], ranks=[1, 2], recompute=[None, "full"], dtype=None, steps=1
    )
    assert len(table) == 8
    assert [tuple(row) for row in table[["strategy", "ranks"]].drop_duplicates().values] == [
        ("Single()", 1), ("Single()", 2), ("DataParallel()", 1), ("DataParallel()", 2),
    ]  # fmt: skip


def test_devices_and_algorithms_are_lists_too():
    """Of clusters by name and of those that are given; None is what the cluster has."""
    model, pair = sim.model("gpt2-small"), sim.cluster("dgx-a100", ranks=2)
    knobs = dict(device=[None, "h100-sxm"], algorithm=["ring", "tree"], batch=8, steps=1)
    for table in (
        sim.sweep("DataParallel", model, pair, **knobs),
        sim.sweep("DataParallel", model, "dgx-a100", ranks=2, **knobs),
    ):
        own = pair.device.name
        assert list(zip(table.device, table.algorithm)) == list(product([own, "h100-sxm"], ["ring", "tree"]))
        for row in table.itertuples():
            device = None if row.device == own else row.device
            where = sim.cluster("dgx-a100", ranks=2, device=device, algorithm=row.algorithm)
            assert row.step_time == sim.simulate(sim.DataParallel(), model, where, steps=1, batch=8).makespan
    chip = sim.Device("a chip", flops=1e12)
    assert list(sim.sweep("Single", MODEL, ideal(1), device=chip).device) == ["a chip"]


def test_what_cannot_be_is_a_row_with_its_error():
    """It does not divide, does not fit in memory, deadlocks: the sweep goes on."""
    first = [("F", 0), ("B", 0), ("F", 1), ("B", 1)]
    stuck = sim.Pipeline([first, [("F", 1), ("B", 1), ("F", 0), ("B", 0)]], microbatches=2)
    table = sim.sweep(["Single", stuck, "DataParallel"], "gpt3-13b", sim.cluster("dgx-a100", ranks=2), batch=2, steps=1)
    assert list(table.step_time.isna()) == [True, True, True]
    single, deadlock, large = table.error
    assert "1 rank" in single and "B" in deadlock
    assert "GB" in large
    assert sim.sweep("Single", MODEL, ideal(1)).error[0] == ""


def test_unknown_numbers_are_nan():
    """Times without FLOPs have no MFU, devices without a price no cost."""
    table = sim.sweep("Single", MODEL, ideal(1))
    assert math.isnan(table.mfu[0]) and math.isnan(table.cost[0]) and table.step_time[0] == 6.0


@pytest.mark.parametrize(
    ("lists", "told"),
    [
        ({"strategies": "DataParalel"}, "DataParalel"),
        ({"models": "gpt5"}, "gpt5"),
        ({"clusters": "dgx", "ranks": 2}, "dgx"),
        ({"algorithm": ["ring", "rnig"]}, "algorithm is one of .*; got algorithm='rnig'"),
        ({"device": "h100"}, "nothing in the catalogue is called 'h100'"),
        ({"device": 3}, "device is a Device, or the key of one"),
        ({"ranks": [2]}, "has its size"),
        ({"bacth": [2]}, "batch"),
        ({"batch": []}, "batch=[]"),
        ({"seeds": []}, "seeds"),
        ({"jobs": 0}, "jobs"),
        ({"clusters": ["dgx-h100"]}, 'without nodes and ranks: give .*nodes=[1, 2] .* sim.cluster."dgx-h100", nodes=2'),
        ({"clusters": "ideal", "ranks": [None]}, 'such as sim.cluster."ideal", ranks=8'),
        ({"progress": "yes"}, "progress is True, False, or None: in terminals and notebooks; got progress='yes'"),
        ({"seeds": 2.5}, "seeds is a list of seeds, or how many; got seeds=2.5"),
        ({"models": 3}, "models"),
        ({"cache": 3}, "cache"),
    ],
)
def test_mistakes_in_lists_are_errors_at_once(lists, told):
    with pytest.raises(ValueError, match=told.replace("[", r"\[")):
        sim.sweep(**{"strategies": "Single", "models": MODEL, "clusters": ideal(1), **lists})


# ---------------------------------------------------------------- seeds


def test_several_seeds_give_mean_and_interval():
    table = sim.sweep("DataParallel", MODEL, ideal(2), noise=[None, sim.noise.gamma(4)], seeds=[3, 5, 8], steps=1)
    times = [
        sim.simulate(sim.DataParallel(), MODEL, ideal(2), steps=1, seed=seed, noise=sim.noise.gamma(4)).makespan
        for seed in (3, 5, 8)
    ]
    assert list(table.step_time) == pytest.approx([6.0, sum(times) / 3])
    assert table.step_time_low.isna().tolist() == [True, False]
    assert table.step_time_low[1] < min(times) and table.step_time_high[1] > max(times)  # t = 4.3 with three
    assert "peak_memory_low" not in table


def test_the_interval_holds_the_mean_as_often_as_it_says():
    """Of samples from a known law, 95 % of the intervals hold its mean."""
    import random

    draw = random.Random(0).gauss
    bounds = [interval([draw(1.0, 2.0) for _ in range(5)]) for _ in range(2000)]
    assert sum(low <= 1.0 <= high for _, low, high in bounds) / 2000 == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(("freedom", "wanted"), [(1, 12.7062), (2, 4.3027), (5, 2.5706), (10, 2.2281), (100, 1.9840)])
def test_students_t(freedom, wanted):
    assert student(0.95, freedom) == pytest.approx(wanted, abs=1e-4)


# ---------------------------------------------------------------- content


@dataclass(frozen=True)
class Own(sim.Order):
    """An order of one's own."""

    def program(self, me):
        for _ in me.steps():
            yield sim.Forward(0)


def other_own():
    """Another class of the same name."""

    @dataclass(frozen=True)
    class Own(sim.Order):
        def program(self, me):
            for _ in me.steps():
                yield sim.Forward(1)

    return Own


def graph(bandwidth=10.0):
    made = nx.DiGraph()
    made.add_edge(0, 1, bandwidth=bandwidth, latency=0.0)
    made.add_edge(1, 0, bandwidth=10.0, latency=0.0)
    return made


SEVERAL = [
    sim.model("gpt2-small"),
    sim.model("gpt2-small", batch=2),
    sim.model("gpt2-small", dtype="fp32"),
    sim.model("gpt2-medium"),
    sim.Model.of_times(blocks=2),
    sim.Model.of_times(blocks=2, backward=2.5),
    sim.cluster("dgx-a100", nodes=1),
    sim.cluster("dgx-a100", nodes=2),
    sim.cluster("dgx-h100", nodes=1),
    replace(sim.cluster("dgx-h100", nodes=1), algorithm="ring"),
    sim.cluster("fat-tree", ranks=8, seed=0),
    sim.cluster("fat-tree", ranks=8, seed=1),
    sim.Cluster.from_graph(graph()),
    sim.Cluster.from_graph(graph(11.0)),
    sim.DataParallel(),
    sim.DataParallel(bucket_bytes=0),
    sim.stack(sim.DataParallel(), sim.TensorParallel()),
    sim.noise.gamma(4),
    sim.noise.gamma(5),
    Own(),
    other_own()(),
    {"batch": 8},
    {"batch": 16},
    1,
    1.5,
    "1",
]


def test_different_things_have_different_keys():
    assert len({digest(one) for one in SEVERAL}) == len(SEVERAL)


def test_equal_things_have_equal_keys_though_they_were_used():
    """What a cluster and a model remember of being used does not count."""
    model, cluster = sim.model("gpt2-small"), sim.cluster("dgx-a100", ranks=2)
    before = digest(model, cluster)
    sim.simulate(sim.stack(sim.TensorParallel()), model, cluster, steps=1)
    assert digest(model, cluster) == before == digest(sim.model("gpt2-small"), sim.cluster("dgx-a100", ranks=2))


def test_keys_are_the_same_in_every_process():
    code = (
        "import simulator as sim; from simulator.whatif.content import digest;"
        "print(digest(sim.model('gpt2-small'), sim.cluster('dgx-a100', nodes=2), sim.DataParallel(), {'batch': 8},"
        " sim.noise.gamma(4), {'a', 'b', 'c'}))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    here = digest(
        sim.model("gpt2-small"), sim.cluster("dgx-a100", nodes=2), sim.DataParallel(), {"batch": 8},
        sim.noise.gamma(4), {"a", "b", "c"},
    )  # fmt: skip
    assert found == {f"{here}\n"}


def test_what_does_not_tell_its_content_is_refused(tmp_path):
    with open(tmp_path / "file", "w") as file, pytest.raises(ValueError, match="cache=None"):
        digest(file)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=20))
@settings(max_examples=50, deadline=None)
def test_a_copy_has_the_same_key(thing):
    import copy

    assert digest(thing) == digest(copy.deepcopy(thing))


# ---------------------------------------------------------------- the cache


def test_results_are_computed_once(tmp_path):
    folder = tmp_path / "sweeps"
    first = sim.sweep("Single", MODEL, ideal(1), steps=[1, 2], cache=folder)
    second = sim.sweep(["Single", "DataParallel"], MODEL, ideal(1), steps=[1, 2], cache=folder)
    assert first.attrs == {"computed": 2, "found": 0}
    assert second.attrs == {"computed": 2, "found": 2}
    pd.testing.assert_frame_equal(second[:2], first)
    assert not list(folder.glob("*.new"))


def test_damaged_files_are_computed_again(tmp_path):
    first = sim.sweep("Single", MODEL, ideal(1), steps=[1, 2, 3], cache=tmp_path)
    cut, changed, _ = sorted(tmp_path.glob("*.json"))
    cut.write_bytes(cut.read_bytes()[:50])
    kept = json.loads(changed.read_text())
    kept["result"]["numbers"]["step_time"] *= 2
    changed.write_text(json.dumps(kept))
    again = sim.sweep("Single", MODEL, ideal(1), steps=[1, 2, 3], cache=tmp_path)
    assert again.attrs == {"computed": 2, "found": 1}
    pd.testing.assert_frame_equal(again, first)


def test_a_result_of_one_key_is_not_that_of_another(tmp_path):
    cache = Cache(tmp_path)
    cache.keep("a", {"numbers": {}})
    (tmp_path / "a.json").rename(tmp_path / "b.json")
    assert cache.find("b") is None


KILLED = """
import os, sys
import simulator as sim
from simulator.whatif import sweep as module
import simulator.whatif.sweep
answered = sys.modules["simulator.whatif.sweep"].answer
done = []
def answer(case, seed):
    if len(done) == 4:
        print("ready", flush=True)
        import time; time.sleep(60)
    done.append(seed)
    return answered(case, seed)
sys.modules["simulator.whatif.sweep"].answer = answer
sim.sweep("Single", sim.Model.of_times(blocks=2, parameters=1000), sim.cluster("ideal", ranks=1),
          steps=list(range(1, 11)), cache=sys.argv[1])
"""


def test_a_sweep_that_was_killed_goes_on_where_it_ended(tmp_path):
    """Four of ten results are there when the process is killed; six are computed later."""
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.kill()
    table = sim.sweep("Single", MODEL, ideal(1), steps=list(range(1, 11)), cache=tmp_path)
    assert table.attrs == {"computed": 6, "found": 4}
    assert list(table.step_time) == [6.0] * 10


def test_an_interrupt_keeps_what_is_done(tmp_path, monkeypatch):
    module = sys.modules["simulator.whatif.sweep"]
    real, calls = module.answer, []

    def interrupted(case, seed):
        calls.append(seed)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(case, seed)

    monkeypatch.setattr(module, "answer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sim.sweep("Single", MODEL, ideal(1), steps=[1, 2, 3, 4], cache=tmp_path)
    monkeypatch.undo()
    assert sim.sweep("Single", MODEL, ideal(1), steps=[1, 2, 3, 4], cache=tmp_path).attrs["found"] == 2


# ---------------------------------------------------------------- in parallel


def test_processes_and_threads_give_the_same_rows():
    """joblib runs it, on whatever backend its user names."""
    import joblib

    alone = sim.sweep(["Single", "DataParallel"], MODEL, ideal(1), steps=[1, 2])
    with joblib.parallel_config(backend="threading", n_jobs=2):
        threads = sim.sweep(["Single", "DataParallel"], MODEL, ideal(1), steps=[1, 2])
    processes = sim.sweep(["Single", "DataParallel"], MODEL, ideal(1), steps=[1, 2], jobs=2)
    pd.testing.assert_frame_equal(threads, alone)
    pd.testing.assert_frame_equal(processes, alone)


def test_a_backend_that_gives_all_results_together_is_good_too():
    """As joblib's backends for Dask are."""
    import joblib

    class Together(joblib.parallel.ThreadingBackend):
        supports_return_generator = False

    joblib.register_parallel_backend("together", Together)
    with joblib.parallel_config(backend="together", n_jobs=2):
        table = sim.sweep("Single", MODEL, ideal(1), steps=list(range(1, 20)))
    assert list(table.step_time) == [6.0] * 19


def test_the_bar_is_shown_where_asked(capsys):
    sim.sweep("Single", MODEL, ideal(1), progress=True)
    assert "1/1" in capsys.readouterr().err
    sim.sweep("Single", MODEL, ideal(1))
    assert capsys.readouterr().err == ""


def test_a_hundred_rows_take_no_longer_than_their_simulations():
    """What a sweep adds to a row is small beside it: a few milliseconds."""
    began = time.process_time()
    table = sim.sweep("Single", MODEL, ideal(1), steps=list(range(1, 101)))
    assert len(table) == 100 and time.process_time() - began < 10


def test_paths_may_be_paths(tmp_path):
    assert sim.sweep("Single", MODEL, ideal(1), cache=Path(tmp_path) / "a" / "b").attrs["computed"] == 1
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        sim.sweep("Single", MODEL, ideal(1), cache=tmp_path / "file")
