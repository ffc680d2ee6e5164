"""Which of PyTorch's implementations belongs to a strategy: one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from importlib import import_module
from typing import TYPE_CHECKING, Any

from simulator.holdings import Piece
from simulator.stack import Stack

if TYPE_CHECKING:
    from simulator.rules import Rule


@dataclass(frozen=True)
class Choice:
    """An implementation: what it is called, the function of this package that runs it, and the knobs it gets."""

    text: str
    function: str
    knobs: Mapping[str, Any] = field(default_factory=dict)

    def train(self, training: Any) -> list[Piece]:
        """Run it on one rank; the parameters that the rank holds at the end."""
        module, _, name = self.function.partition(".")
        run: Callable[..., list[Piece]] = getattr(import_module(f".{module}", __package__), name)
        return run(training, **self.knobs)

    def check(self, rule: Rule) -> None:
        """Refuse rules that ask for more than one vector of numbers, where a rank has but a part of the model."""
        plain = rule.elementwise and not rule.per_tensor and rule.loss_scale() == 1
        if not plain and self.function not in WHOLE:
            raise ValueError(
                f"under {self.text} a rank updates a part of the model, where each number follows its own gradient"
                f" alone; got {rule}: use SGD, Momentum or Adam, or engine='program'"
            )


def choose(stack: Stack) -> Choice:
    """The implementation for a strategy. ValueError, with what there is, where PyTorch has none.

    >>> from simulator import Pipeline, stack
    >>> choose(stack(Pipeline("1f1b"))).text
    'Schedule1F1B'
    """
    parts = stack.parts
    if len(parts) > 1 and type(parts[0]).__name__ == "Single":
        parts = parts[1:]
    names = tuple(type(part).__name__ for part in parts)
    if names not in CHOICES:
        raise ValueError(f"{NOT_THERE}; got {stack}")
    return CHOICES[names](*parts)


# ---------------------------------------------------------------- what each strategy becomes

ANYWAY = ("rule", "replicas", "ways", "stages")
"""Knobs that every implementation honours: the problem's rule, and the sizes of the rank grid."""


def _knobs(part: Any, *known: str) -> dict[str, Any]:
    """Those knobs that PyTorch has too. ValueError when another one is not at its default."""
    given = {knob.name: (getattr(part, knob.name), knob.default) for knob in fields(part)}
    for name, (value, default) in given.items():
        if name not in (*known, *ANYWAY) and value != default:
            raise ValueError(
                f"PyTorch's own counterpart of {type(part).__name__} has no {name}; got {name}={value!r}:"
                " leave it out, or use engine='program'"
            )
    return {name: given[name][0] for name in known if name in given}


def _one_of(what: str, value: Any, choices: Mapping[Any, Any]) -> Any:
    if not isinstance(value, (str, int)) or value not in choices:
        raise ValueError(f"PyTorch has the {what} {', '.join(map(repr, choices))}; got {value!r}")
    return choices[value]


def _single(order: Any) -> Choice:
    return Choice("a plain training loop", "replicated.single", _knobs(order))


COMPRESSION: dict[str, tuple[str, tuple[str, ...]]] = {
    "FP16": ("fp16", ()), "BF16": ("bf16", ()), "PowerSGD": ("powersgd", ("rank",)),
}  # fmt: skip
"""Compressors that are hooks of DistributedDataParallel: by class, the hook's name and its knobs."""


def _data_parallel(layer: Any) -> Choice:
    knobs = _knobs(layer, "bucket_bytes", "compression")
    compression = knobs.pop("compression", None)
    if compression is None:
        return Choice("DistributedDataParallel", "replicated.data_parallel", knobs)
    feedback = type(compression).__name__ == "ErrorFeedback"
    inner = compression.compressor if feedback else compression
    hook, names = _one_of("hooks for", type(inner).__name__, COMPRESSION)
    if feedback and hook != "powersgd":
        raise ValueError(f"of PyTorch's hooks only PowerSGD has error feedback; got compression={compression!r}")
    options = {**_knobs(inner, *names), **({"feedback": feedback} if hook == "powersgd" else {})}
    knobs = {**knobs, "hook": hook, "options": options}
    return Choice(f"DistributedDataParallel with its {hook} hook", "replicated.data_parallel", knobs)


