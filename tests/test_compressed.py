"""Gradients that are compressed on their way, in whole runs: what is sent, what is lost, what is remembered."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

import pytest
import torch
import torch.distributed as dist
from common.runs import apart, digits, learned
from hypothesis import given, settings
from hypothesis import strategies as st

import lab
import simulator as sim
from simulator import rules
from simulator.compression import (
    BF16,
    DGC,
    FP16,
    QSGD,
    ErrorFeedback,
    Identity,
    PowerSGD,
    RandomK,
    Sign,
    TernGrad,
    Threshold,
    TopK,
    ratios,
)
from simulator.strategies.encoding import Encode
from simulator.strategies.low_rank import Second

EVERY = (FP16(), Sign(), DGC(0.01, warmup=2), ErrorFeedback(TopK(0.1)), RandomK(0.1), ErrorFeedback(PowerSGD(2)))


def timed(strategy, model, ranks, steps=1, **link):
    cluster = sim.Cluster.flat(ranks=ranks, **{"latency": 0.0, **link}) if link else sim.cluster("ideal", ranks=ranks)
    return sim.simulate(strategy, model, cluster, steps=steps)


# ---------------------------------------------------------------- one text


@pytest.mark.parametrize("compressor", [*EVERY, Threshold(0.01, density=0.1)], ids=repr)
@pytest.mark.parametrize("overlap", [True, False])
def test_the_knob_and_the_layer_say_the_same(compressor, overlap):
    knob = sim.DataParallel(0, overlap=overlap, compression=compressor)
    layer = sim.stack(sim.DataParallel(0, overlap=overlap), sim.Compressed(compressor))
    model = digits().model()
    assert sim.listing(knob, 3, model, steps=3).columns == sim.listing(layer, 3, model, steps=3).columns


def test_chance_follows_from_the_seed():
    random = sim.stack(sim.DataParallel(), sim.Compressed(QSGD(2)))
    assert learned(random, 2) == learned(random, 2)
    other = sim.stack(sim.DataParallel(), sim.Compressed(QSGD(2), seed=5))
    assert apart(learned(random, 2), learned(other, 2)) > 1e-6


@dataclass(frozen=True)
class Overheard(sim.Layer):
    """Keeps copies of what a rank's Computes read and write, by the name of the function."""

    heard: list = field(default_factory=list, compare=False, hash=False)

    def rules(self, me):
        def keep(compute):
            yield compute
            if isinstance(compute.function, Encode):
                yield sim.Compute(self.keeper(me.rank, me.step), compute.writes)

        return {sim.Compute: keep}

    def keeper(self, rank, step):
        return lambda payload, *memory: self.heard.append((rank, step, payload.clone()))


def test_ranks_draw_their_own_lots_and_share_those_of_random_k():
    problem = sim.Problem([torch.nn.Linear(64, 1)], torch.nn.functional.mse_loss, equal_samples, dtype="float64")
    for compressor, same in ((QSGD(1), False), (TernGrad(), False), (RandomK(0.2), True)):
        ears = Overheard()
        learned(sim.stack(sim.DataParallel(), sim.Compressed(compressor), ears), 2, steps=2, problem=problem)
        payloads = {(rank, step): data for rank, step, data in ears.heard}
        assert torch.equal(payloads[0, 0], payloads[1, 0]) == same  # all samples are equal, and so are gradients
        assert not torch.equal(payloads[0, 0], payloads[0, 1])


def equal_samples(seed, step):
    return torch.linspace(-1, 2, 64).repeat(4, 1), torch.ones(4, 1)


# ---------------------------------------------------------------- bytes


@pytest.mark.parametrize("compressor", [Identity(), FP16(), Sign(), TopK(0.01), ErrorFeedback(TernGrad())], ids=repr)
@pytest.mark.parametrize("ranks", [2, 5])
def test_every_bucket_is_counted_as_it_is_sent(compressor, ranks):
    model = sim.Model.of_times(blocks=3, parameters=1000)
    run = timed(sim.DataParallel(0, compression=compressor), model, ranks)
    sizes = [block.parameters for block in model.blocks]
    assert run.bytes_sent == pytest.approx([sum(ratios.exchange_bytes(compressor, ranks, n) for n in sizes)] * ranks)


