"""Slips of the pen: names in the place of objects, other spellings of names, lists without anything in them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

import lab
import simulator as sim

CLUSTER = sim.cluster("ideal", ranks=2)
MODEL = sim.Model.of_times(blocks=2)
NAME = r'got \'gpt2-small\': write model\("gpt2-small"\)'
CLASS = r"write DataParallel\(\), with brackets"


@pytest.mark.parametrize(
    ("do", "says"),
    [
        (lambda: sim.simulate(sim.DataParallel(), "gpt2-small", CLUSTER), NAME),
        (lambda: sim.memory(sim.DataParallel(), "gpt2-small", 2), NAME),
        (lambda: sim.listing(sim.DataParallel(), 2, "gpt2-small"), NAME),
        (lambda: sim.validate(sim.DataParallel(), 2, "gpt2-small"), NAME),
        (lambda: sim.Job(sim.DataParallel(), "gpt2-small", (0, 1)), NAME),
        (lambda: sim.Job(sim.DataParallel, MODEL, (0, 1)), CLASS),
        (lambda: sim.simulate(sim.DataParallel, MODEL, CLUSTER), CLASS),
        (lambda: sim.simulate("DataParallel", MODEL, CLUSTER), CLASS),
        (lambda: sim.stack(sim.Single(), sim.DataParallel), CLASS),
        (lambda: lab.execute(sim.DataParallel(), "digits-mlp", ranks=2), r'write sim.problem\("digits-mlp"\)'),
    ],
)
def test_a_name_in_the_place_of_what_it_names_is_told_what_to_write(do, says):
    with pytest.raises(ValueError, match=says):
        do()


def test_names_are_known_however_they_are_spelled():
    assert sim.cluster("DGX_A100", nodes=1).ranks == sim.cluster("dgx-a100", nodes=1).ranks
    node, model = sim.cluster("dgx-a100", nodes=1), sim.model("gpt2-small")
    runs = [
        sim.simulate(sim.DataParallel(), model, node, steps=1, batch=8, dtype=dtype, fold=fold)
        for dtype, fold in (("fp16", True), ("FP16", np.bool_(True)), ("float16", True), (np.float16, True))
    ]
    assert all(run == runs[0] for run in runs)
    assert runs[0].carbon("France") == runs[0].carbon("france")
    with pytest.raises(ValueError, match=r"no grid is called 'Atlantis'"):
        runs[0].carbon("Atlantis")


# ---------------------------------------------------------------- sweeps


@pytest.mark.parametrize("empty", ["strategies", "models", "clusters"])
def test_a_sweep_over_nothing_is_refused(empty):
    given = dict(strategies="DataParallel", models=MODEL, clusters=CLUSTER) | {empty: []}
    with pytest.raises(ValueError, match=rf"every list of a sweep has something in it; got {empty}=\[\]"):
        sim.sweep(**given)


def test_a_cluster_that_cannot_be_is_a_row_with_its_reason():
    table = sim.sweep("DataParallel", MODEL, "dgx-a100", nodes=[1, 0], steps=1, progress=False)
    assert list(table.nodes) == [1, 0] and list(table.error) == ["", "nodes is a whole number, at least 1; got nodes=0"]
    assert table.step_time.notna().tolist() == [True, False]
    table = sim.sweep("DataParallel", MODEL, "dgx-a100", ranks=[8, 12], steps=1, progress=False)
    assert list(table.ranks) == [8, 12] and table.error[0] == "" and "12" in table.error[1]
    with pytest.raises(ValueError, match=r"nodes is a whole number"):  # where no row could have a number
        sim.sweep("DataParallel", MODEL, "dgx-a100", nodes=[0], progress=False)


@pytest.mark.parametrize("knob", [{"detail": "mesages"}, {"dtype": "nonsense"}, {"recompute": ["none", "fll"]}])
def test_a_sweep_refuses_words_that_nobody_knows(knob):
    with pytest.raises(ValueError, match=r"(mesages|nonsense|fll)"):
        sim.sweep("DataParallel", MODEL, CLUSTER, progress=False, **knob)


def test_an_interval_of_times_does_not_reach_below_zero():
    """Two seeds of gamma(1): Student's t of one degree of freedom is 12.7."""
    table = sim.sweep("DataParallel", MODEL, CLUSTER, noise=sim.noise.gamma(1), seeds=2, steps=1, progress=False)
    low, mean, high = (float(table[name][0]) for name in ("step_time_low", "step_time", "step_time_high"))
    assert low == 0 < mean and high > 2 * mean


