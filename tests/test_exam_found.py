"""What an outside examiner found: slips that were taken, and large plans that were simulated rank by rank."""

import pickle
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import networkx as nx
import pytest

import lab
import simulator as sim
from simulator import Chunk, Named, Params

DEEP = sim.transformer(layers=16, hidden=2048, heads=16, sequence=512, vocab=8000)
SMALL, PAIR = sim.Model.of_times(blocks=2), sim.cluster("ideal", ranks=2)
V100 = "NVIDIA V100 SXM2 16GB has peaks for fp16, fp32, none for 'bf16': give dtype='fp16'"


@pytest.mark.parametrize("data, tensor, pipeline", [(12, 8, 4), (9, 8, 2), (16, 4, 2)])
def test_trees_that_share_links_with_messages_fold(data: int, tensor: int, pipeline: int) -> None:
    """Machines in the middle of a tree send more than those at its ends: they are told apart, and the others fold."""
    strategy = sim.Hybrid(data=data, tensor=tensor, pipeline=pipeline, microbatches=6)
    cluster = sim.cluster("dgx-h100", ranks=data * tensor * pipeline, algorithm="tree")
    knobs = dict(steps=2, batch=data * 6)
    few, all_of_them = (sim.simulate(strategy, DEEP, cluster, fold=fold, **knobs) for fold in (True, False))
    assert len(few.stands_for) < cluster.ranks / 10 and "not folded" not in few.notes
    assert few.makespan == pytest.approx(all_of_them.makespan, rel=1e-9)
    assert few.bytes_sent == pytest.approx(all_of_them.bytes_sent, rel=1e-9)
    assert few.exposed_communication == pytest.approx(all_of_them.exposed_communication, rel=1e-9)


@pytest.mark.parametrize("make", [
    lambda: sim.Seconds(-1.0),
    lambda: sim.Seconds(float("nan")),
    lambda: sim.Flops(-1.0),
    lambda: sim.Measured(()),
    lambda: sim.Measured(((2.0, 1.0), (1.0, 1.0))),
    lambda: sim.Job(sim.DataParallel(), DEEP, (0, 1), steps=0),
    lambda: sim.cluster("torus", shape=4),
    lambda: sim.fair_rates(nx.DiGraph([(0, 1, {"bandwidth": 1.0})]), [[[1], 2]]),
])  # fmt: skip
def test_slips_are_refused(make: object) -> None:
    with pytest.raises(ValueError, match=r"; got|does not"):
        make()  # type: ignore[operator]


# ---------------------------------------------------------------- what is no number, no work, no flag, no name