def test_dgc_sends_less_from_step_to_step():
    compressor, model = DGC(0.01, warmup=3), digits().model()
    run = learned(sim.DataParallel(compression=compressor), 2, steps=5)
    size = model.parameters
    assert run.bytes_sent[0] == sum(compressor.at(step).nbytes(size, 8) for step in range(5))
    assert timed(sim.DataParallel(compression=compressor), model, 2, steps=5).bytes_sent == run.bytes_sent


def test_e6_power_sgd_needs_shapes_and_sends_vectors_as_they_are():
    flat = sim.Model.of_times(blocks=1, parameters=400)
    assert timed(sim.DataParallel(compression=PowerSGD(2)), flat, 2).bytes_sent[0] == 400 * 4
    matrix = sim.Model("matrix", (sim.Block(400, shapes=((19, 20), (20,))),))
    assert timed(sim.DataParallel(compression=PowerSGD(2)), matrix, 2).bytes_sent[0] == 4 * (2 * (19 + 20) + 20)


def test_a_server_gets_payloads_and_answers_with_parameters():
    model, fed = sim.Model.of_times(blocks=2, parameters=1000), ErrorFeedback(TopK(0.1))
    run = timed(sim.stack(sim.ParameterServer(servers=2), sim.Compressed(fed)), model, 4)
    assert run.bytes_sent == [2 * 2000, 2 * 2000, 2 * 50 * 8, 2 * 50 * 8]


def test_payloads_count_where_work_may_be_given_up_too():
    model = sim.Model.of_times(blocks=2, parameters=8000)
    run = timed(sim.stack(sim.ParameterServer(backups=1), sim.Compressed(Sign(scaled=False))), model, 3, steps=2)
    assert max(run.bytes_sent[1:]) == 2 * 1000


def test_e7_gathering_loses_beyond_twice_the_ratio():
    """Signs are 32 times smaller; with more than 64 ranks they send more, and take longer, than dense gradients."""
    model = sim.Model.of_times(blocks=1, forward=0, backward=0, parameters=2**16)
    signs = sim.DataParallel(compression=Sign(scaled=False))
    for ranks, pays in ((16, True), (62, True), (66, False), (96, False)):
        ours, dense = (timed(s, model, ranks, bandwidth=1e6) for s in (signs, sim.DataParallel()))
        assert (ours.bytes_sent[0] < dense.bytes_sent[0]) == pays
        assert (ours.makespan < dense.makespan) == pays == (ranks < ratios.crossover(32))


@settings(max_examples=25, deadline=None)
@given(encode=st.floats(0, 1e-6), decode=st.floats(0, 1e-6), bandwidth=st.floats(1e6, 1e8), ranks=st.integers(2, 6))
def test_e16_compression_pays_if_it_takes_less_than_what_is_exposed(encode, decode, bandwidth, ranks):
    size, compressor = 10_000, TopK(0.05)
    model = sim.Model.of_times(blocks=1, parameters=size)
    plain = sim.DataParallel(overlap=False)
    layer = sim.Compressed(compressor, encode=encode, decode=decode)
    dense, ours = (timed(s, model, ranks, bandwidth=bandwidth) for s in (plain, sim.stack(plain, layer)))
    exposed, exchange = dense.makespan - 3, ratios.exchange_bytes(compressor, ranks, size) / bandwidth
    assert ours.makespan == pytest.approx(3 + encode * size + exchange + ranks * decode * size, rel=1e-9)
    if abs(ours.makespan - dense.makespan) > 1e-9:
        assert (ours.makespan < dense.makespan) == ratios.pays(encode * size, ranks * decode * size, exchange, exposed)


