"""Ranks that share a model: what blocks in parts are, what attention and experts tell each other, what does not fit."""

from __future__ import annotations

from math import ceil

import pytest
import torch
from common.runs import apart
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lab
import simulator as sim
from simulator import theory
from simulator.cutting import Cut
from simulator.problems.attention import attention_parts
from simulator.problems.parts import Add, PartModule, Pointwise, parts_of
from simulator.values import bounds


def free(ranks: int) -> sim.Cluster:
    """A network that costs nothing."""
    return sim.cluster("ideal", ranks=ranks)


def single(problem: sim.Problem) -> sim.Run:
    """The truth."""
    return sim.simulate(sim.Single(), problem, free(1), steps=3)


GPT = sim.problem("tiny-gpt", dtype="float64", layers=1, hidden=16, heads=4, sequence=12, batch=8)


# ---------------------------------------------------------------- blocks in parts


def run_in_parts(parts: list[PartModule], x: torch.Tensor) -> torch.Tensor:
    """The parts of a block, one after another."""
    acts = [x]
    for part in parts:
        acts.append(part(acts[-1], None if part.adds is None else acts[part.adds]))
    return acts[-1]


@pytest.mark.parametrize("name", ["tiny-gpt", "tiny-moe", "digits-mlp"])
def test_the_parts_of_a_block_do_what_the_block_does(name: str):
    problem = sim.problem(name, dtype="float64")
    act = problem.batch_of(0, 0)[0]
    for block in problem.build(0):
        together = run_in_parts(parts_of(block, Cut()), act)
        act = block(act)
        assert torch.allclose(together.reshape(act.shape), act, rtol=0, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(ways=st.integers(1, 4), block=st.integers(0, 2))
def test_every_number_of_a_block_lies_on_some_rank_and_split_ones_on_one(ways: int, block: int):
    sizes = []
    for index in range(ways):
        me = sim.Rank(sim.stack(sim.TensorParallel()), index, ways, GPT.model(), 1)
        sizes.append(me.elements(sim.Params(block)))
    whole = GPT.model().blocks[block]
    replicated = sum(part.parameters for part in whole.parts)
    assert sum(sizes) == whole.parameters + (ways - 1) * replicated


class Bidirectional(nn.Module):
    """A block of one's own: attention in which every token reads all others, added to what came in."""

    def __init__(self, hidden: int, heads: int):
        super().__init__()
        self.norm, self.heads = nn.LayerNorm(hidden), heads
        self.read, self.write = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[samples, tokens, hidden]`` to the same shape."""
        return run_in_parts(self.parts(Cut()), x)

    def parts(self, cut: Cut) -> list[PartModule]:
        """One's own parts are written with the ready-made ones."""
        attention = attention_parts(self.read, self.write, self.heads, cut, causal=False)
        return [Pointwise(self.norm), *attention, Add(0)]


class Written(nn.Module):
    """The same without parts, written out with torch's own attention."""

    def __init__(self, hidden: int, heads: int):
        super().__init__()
        self.norm, self.heads = nn.LayerNorm(hidden), heads
        self.read, self.write = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[samples, tokens, hidden]`` to the same shape."""
        q, k, v = self.read(self.norm(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.write(mixed)


def own(block: type[nn.Module]) -> sim.Problem:
    """A problem of attention over 12 tokens of 8 numbers."""

    def blocks() -> list[nn.Module]:
        return [nn.Linear(8, 8), block(8, 2), nn.Linear(8, 8)]

    def data(seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.randn(4, 12, 8)
        return x, x.flip(1)

    return sim.Problem(blocks, nn.functional.mse_loss, data, dtype="float64")


@pytest.mark.parametrize(
    "strategy, ranks",
    [
        (sim.ContextParallel(), 2),
        (sim.ContextParallel(), 4),
        (sim.TensorParallel(), 2),
        (sim.TensorParallel(sequence=True), 2),
        (sim.Hybrid(context=3, tensor=2), 6),
    ],
    ids=str,
)
def test_attention_that_is_not_causal(strategy: sim.Stack, ranks: int):
    """A module with parts of its own equals the same module without any, on one rank."""
    assert apart(sim.simulate(strategy, own(Bidirectional), free(ranks), steps=3), single(own(Written))) <= 1e-9


# ---------------------------------------------------------------- tokens


@pytest.mark.parametrize("ways", [2, 4])
def test_sequence_parallelism_moves_as_many_bytes_as_tensor_parallelism(ways: int):
    """Korthikanti et al. 2022: an all-reduce is a reduce-scatter and an all-gather; only LayerNorms come on top."""
    plain, tokens = (sim.simulate(sim.TensorParallel(s), GPT, free(ways), steps=1).bytes_sent[0] for s in (False, True))
    norms = 3 * 2 * 16 * 8
    assert tokens - plain == pytest.approx(theory.all_reduce_bytes(ways, norms))


# ---------------------------------------------------------------- experts


def moe(**knobs: object) -> sim.Problem:
    """A small mixture of experts."""
    return sim.problem(
        "tiny-moe", dtype="float64", layers=1, hidden=16, heads=2, sequence=8, batch=8, **{"experts": 4, **knobs}
    )


def test_the_load_of_experts_is_noted():
    """At the beginning a gate is far from even, but nobody gets more than everything."""
    run = sim.simulate(sim.ExpertParallel(), moe(), free(4), steps=3)
    loads = [sample.value for sample in run.samples if sample.name == "imbalance"]
    assert len(loads) == 3 * 4 and all(1.0 <= load <= 4.0 for load in loads) and max(loads) > 1.0


@settings(max_examples=25, deadline=None)
@given(capacity=st.floats(0.1, 3.0), top=st.integers(1, 3), seed=st.integers(0, 99))
def test_an_expert_takes_no_more_than_its_capacity(capacity: float, top: int, seed: int):
    from simulator.problems.moe import EXPERT, Gate

    torch.manual_seed(seed)
    gate = Gate(nn.Linear(6, 4, bias=False), top, capacity)
    rows = gate(torch.randn(3, 7, 6))
    taken = torch.bincount(rows[:, EXPERT].long(), minlength=4)
    assert int(taken.max()) <= ceil(capacity * 21 * top / 4)
    assert bool((rows[:, EXPERT].diff() >= 0).all())  # sorted, so that neighbours travel together


def test_tokens_beyond_the_capacity_go_past_the_experts_on_both_clocks():
    tight, roomy = moe(capacity=0.5), moe(capacity=100.0)
    virtual = sim.simulate(sim.ExpertParallel(), tight, free(2), steps=3)
    wall = lab.execute(sim.ExpertParallel(), tight, ranks=2, steps=3, timeout=60)
    assert apart(virtual, wall) <= 1e-9 and list(virtual.bytes_sent) == list(wall.bytes_sent)
    assert apart(virtual, single(moe())) > 1e-6
    assert apart(sim.simulate(sim.ExpertParallel(), roomy, free(2), steps=3), single(moe())) <= 1e-9
    even = sim.simulate(sim.ExpertParallel(), roomy, free(2), steps=3)
    assert sum(virtual.bytes_sent) < sum(even.bytes_sent)


def test_routing_must_be_known_to_be_timed():
    """Rule 7 of the language: without tensors only the model can say how many tokens travel."""
    with pytest.raises(ValueError, match="give the Part that routes a routing"):
        sim.simulate(sim.ExpertParallel(), moe(), free(2), steps=1, learn=False)


@pytest.mark.parametrize("routing", [1.0, 1.5])
def test_a_busy_expert_delays_all(routing: float):
    from dataclasses import replace

    block = sim.Block(forward=sim.Seconds(0.0), backward=sim.Seconds(0.0), input_bytes=100.0)
    model = sim.Model("experts", (block, block), batch=8).in_parts(units=4, experts=4)
    parts = tuple(replace(part, routing=routing) if part.routes else part for part in model.blocks[0].parts)
    model = replace(model, blocks=tuple(replace(block, parts=parts) for block in model.blocks))
    cluster = sim.Cluster.flat(ranks=4, bandwidth=100.0, latency=0.0)
    run = sim.simulate(sim.ExpertParallel(), model, cluster, steps=1)
    tokens = 8 / 4 * 100.0 * 3 / 4  # bytes that leave a rank for others, if all get as many
    assert run.makespan == pytest.approx(2 * 4 * tokens * routing / 100.0)


# ---------------------------------------------------------------- sharded data


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("name", ["digits-mlp", "digits-conv", "quadratic"])
def test_zero_is_data_parallelism(stage: int, name: str):
    """C4: the same algorithm, up to the order of summation; it is not asynchronous."""
    problem = sim.problem(name, dtype="float64")
    data, sharded = (sim.simulate(s, problem, free(4), steps=5) for s in (sim.DataParallel(), sim.Sharded(stage)))
    assert apart(data, sharded) <= 1e-12
    assert sharded.losses == pytest.approx(data.losses, abs=1e-12) and not sharded.staleness


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("order", [sim.BytePS(helpers=1), sim.BytePS(helpers=2)], ids=str)
def test_helpers_hold_no_shards(order: sim.BytePS, stage: int):
    """They learn nothing: what they began with is not what the run ends with."""
    problem = sim.problem("digits-mlp", dtype="float64", hidden=12, batch=24)
    ranks = 2 * (order.helpers + 1)
    run = sim.simulate(sim.stack(order, sim.Sharded(stage, replicas=2)), problem, free(ranks), steps=3)
    assert apart(run, sim.simulate(sim.Single(), problem, free(1), steps=3)) < 1e-12 and not run.notes


@pytest.mark.parametrize("stage, copies", [(1, 2), (2, 2), (3, 7)])
def test_every_microbatch_is_gathered_for_and_gradients_are_reduced_once(stage: int, copies: int):
    """2Ψ for stages 1 and 2, (2m + 1)Ψ for stage 3, with 1/n left out; three microbatches add up whole gradients."""
    model = sim.Model.of_times(blocks=4, parameters=4000, batch=12)
    strategy = sim.stack(sim.Single(microbatches=3), sim.Sharded(stage))
    assert sim.simulate(strategy, model, free(4), steps=2).bytes_sent == [2 * copies * 3 / 4 * 16000] * 4
    assert [held.peak.gradients for held in sim.memory(strategy, model, 4)] == [16000] * 4


def test_parameters_that_were_let_go_cannot_be_used():
    """A program that forgets to gather would compute with no numbers at all: the error says so before anything runs."""

    class Forgetful(sim.Layer):
        """Lets parameters go before they are used."""

        def rules(self, me: sim.Rank) -> sim.Rules:
            def forward(forward: sim.Forward) -> sim.Program:
                yield sim.Free(sim.Params(forward.block))
                yield forward

            return {sim.Forward: forward}

    says = r"Forward 0 mb0 uses Params\(0\), which was let go \(Free Params\(0\)\): gather or receive it"
    for check in (
        lambda: sim.validate(Forgetful(), ranks=1),
        lambda: sim.simulate(Forgetful(), sim.problem("digits-mlp"), free(1), steps=1),
        lambda: sim.simulate(Forgetful(), sim.Model.of_times(blocks=2), free(1), steps=1),
    ):
        with pytest.raises(sim.ProgramError, match=says) as caught:
            check()
        assert ">> Forward 0 mb0" in str(caught.value)


@pytest.mark.parametrize("prefetch", [0, 1, 2])
def test_gathering_ahead_hides_behind_computation(prefetch: int):
    """G7: with as much time to compute a block as to gather it, all but the first gather is hidden."""
    model = sim.Model.of_times(blocks=8, forward=1.0, backward=2.0, parameters=8 * 250, parameter_bytes=4)
    cluster = sim.Cluster.flat(ranks=2, bandwidth=500.0, latency=0.0)  # a gather of a block: 1 s
    run = sim.simulate(sim.Sharded(3, prefetch=prefetch), model, cluster, steps=1)
    # Waiting for a gather, a block also waits for the reduce-scatter of the one before, which has half of the link.
    waiting = 2 * 1.0 if prefetch else 2 * 8 * 1.0 + 7 * 1.0
    assert run.makespan == pytest.approx(8 * 3.0 + waiting + 1.0, abs=0.01)


# ---------------------------------------------------------------- what does not fit


def dropping() -> sim.Problem:
    """Blocks that draw random numbers."""
    blocks = [nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)), nn.Linear(4, 2)]
    return sim.Problem(blocks, nn.functional.mse_loss, lambda seed, step: (torch.randn(8, 4), torch.randn(8, 2)))


@pytest.mark.parametrize(
    "strategy, problem, ranks, message",
    [
        (sim.TensorParallel(), sim.problem("digits-conv"), 2, "digits-conv has none: give its module a method parts"),
        (sim.TensorParallel(), dropping(), 2, r"draw no random numbers.*blocks \[0\] do"),
        (sim.TensorParallel(), GPT, 5, "every rank needs some of the units"),
        (sim.TensorParallel(sequence=True), sim.problem("digits-mlp", batch=7), 2, "got 7 rows"),
        (sim.ContextParallel(), GPT, 5, "splits the tokens of a sample evenly over 5 ranks"),
        (sim.ContextParallel(), sim.problem("digits-mlp"), 3, "splits the tokens of a sample evenly over 3 ranks"),
        (sim.ExpertParallel(), GPT, 2, "tiny-gpt has none: use a mixture of experts"),
        (sim.ExpertParallel(), moe(), 8, "every rank needs some of the experts; block 1 has 4 for 8 ranks"),
        (sim.Hybrid(pipeline=2, tensor=2, microbatches=4, schedule="zb-h1"), GPT, 4, "not run backward in halves"),
        (sim.Hybrid(data=2, tensor=2), GPT, 8, r"runs on 4 rank\(s\); got ranks=8"),
        (sim.stack(sim.TensorParallel(), sim.DataParallel()), GPT, 4, "no rule for BackwardPart"),
        (sim.Sharded(2, rule=sim.rules.LARS(0.1)), GPT, 2, "needs whole ones: use DataParallel"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_does_not_fit_is_refused_with_the_reason(strategy, problem: sim.Problem, ranks: int, message: str):
    with pytest.raises(ValueError, match=message):
        sim.simulate(strategy, problem, free(ranks), steps=1)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda: sim.Sharded(4), r"the stages of sharding are 1 .*; got stage=4"),
        (lambda: sim.stack(sim.Sharded(1), sim.DataParallel()), "two call theirs 'data'"),
        (lambda: sim.Hybrid(zero=5), "zero is the stage of sharding"),
        (lambda: sim.Hybrid(data=0), "data"),
        (lambda: sim.Sharded(3, prefetch=-1), "prefetch"),
        (lambda: sim.TensorParallel(ways=0), "ways"),
        (lambda: sim.TensorParallel(sequence="yes"), "sequence"),
        (lambda: sim.problem("tiny-moe", top=9), "a token uses at most all experts"),
    ],
)
def test_bad_knobs(wrong, message: str):
    with pytest.raises(ValueError, match=message):
        wrong()


def test_shares_of_samples_cover_the_batch():
    """However many axes split the data, every sample is somebody's."""
    strategy = sim.Hybrid(data=3, expert=2, tensor=2)
    model = sim.Model.of_times(blocks=2, batch=50).in_parts(units=8, experts=4)
    ranks = [sim.Rank(sim.stack(strategy), rank, 12, model, 1) for rank in range(12)]
    assert {me.slice for me in ranks} == {bounds(50, index, 6) for index in range(6)}


# ---------------------------------------------------------------- what ranks that share a block must have alike


def moved(strategy: sim.Stack, ranks: int) -> sim.Run:
    """One step of plain gradient descent."""
    return sim.simulate(strategy, GPT, free(ranks), steps=1)


@pytest.mark.parametrize("ways", [2, 4])
@pytest.mark.parametrize("method", [sim.FedAvg, sim.SCAFFOLD])
def test_clients_may_share_their_model(method: type[sim.Order], ways: int):
    """A client of several ranks takes the steps that it takes on one."""
    alone = method(local_steps=1, rule=sim.rules.SGD(0.1))  # type: ignore[call-arg]
    together = sim.stack(alone, sim.ContextParallel(ways=ways))
    assert apart(moved(together, 2 * ways), moved(sim.stack(alone), 2)) <= 1e-12


@pytest.mark.parametrize(
    "strategy, message",
    [
        (sim.Hybrid(data=2, context=2), "QSGD.*would not"),
        (sim.Hybrid(data=2, tensor=2), "QSGD.*would not"),
    ],
    ids=str,
)
def test_ranks_that_share_a_block_do_not_draw_for_themselves(strategy: sim.Stack, message: str):
    with pytest.raises(ValueError, match=message):
        moved(sim.stack(strategy, sim.Compressed(sim.compression.QSGD(4))), 4)


@pytest.mark.parametrize("compressor", [sim.compression.RandomK(0.1), sim.compression.PowerSGD(2)], ids=str)
def test_what_all_ranks_hold_stays_alike(compressor: sim.compression.Compressor):
    run = moved(sim.stack(sim.DataParallel(replicas=2, compression=compressor), sim.TensorParallel(ways=2)), 4)
    assert "replicas" not in run.notes


@pytest.mark.parametrize(
    "strategy",
    [
        sim.stack(sim.DataParallel(aggregate="clipped", replicas=2), sim.TensorParallel()),
        sim.stack(sim.OneBitAdam(warmup=1, replicas=2), sim.TensorParallel()),
        sim.stack(sim.FedAvg(local_steps=1), sim.GaussianNoise(0.1, 0.1), sim.TensorParallel(ways=2)),
        sim.stack(sim.Sharded(2, replicas=2, rule=sim.rules.SGD(0.1)), sim.RingAllReduce(), sim.GlobalClip(0.3)),
        sim.stack(sim.Gossip(replicas=2), sim.GlobalClip(0.1)),
    ],
    ids=str,
)
def test_what_would_go_wrong_unseen_is_refused(strategy: sim.Stack):
    ranks = 4 if any(part.axis == "tensor" for part in strategy.parts) else 2
    with pytest.raises(ValueError, match=r"whole gradient of a worker|written out as messages|clips what has been"):
        moved(strategy, ranks)