def _post_local(layer: Any) -> Choice:
    text = "DistributedDataParallel with its post_localSGD hook, PostLocalSGDOptimizer"
    return Choice(text, "replicated.post_local", _knobs(layer, "period", "start", "bucket_bytes"))


def _sharded(layer: Any) -> Choice:
    if layer.stage == 1:
        size = _knobs(layer, "stage", "bucket_bytes")["bucket_bytes"]
        knobs = {"bucket_bytes": size} if size else {}  # 0, a bucket per block, would be one per parameter here
        return Choice("DistributedDataParallel with ZeroRedundancyOptimizer", "replicated.sharded_optimizer", knobs)
    return Choice(_fsdp(layer.stage), "sharded.fully_sharded", _knobs(layer, "stage"))


def _fsdp(stage: int) -> str:
    return f"FSDP2 with reshard_after_forward={stage == 3}"


def _tensor(layer: Any) -> Choice:
    return Choice("DTensor, parallelize_module", "tensor_parallel.tensor_parallel", _knobs(layer, "sequence"))


def _sharded_tensor(first: Any, second: Any) -> Choice:
    sharding, splitting = (first, second) if type(first).__name__ == "Sharded" else (second, first)
    _one_of("stages of Sharded with TensorParallel", sharding.stage, {2: 2, 3: 3})
    knobs = {**_knobs(sharding, "stage"), **_knobs(splitting, "sequence")}
    return Choice(f"{_fsdp(sharding.stage)} over DTensor", "tensor_parallel.sharded_tensor_parallel", knobs)


PIPELINES: dict[str, str] = {
    "gpipe": "ScheduleGPipe", "1f1b": "Schedule1F1B", "interleaved": "ScheduleInterleaved1F1B",
    "zb-h1": "ScheduleInterleavedZeroBubble", "zbv": "ScheduleZBVZeroBubble",
}  # fmt: skip
"""Schedules, by our names, that torch.distributed.pipelining has."""


def _pipeline(order: Any) -> Choice:
    text = _one_of("schedules", order.schedule, PIPELINES)
    return Choice(text, "pipelined.pipeline", _knobs(order, "schedule", "microbatches", "chunks"))


def _replicated_pipeline(order: Any, layer: Any) -> Choice:
    stages = _pipeline(order)
    _one_of("schedules for stages in DistributedDataParallel", order.schedule, {"gpipe": 0, "1f1b": 0})
    knobs = {**stages.knobs, **_knobs(layer, "bucket_bytes")}
    return Choice(f"{stages.text} of stages in DistributedDataParallel", stages.function, knobs)


def _server(order: Any) -> Choice:
    _one_of("parameter servers of mode", order.mode, {"sync": 0, "async": 0})
    return Choice("TensorPipe RPC", "served.parameter_server", _knobs(order, "servers", "mode"))


CHOICES: dict[tuple[str, ...], Callable[..., Choice]] = {
    ("Single",): _single,
    ("DataParallel",): _data_parallel,
    ("PostLocalSGD",): _post_local,
    ("LocalSGD",): _post_local,
    ("Sharded",): _sharded,
    ("TensorParallel",): _tensor,
    ("Pipeline",): _pipeline,
    ("ParameterServer",): _server,
    ("Pipeline", "DataParallel"): _replicated_pipeline,
    ("Sharded", "TensorParallel"): _sharded_tensor,
    ("TensorParallel", "Sharded"): _sharded_tensor,
}
"""What there is, by the classes of a strategy's parts; ``Single`` under layers is left out."""

WHOLE = ("replicated.single", "replicated.data_parallel", "replicated.post_local")
"""Where every rank updates the whole model."""

NOT_THERE = f"PyTorch has an implementation of its own for {', '.join(' + '.join(parts) for parts in CHOICES)}"