@pytest.mark.parametrize("gigabits, pays", [(1, True), (10, False), (25, False), (100, False)])
def test_e8_in_a_data_centre_overlap_beats_compression(gigabits, pays):
    """ResNet-50 (25.6 M parameters, 0.1 s forward, 0.2 s backward) on 8 ranks; the dense all-reduce overlaps.

    Encoding and decoding compete with the backward pass, so they come after it; 2 ns per number is a fast top-k.
    """
    model = sim.Model.of_times(blocks=16, forward=0.1 / 16, backward=0.2 / 16, parameters=25_557_032)
    compressed = sim.stack(sim.DataParallel(overlap=False), sim.Compressed(TopK(0.01), encode=2e-9, decode=1e-10))
    ours, dense = (timed(s, model, 8, bandwidth=gigabits * 1e9 / 8) for s in (compressed, sim.DataParallel()))
    assert (ours.makespan < dense.makespan) == pays


# ---------------------------------------------------------------- what is lost, and what is remembered


@dataclass(frozen=True)
class Watched(sim.Layer):
    """Keeps every rank's own gradients, and its parameters and memory at the end."""

    memory: str
    seen: dict = field(default_factory=dict, compare=False, hash=False)

    def rules(self, me):
        def before(reduce):
            yield sim.Compute(lambda g: self.seen.setdefault(("g", me.rank), []).append(g.clone()), (reduce.value,))
            yield reduce

        def after(update):
            yield update
            memory = sim.Named(f"{self.memory} of {sim.Grads(me.blocks)}")
            yield sim.Compute(self.keeper("x", me.rank), (update.params,))
            yield sim.Compute(self.keeper("e", me.rank), (memory,))

        return {sim.AllReduce: before, sim.Update: after}

    def keeper(self, name, rank):
        return lambda tensor: self.seen.__setitem__((name, rank), tensor.clone())


INNER = [TopK(0.05), Sign(), FP16(), RandomK(0.1), QSGD(2), PowerSGD(2)]


@pytest.mark.parametrize("inner", INNER, ids=repr)
@pytest.mark.parametrize("ranks", [1, 3])
def test_e14_parameters_and_memories_are_what_plain_sgd_would_have(inner, ranks):
    problem, lr, watched = digits(batch=24), 0.1, Watched("error")
    plain = sim.DataParallel(overlap=False, rule=rules.SGD(lr))
    run = learned(sim.stack(plain, watched, sim.Compressed(ErrorFeedback(inner))), ranks, 6, problem)
    start = torch.cat([torch.tensor(p).reshape(-1) for p in problem.parameters(1).values()])
    sums = sum(torch.stack(watched.seen["g", rank]).sum(0) for rank in range(ranks)) / ranks
    memory = sum(watched.seen["e", rank] for rank in range(ranks)) / ranks
    rounded = inner == FP16() and ranks > 1  # sums of halves round too, which nobody remembers
    torch.testing.assert_close(
        watched.seen["x", 0] - lr * memory, start - lr * sums, rtol=0, atol=1e-5 if rounded else 1e-12
    )
    assert memory.abs().max() > 1e-9 and not run.notes


def test_vectors_beside_matrices_leave_nothing_to_remember():
    shapes = ((6, 5), (7,))
    flat, memory = torch.randn(37, dtype=torch.float64), torch.zeros(37, dtype=torch.float64)
    power = PowerSGD(1)
    q = power.begin(shapes, torch.float64)
    p = power.first(torch.randn(37, dtype=torch.float64), q, shapes)  # the mean of all, not of this rank
    _, _, left = Second(power, shapes)(p, flat, memory)
    assert left[:30].abs().max() > 0.01 and not left[30:].any()


def test_feedback_learns_what_the_bare_compressor_does_not():
    plain, bare, fed = (
        learned(sim.DataParallel(rule=rules.SGD(0.3), **knob), 2, 60, digits(batch=50))
        for knob in ({}, {"compression": TopK(0.01)}, {"compression": ErrorFeedback(TopK(0.01))})
    )
    assert fed.losses[-1] < bare.losses[-1] - 0.02 and plain.losses[-1] < bare.losses[-1]


