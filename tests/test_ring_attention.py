"""Ring attention: who attends to how many keys, and what goes round."""

from __future__ import annotations

import pytest

import simulator as sim


def test_the_last_rank_of_a_causal_ring_works_longest():
    """Rank i of n attends to i + 1 parts of the keys; without a mask all attend to n."""
    block = sim.Block(forward=sim.Seconds(3.0), backward=sim.Seconds(3.0), input_bytes=8.0)
    model = sim.Model("attention", (block,), batch=4).in_parts(units=4)
    run = sim.simulate(sim.ContextParallel(), model, sim.cluster("ideal", ranks=4), steps=1)
    attending = [sum(s.end - s.start for s in run.spans if s.rank == r and "attend" in s.instruction) for r in range(4)]
    assert attending == pytest.approx([2 * (rank + 1) / 16 for rank in range(4)])


@pytest.mark.parametrize("ways", [2, 4])
def test_a_causal_ring_computes_what_one_rank_does_tile_by_tile(ways: int):
    """Half of a rank's own scores are masked and spared, none of what it sees of others': (2i + 1)/n² for rank i."""
    model = sim.transformer(layers=1, hidden=64, heads=4, sequence=32, vocab=16, batch=2, flash=True)
    device = sim.Device("only a speed", flops=1e12)
    mixing = next(part for part in model.blocks[1].parts if part.mixes)
    alone = mixing.forward.of(model.batch, device) + mixing.backward.of(model.batch, device)
    cluster = sim.cluster("ideal", ranks=ways, device=device)
    run = sim.simulate(sim.ContextParallel(), model, cluster, steps=1, fold=False)
    spans = [span for span in run.spans if "attend" in span.instruction]
    attending = [sum(span.end - span.start for span in spans if span.rank == rank) for rank in range(ways)]
    assert attending == pytest.approx([alone * (2 * rank + 1) / ways**2 for rank in range(ways)])
    assert sum(attending) == pytest.approx(alone)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_keys_that_heads_share_go_round_once(kv_heads: int):
    """Liu et al. 2023: 3n - 2 hops of a rank's keys and values, smaller by kv_heads/heads."""
    ways, tokens, hidden, width = 4, 32, 64, 2
    shape = dict(layers=1, hidden=hidden, heads=4, sequence=tokens, vocab=16, batch=2, dtype="bf16")
    model = sim.transformer(**shape, kv_heads=kv_heads)
    run = sim.simulate(sim.ContextParallel(), model, sim.cluster("ideal", ranks=ways), steps=1)
    sent = sum(span.bytes for span in run.spans if span.rank == 0 and span.instruction.startswith("Send key"))
    assert sent == (3 * ways - 2) * 2 * 2 * tokens / ways * hidden * kv_heads / 4 * width