# ---------------------------------------------------------------- links


@pytest.mark.parametrize(
    ("graph", "flows", "says"),
    [
        (CLUSTER, [(0, 1)], "graph is a networkx graph, such as that of a cluster: cluster.graph"),
        ([(0, 1)], [(0, 1)], "graph is a networkx graph"),
        (nx.MultiGraph([(0, 1)]), [(0, 1)], "one link from node to node; got a multigraph"),
        (nx.Graph([(0, 1, {"bandwidth": 1.0})]), [[]], "got none: name its source and its target"),
        (nx.Graph([(0, 1, {"bandwidth": 1.0})]), [5], "a flow is a list of the nodes"),
        *[
            (nx.Graph([(0, 1, {"bandwidth": wrong})]), [(0, 1)], "bytes per second above 0")
            for wrong in (-1.0, 0.0, float("nan"), None)
        ],
    ],
)
def test_fair_rates_are_of_graphs_and_flows(graph, flows, says):
    with pytest.raises(ValueError, match=says):
        sim.fair_rates(graph, flows)


def test_auto_takes_links_between_all_of_a_graph_of_ones_own():
    """A complete graph of n: everybody gives 1/n of the value to everybody, twice; a ring passes (n-1)/n, twice."""
    graph, n, size, bandwidth = nx.complete_graph(8), 8, 1e9, 1e9
    nx.set_edge_attributes(graph, {edge: {"bandwidth": bandwidth, "latency": 0.0} for edge in graph.edges})
    model = sim.Model.of_times(blocks=1, forward=0, backward=0, parameters=int(size / 4))
    seconds = {}
    for algorithm in ("ring", "direct", "auto"):
        cluster = sim.Cluster.from_graph(graph, algorithm=algorithm)
        seconds[algorithm] = sim.simulate(sim.DataParallel(), model, cluster, steps=1).makespan
    assert seconds["direct"] == pytest.approx(2 * size / n / bandwidth) == seconds["auto"]
    assert seconds["ring"] == pytest.approx(2 * (n - 1) / n * size / bandwidth)
    graph.remove_edge(0, 1)
    assert not sim.Cluster.from_graph(graph).wiring.direct


# ---------------------------------------------------------------- words


def test_one_thing_is_not_called_several():
    with pytest.raises(ValueError, match=r"^batch belongs to a Model"):
        sim.simulate(sim.DataParallel(), sim.problem("digits-mlp"), CLUSTER, batch=8)
    with pytest.raises(ValueError, match=r"^batch, dtype belong to a Model"):
        sim.simulate(sim.DataParallel(), sim.problem("digits-mlp"), CLUSTER, batch=8, dtype="bf16")
    assert str(sim.cluster("ring", ranks=1)).startswith("1 rank in a ring")
    assert str(CLUSTER.slowed({})) == str(CLUSTER)
    run = sim.simulate(sim.DataParallel(), MODEL, CLUSTER, steps=2)
    assert "from 1 step after the first" in run.extrapolate(steps=10).basis


def test_the_summary_has_what_the_fullest_rank_holds_and_what_hardware_does():
    cluster, model = sim.cluster("dgx-a100", nodes=1), sim.model("gpt2-small")
    run = sim.simulate(sim.DataParallel(), model, cluster, steps=1, batch=8, recompute="full")
    assert run.summary()["hfu"] == run.hfu > run.mfu
    assert run.summary()["peak_memory"] == max(run.peak_memory)
    server = sim.simulate(sim.ParameterServer(), MODEL, sim.cluster("ideal", ranks=3), steps=1)
    assert "peak_memory" not in server.summary() or server.summary()["peak_memory"] == max(server.peak_memory)


def test_the_readme_counts_the_catalogue():
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    told = re.search(r"(\d+) accelerators,\s+(\d+) network cards and (\d+) buses", text)
    kinds = Counter(sim.devices().kind)
    cards, buses = kinds.pop("nic"), kinds.pop("bus")
    assert told and list(map(int, told.groups())) == [sum(kinds.values()), cards, buses]
    assert f"{len(sim.models())} models (`sim.models()`)" in text