@pytest.mark.parametrize("compressor, digits_kept", [(BF16(), 8), (FP16(), 11)], ids=repr)
def test_gradients_are_added_in_the_reduced_type(compressor, digits_kept):
    """As course suites check it: near the full all-reduce, not equal to it, and halves travel."""
    ears = Overheard()
    exact = learned(sim.DataParallel(rule=rules.SGD(1.0)), 2, 1)
    rounded = learned(sim.stack(sim.DataParallel(rule=rules.SGD(1.0)), sim.Compressed(compressor), ears), 2, 1)
    (_, _, payload), *_ = ears.heard
    assert payload.dtype == compressor.payload_dtype(torch.float64)
    start = digits().parameters(1)
    slopes = {name: start[name] - exact.parameters[name] for name in start}
    largest = max(abs(slope).max() for slope in slopes.values())
    assert 1e-9 < apart(exact, rounded) <= 2 * largest * 2.0**-digits_kept
    assert rounded.bytes_sent[0] == exact.bytes_sent[0] / 4


def test_sums_of_halves_do_not_overflow():
    def steep(seed, step):
        return torch.full((8, 1), 4e4), torch.zeros(8, 1)

    problem = sim.Problem([torch.nn.Linear(1, 1, bias=False)], lambda out, _: out.mean(), steep, dtype="float64")
    runs = [learned(sim.DataParallel(compression=c, rule=rules.SGD(1e-5)), 4, 2, problem) for c in (None, FP16())]
    moved = problem.parameters(1)["0.weight"] - runs[0].parameters["0.weight"]
    assert moved == pytest.approx(0.8, rel=1e-9) and apart(*runs) <= 0.8 * 2**-10


def test_a_ring_adds_payloads_too():
    fed = ErrorFeedback(TopK(0.1))
    for compressor in (FP16(), RandomK(0.2), fed):
        strategy = sim.DataParallel(compression=compressor)
        alone, ring = learned(strategy, 3), learned(sim.stack(strategy, sim.RingAllReduce()), 3)
        assert apart(alone, ring) < (1e-3 if compressor == FP16() else 1e-12)


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    "strategy, message",
    [
        (lambda: sim.Compressed("fp16"), "one of simulator.compression"),
        (lambda: sim.DataParallel(compression=0.01), "one of simulator.compression"),
        (lambda: sim.Compressed(Sign(), encode=-1.0), "encode"),
        (lambda: sim.stack(sim.Sharded(2), sim.Compressed(FP16())), "use DataParallel"),
        (lambda: sim.stack(sim.Horovod(), sim.Compressed(FP16())), "put Compressed before"),
        (lambda: sim.stack(sim.BytePS(helpers=1), sim.Compressed(FP16())), "put Compressed before"),
        (lambda: sim.stack(sim.ParameterServer(), sim.Compressed(Threshold(1.0, density=0.1))), "varies"),
        (lambda: sim.stack(sim.ParameterServer(), sim.Compressed(DGC(warmup=2))), "varies"),
        (lambda: sim.DataParallel(compression=Threshold(1.0)), "density"),
        (lambda: sim.OneBitAdam(warmup=0), "warmup"),
        (lambda: sim.OneBitAdam(rule=rules.SGD(0.1)), "its own rule"),
    ],
)
def test_mistakes_are_named(strategy, message):
    with pytest.raises(ValueError, match=message):
        sim.validate(strategy(), 3)


# ---------------------------------------------------------------- 1-bit Adam


def test_the_warm_up_of_onebit_adam_is_adam():
    adam = learned(sim.Single(rule=rules.Adam(0.01)), 1)
    assert apart(adam, learned(sim.OneBitAdam(warmup=4, lr=0.01), 3)) < 1e-12
    frozen = learned(sim.OneBitAdam(warmup=2, lr=0.01, eps=1e-3), 3)
    assert not frozen.notes and apart(frozen, learned(sim.Single(rule=rules.Adam(0.01, eps=1e-3)), 1)) > 1e-4