WRONG: dict[str, Callable[[], object]] = {
    "points": lambda: sim.Measured(5),
    "a point": lambda: sim.Measured((1.0, 2.0)),
    "times below 0": lambda: sim.Measured(((1.0, -1.0),)),
    "skipped": lambda: sim.MatMul(2, 2, 2, skipped="x"),
    "operations": lambda: sim.Operations((5,)),
    "work of a block": lambda: sim.Block(forward=1.0),
    "parts of a block": lambda: sim.Block(parts=(5,)),
    "work of a part": lambda: sim.Part(backward="x"),
    "bytes of a part": lambda: sim.Part(output_bytes=-1.0),
    "routing": lambda: sim.Part(routing=0.5),
    "blocks": lambda: sim.Model("own", 5),
    "a block": lambda: sim.Model("own", (5,)),
    "name of a model": lambda: sim.Model(5, (sim.Block(),)),
    "work of a model": lambda: sim.Model("own", (sim.Block(),), update=1.0),
    "flag of a transformer": lambda: sim.transformer(2, 64, 2, 16, 100, tied="no"),
    "model with knobs": lambda: sim.with_knobs("gpt2-small", batch=8),
    "family": lambda: sim.models(family=["language"]),
    "key": lambda: sim.device(["a100-sxm-80gb"]),
    "peaks": lambda: sim.Device(peaks=5),
    "a peak": lambda: sim.Device(peaks=("bf16", 1e12)),
    "overhead below 0": lambda: sim.Overheads(message=-1.0),
    "rendezvous": lambda: sim.Overheads(rendezvous="yes"),
    "delays": lambda: sim.Overheads(send_delays=0.1),
    "a delay below 0": lambda: sim.Overheads(send_delays=[-0.1]),
    "tables of collectives": lambda: sim.Overheads(collectives=(("AllReduce", 2),)),
    "no overheads": lambda: sim.Cluster.flat(2, 1e9, overheads=0),
    "no device": lambda: sim.Cluster.flat(2, 1e9, device=0),
    "name of a device": lambda: sim.Device(5),
    "seed of a job": lambda: sim.Job(sim.DataParallel(), SMALL, (0, 1), seed="x"),
    "flag of a block": lambda: sim.Block(recomputes="no"),
    "ties": lambda: sim.Block(ties=5),
    "shapes": lambda: sim.Block(shapes=5),
    "units": lambda: sim.Part(units=5),
    "adds": lambda: sim.Part(adds="x"),
    "axis of a layer": lambda: sim.RingAllReduce(over=[]),
    "dtype": lambda: sim.MixedPrecision(dtype=[]),
    "overheads": lambda: sim.Cluster.flat(2, 1e9, overheads=5),
    "wiring": lambda: sim.Cluster("own", 2, "star"),
    "seed of spines": lambda: sim.cluster("fat-tree", ranks=8, seed="x"),
    "seed of a pod": lambda: sim.cluster("dgx-h100", nodes=2, seed="x"),
    "seed of a graph": lambda: sim.Cluster.from_graph(nx.path_graph(1), seed="x"),
    "bandwidth of a torus": lambda: sim.cluster("torus", ranks=8, bandwidth="x"),
    "flag of a layer": lambda: sim.DataParallel(overlap="no"),
    "flag of an order": lambda: sim.BytePS(colocated="no"),
    "flag of a rule": lambda: sim.rules.Momentum(0.1, nesterov="no"),
    "chunks without stages": lambda: sim.Hybrid(data=2, chunks=2),
    "no chunks": lambda: sim.Hybrid(pipeline=2, chunks=0),
    "sequence": lambda: sim.Hybrid(tensor=2, sequence="yes"),
    "schedule without stages": lambda: sim.Hybrid(data=2, schedule="1f2b"),
    "precision": lambda: sim.memory(sim.DataParallel(), SMALL, 2, precision="fp16"),
    "bytes of a number": lambda: sim.Precision(parameters=-2),
    "rule": lambda: sim.memory(sim.DataParallel(), SMALL, 2, rule="adam"),
    "shape": lambda: sim.shards(5, 0, 1),
    "a side": lambda: sim.shards(("x", 2), 0, 1),
    "graph": lambda: sim.graphs.rounds("rng", 4),
    "schedule": lambda: sim.theory.in_flight("1f2b", 0, 4, 8),
    "zero bubble": lambda: sim.theory.zero_bubble_idle("zb-h3", 4, 1.0, 1.0, 1.0),
    "learn": lambda: sim.simulate(sim.Single(), sim.problem("quadratic"), sim.cluster("ideal", ranks=1), learn=0),
    "fit": lambda: sim.simulate_jobs([sim.Job(sim.DataParallel(), SMALL, (0, 1))], PAIR, fit="no"),
    "progress of a search": lambda: sim.search("gpt2-small", sim.cluster("dgx-a100", ranks=2), batch=4, progress="yes"),
    "progress of a run": lambda: lab.execute(sim.Single(), sim.problem("quadratic"), ranks=1, progress="yes"),
    "strategies": lambda: lab.compare("DataParallel", sim.problem("quadratic")),
    "no ranks": lambda: lab.calibrate(sim.problem("quadratic"), ranks=0),
    "none computing": lambda: lab.calibrate(sim.problem("quadratic"), computing=0),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_meant_is_refused_where_it_is_said(name: str) -> None:
    with pytest.raises(ValueError, match=r"; got|; it has"):
        WRONG[name]()


def test_what_is_given_as_a_list_is_kept_as_a_tuple() -> None:
    block, op = sim.Block(parts=[sim.Part()]), sim.Stream(8.0)
    assert block == sim.Block(parts=(sim.Part(),))
    assert hash(sim.Model("own", [block])) == hash(sim.Model("own", (block,)))
    assert hash(sim.Operations([op])) == hash(sim.Operations((op,)))
    assert sim.Overheads(send_delays=[0.1]) == sim.Overheads(send_delays=(0.1,))


# ---------------------------------------------------------------- a dtype that a device has no peak for


class Untold(sim.Order):
    """Nobody may read its program."""

    axis = "all"

    def program(self, me: sim.Rank) -> sim.Program:
        raise AssertionError("read")
        yield


def test_a_dtype_without_a_peak_is_told_first() -> None:
    """Before a program is read, and before it is found that the model does not fit."""
    cluster, model = sim.cluster("single-switch", ranks=2, device="v100-sxm2-16gb"), sim.model("gpt3-13b", batch=2)
    reduced = sim.stack(sim.DataParallel(), sim.MixedPrecision("bf16"))
    for strategy, dtype in ((Untold(), "bf16"), (sim.DataParallel(), "bf16"), (reduced, "fp32")):
        with pytest.raises(ValueError, match=f"computes in a dtype that it has a peak for; {V100}"):
            sim.simulate(strategy, model, cluster, dtype=dtype)
    with pytest.raises(ValueError, match=V100):
        sim.simulate_jobs([sim.Job(Untold(), model, (0, 1))], cluster)
    with pytest.raises(sim.OutOfMemoryError):
        sim.simulate(sim.DataParallel(), model, cluster, dtype="fp16")


def test_a_server_computes_no_products() -> None:
    devices, model = ["v100-sxm2-16gb", "a100-sxm-80gb"], sim.model("gpt2-small")
    served, wrong = (sim.cluster("single-switch", ranks=2, device=each) for each in (devices, devices[::-1]))
    assert sim.simulate(sim.ParameterServer(), model, served, steps=1).makespan > 0
    with pytest.raises(ValueError, match=V100):
        sim.simulate(sim.ParameterServer(), model, wrong, steps=1)


# ---------------------------------------------------------------- parts of buffers

COPIED = Named("copied")


@pytest.mark.parametrize("of", [1, 2, 3, 4, 7])
def test_a_part_of_a_buffer_is_as_large_as_that_of_what_was_copied(of: int) -> None:
    """10 numbers in 4 parts are 2, 3, 2 and 3, and so 8, 12, 8 and 12 bytes; a part of a part likewise."""
    me = sim.Rank(sim.stack(sim.DataParallel()), 0, 2, sim.Model.of_times(blocks=1, parameters=10), 1)
    me.store(sim.Copy(Params(0), COPIED))
    for index in range(of):
        part, same = Chunk(COPIED, index, of), Chunk(Params(0), index, of)
        assert me.bytes(part) == me.bytes(same)
        assert me.bytes(Chunk(part, 0, 2)) == me.bytes(Chunk(same, 0, 2))


class Parts(sim.Order):
    """Averages parts of a copy of the parameters."""

    axis = "data"

    def share(self, me: sim.Rank) -> tuple[int, int]:
        return me.at("data"), me.size("data")

    def program(self, me: sim.Rank) -> sim.Program:
        for _ in me.steps():
            yield sim.Load()
            yield sim.Copy(Params(me.blocks), COPIED)
            for index in range(4):
                yield sim.AllReduce(Chunk(COPIED, index, 4), over="data")


@pytest.mark.parametrize("detail", ["flow", "messages"])
def test_parts_of_a_buffer_send_the_same_with_tensors_and_without(detail: str) -> None:
    problem = sim.problem("quadratic", spectrum=(1.0,) * 10)
    runs = [sim.simulate(Parts(), problem, PAIR, steps=1, learn=learn, detail=detail) for learn in (False, True)]
    sent = [[span.bytes for span in run.spans if span.rank == 0 and span.bytes] for run in runs]
    assert sent[0] == sent[1] == [8.0, 12.0, 8.0, 12.0]  # 2(n-1)/n of each part


# ---------------------------------------------------------------- spans of several threads


class Slow(list):
    """Lets another thread begin before anything is in it."""

    def append(self, item: object) -> None:
        time.sleep(0.002)
        super().append(item)


def test_threads_may_note_spans_at_once() -> None:
    """Streams of a real rank are threads: each span keeps its own text."""
    spans = sim.Spans(labels=Slow())
    with ThreadPoolExecutor(8) as threads:
        for rank in range(32):
            threads.submit(spans.add, rank, f"stream {rank % 4}", f"Forward {rank} mb0", 0, 0.0, 1.0)
    assert sorted(span.rank for span in spans) == list(range(32))
    assert all(span.instruction == f"Forward {span.rank} mb0" for span in spans)
    assert all(span.stream == f"stream {span.rank % 4}" for span in spans)
    copied = pickle.loads(pickle.dumps(spans))
    copied.add(0, "stream 0", "Forward 0 mb0", 1, 1.0, 2.0)
    assert list(copied)[:-1] == list(spans) and len(copied.labels) == len(spans.labels)
