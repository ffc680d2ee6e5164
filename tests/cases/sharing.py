"""Rows of strategies whose ranks share the model: sharded data, tensor, context and expert parallelism, and hybrids."""

from __future__ import annotations

from dataclasses import replace

import simulator as sim
from simulator import theory

from .table import ANY_UP_TO_4, PLAIN, Bytes, Case, Seconds, alone

LAYERS, HIDDEN, WIDTH = 2, 16, 8


def sharded(stage: int) -> Bytes:
    """What ZeRO sends."""
    return lambda model, ranks: [theory.sharded_bytes(stage, ranks, model.parameters * model.parameter_bytes)] * ranks


def activation(model: sim.Model) -> float:
    """The bytes between two layers of the GPT."""
    return model.batch * model.blocks[1].input_bytes


def scores(model: sim.Model) -> float:
    """The bytes of the scores of all letters."""
    return model.batch * model.blocks[-1].parts[-1].output_bytes


def tensor(model: sim.Model, ranks: int) -> list[float]:
    """What tensor parallelism sends for the GPT."""
    return [theory.tensor_parallel_bytes(ranks, LAYERS, activation(model), scores(model))] * ranks


def sequence(model: sim.Model, ranks: int) -> list[float]:
    """The same, and the gradients of two LayerNorms a layer and one before the output."""
    norms = (2 * LAYERS + 1) * 2 * HIDDEN * WIDTH
    return [theory.sequence_parallel_bytes(ranks, LAYERS, activation(model), scores(model), norms)] * ranks


def context(model: sim.Model, ranks: int) -> list[float]:
    """What ring attention sends, and the gradients."""
    size = model.parameters * model.parameter_bytes
    return [theory.context_parallel_bytes(ranks, LAYERS, activation(model), size)] * ranks


def unknown(model: sim.Model, ranks: int) -> list[float]:
    """For rows of which no closed form is claimed."""
    raise AssertionError("no closed form is claimed for the bytes of this row")


def shared_by(ways: int | None = None) -> Seconds:
    """So many ranks (None: all) share every block; the others have other samples."""
    return lambda ranks, blocks: alone(ranks, blocks) / (ways or ranks)


def thinking_twice(ranks: int, blocks: int) -> float:
    """Two ranks share three of the five parts of a block; the gate and the experts are run by both."""
    return alone(ranks, blocks) * (3 / 5 / 2 + 2 / 5)


def in_two_stages(microbatches: int, ways: int = 1) -> Seconds:
    """Two stages of blocks that so many ranks share."""
    return lambda ranks, blocks: theory.pipeline(2, microbatches, blocks / 2 / ways, blocks / ways)


BY_PRODUCT = {"bytes": "the product of the closed forms of its parts, which have rows of their own"}
LOOPED: dict[str, object] = {"schedule": "interleaved", "chunks": 2}
ROUTED = {"bytes": "how many tokens travel is known only when they do", "unlearned": "nor is it without tokens"}
TWICE = {"work": "ranks that split the units of a block all compute its experts"}
CAUSAL = {"work": "what causal attention hides is not computed"}

zero = {stage: Case(f"sharded-{stage}", sim.Sharded(stage), ANY_UP_TO_4, sharded(stage), alone) for stage in (1, 2, 3)}
split = Case("tensor", sim.TensorParallel(), (1, 2), tensor, shared_by(), problem="gpt", parts=True)
tokens = replace(
    split, id="tensor-sequence", strategy=sim.TensorParallel(sequence=True), bytes=sequence, problem="even-gpt"
)
ring = Case("context", sim.ContextParallel(), ANY_UP_TO_4, context, shared_by(), "gpt", CAUSAL, parts=True)
experts = Case("expert", sim.ExpertParallel(), ANY_UP_TO_4, unknown, alone, "moe", ROUTED, parts=True, experts=True)


def hybrid(name: str, seconds: Seconds, problem: str = "even-gpt", **knobs: object) -> Case:
    """A row for a mix on four ranks."""
    outside = BY_PRODUCT | (CAUSAL if "context" in knobs else {})
    parted, routed = bool({"tensor", "context", "expert"} & knobs.keys()), "expert" in knobs
    outside |= ROUTED if "expert" in knobs else {}
    outside |= TWICE if {"expert", "tensor"} <= knobs.keys() else {}
    strategy = sim.Hybrid(**knobs)  # type: ignore[arg-type]
    return Case(f"hybrid-{name}", strategy, (4,), unknown, seconds, problem, outside, parts=parted, experts=routed)


SYNCHRONOUS: tuple[Case, ...] = (
    *zero.values(),
    Case("sharded-3-no-prefetch", sim.Sharded(3, prefetch=0), (2, 3), sharded(3), alone),
    Case("sharded-3-buckets", sim.Sharded(3, bucket_bytes=3000, prefetch=2), (2, 3), sharded(3), alone),
    *(zero[stage].on(name, 2) for stage in (1, 2, 3) for name in ("conv", "gpt", "own", "quadratic")),
    *(zero[3].by(rule, 3) for rule in PLAIN),
    split,
    tokens,
    replace(split, id="tensor-mlp", problem="mlp", ranks=(3, 4), outside=BY_PRODUCT),
    replace(tokens, id="tensor-sequence-mlp", problem="even", ranks=(3, 4), outside=BY_PRODUCT),
    *(split.by(rule, 2) for rule in PLAIN),
    ring,
    experts,
    experts.on("moe-2", 2, 4),
    hybrid("data-tensor", shared_by(2), "mlp", data=2, tensor=2),
    hybrid("data-tensor-sequence", shared_by(2), data=2, tensor=2, sequence=True),
    hybrid("pipeline-tensor", in_two_stages(4, 2), pipeline=2, tensor=2, microbatches=4),
    hybrid("pipeline-tensor-sequence", in_two_stages(2, 2), pipeline=2, tensor=2, microbatches=2, sequence=True),
    hybrid("pipeline-sharded-1", in_two_stages(4), "mlp", pipeline=2, data=2, zero=1, microbatches=4),
    hybrid("pipeline-sharded-3", in_two_stages(3), "mlp", pipeline=2, data=2, zero=3, microbatches=3, schedule="gpipe"),
    replace(
        hybrid("interleaved-sharded-3", alone, "deep", pipeline=2, data=2, zero=3, microbatches=2, **LOOPED),
        outside=BY_PRODUCT | {"seconds": "see the rows of interleaved pipelines"},
    ),
    hybrid("sharded-tensor", shared_by(2), data=2, tensor=2, zero=3),
    hybrid("context-tensor", shared_by(), context=2, tensor=2),
    hybrid("data-context", shared_by(2), data=2, context=2),
    hybrid("pipeline-context", in_two_stages(2, 2), pipeline=2, context=2, microbatches=2),
    hybrid("data-expert", alone, "moe", data=2, expert=2),
    hybrid("expert-tensor", thinking_twice, "moe", expert=2, tensor=2),
    hybrid("expert-context", shared_by(2), "moe", expert=2, context=2),
    hybrid("sharded-expert", alone, "moe", data=2, expert=2, zero=3),
)