@pytest.mark.parametrize("share, stated", [(0.15, 4.92), (0.2, 4.0)])
def test_e10_onebit_adam_sends_five_times_less_than_halves(share, stated):
    halves = sim.Model.of_times(blocks=4, parameters=4_000_000, parameter_bytes=2)
    dense = timed(sim.DataParallel(), halves, 4, steps=20)
    ours = timed(sim.OneBitAdam(warmup=int(share * 20)), halves, 4, steps=20)
    ratio = dense.bytes_sent[0] / ours.bytes_sent[0]
    assert ratio == pytest.approx(ratios.onebit_adam_ratio(share), rel=1e-4) == pytest.approx(stated, abs=0.005)


def test_onebit_adam_learns_like_adam():
    problem = sim.problem("quadratic", dtype="float64", spectrum=(1.0, 0.1, 0.3, 2.0), blocks=4, batch=9)
    adam = learned(sim.Single(rule=rules.Adam(0.01)), 1, 200, problem)
    ours = learned(sim.OneBitAdam(warmup=30, lr=0.01), 3, 200, problem)
    assert ours.losses[:31] == pytest.approx(adam.losses[:31], abs=1e-12)
    assert ours.losses[-1] < 2 * adam.losses[-1] < adam.losses[30] / 10


FIRST = "0.0.weight"


@pytest.mark.parametrize("kind", [sim.DataParallel, sim.Sharded, sim.PostLocalSGD, sim.OneBitAdam])
def test_an_infinite_bucket_holds_all_gradients(kind):
    """One collective for all blocks, and the same is learned as with a bucket per block."""
    one, each = (learned(kind(bucket_bytes=size), 3, steps=2) for size in (inf, 0))
    assert apart(one, each) < 1e-12
    counts = [sum(span.stream == "data" and span.rank == 0 for span in run.spans) for run in (one, each)]
    assert counts[0] < counts[1]


def test_what_had_no_gradient_in_the_warm_up_stays():
    """The corners of all digits are empty: without a scale for them, signs would throw their weights away."""
    problem = digits()
    run = learned(sim.OneBitAdam(warmup=2, lr=0.01, eps=1e-3), 2, 4, problem)
    start, end = problem.parameters(1)[FIRST], run.parameters[FIRST]
    assert (start[:, 0] == end[:, 0]).all() and (start != end).any()


# ---------------------------------------------------------------- a common start


def astray():
    """Blocks that every real rank draws for itself."""
    if dist.is_initialized():
        torch.manual_seed(dist.get_rank())
    return [torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1)]


def few(seed, step):
    inputs = torch.randn(8, 6)
    return inputs, inputs.sum(1, keepdim=True)


def test_real_ranks_that_begin_astray_need_a_broadcast():
    problem = sim.Problem(astray, torch.nn.functional.mse_loss, few, dtype="float64")

    def run(strategy):
        return lab.execute(strategy, problem, ranks=2, steps=2, timeout=60)

    lost, found = run(sim.DataParallel()), run(sim.DataParallel(broadcast=True))
    assert "differ" in lost.notes["replicas"] and "replicas" not in found.notes
    for stage in (1, 3):  # sharded ranks agree in the end, on a model of which each began with a part
        assert apart(run(sim.Sharded(stage)), found) > 0.01
        assert apart(run(sim.Sharded(stage, broadcast=True)), found) < 1e-12


def test_the_first_tells_all_others_once():
    model = sim.Model.of_times(blocks=2, parameters=1000)
    alone, told = (timed(sim.DataParallel(broadcast=knob), model, 2, steps=3) for knob in (False, True))
    assert [b - a for a, b in zip(alone.bytes_sent, told.bytes_sent)] == [4000, 0]
    column = sim.listing(sim.DataParallel(0, broadcast=True), 2, model, steps=2).columns[1]
    assert [text.startswith("Broadcast") for text in column].index(True) == 0
    assert sum(text.startswith("Broadcast") for text in column) == 2
