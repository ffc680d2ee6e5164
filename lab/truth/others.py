"""Well-known runs from many papers and tables, each predicted from its published plan alone.

Megatron's grids are those of ``megatron``: gradients averaged at once after the last backward pass. Where optimizer
states are sharded as well (``zero`` 1), gradients pass while others are computed. ``metric`` says what was published:

- "iter_time_s", "samples_per_s", "tokens_per_s_per_gpu": as they are;
- "model_tflops_per_gpu": FLOP without those of what is computed again; "hardware_tflops_per_gpu": with them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from simulator import DataParallel, Sharded, TensorParallel, stack
from simulator.models import Transformer
from simulator.stack import Layer, Stack
from simulator.strategies import Single
from simulator.strategies.hybrid import Hybrid

from .machines import Machines
from .megatron import megatron
from .rows import Row, Setup, Shape, table
from .scaling import Published

SHARES = {"none": False, "tiles": True}
"""Attention: as it is written down, or tile by tile at the share that ``roofline`` says; else a number, the share."""
CARDS = {"50gbe": 6.25e9, "100gbe": 12.5e9, "4xomnipath": 50e9, "2tb": 250e9, "800gb": 100e9}
"""What the network of one machine carries, where it has not a card for each accelerator [B/s]."""
LATENCY = 2e-6
"""Of these cards, from rank to rank [s]; that of RoCE in the catalogue."""


def others() -> Iterator[Row]:
    """All rows of the file."""
    for line in table("other_runs"):
        setup = _setup(line)
        name = f"{line['run']}, {line['n_gpus']} x {line['gpu']}, {line['dtype']}"
        yield Row(name, _authors(line["source"]), _seconds(line, setup), setup)


def _authors(source: str) -> str:
    """Who published it, without where: 'Dao 2023', 'NVIDIA/DeepLearningExamples'."""
    return re.split(r"[ ,]*[(,@]", source)[0]


def _seconds(line: Mapping[str, str], setup: Setup) -> float:
    """What was published, as the time of a step [s]."""
    metric, value, ranks = line["metric"], float(line["value"]), int(line["n_gpus"])
    if metric == "iter_time_s":
        return value
    if metric == "samples_per_s":
        return setup.batch / value
    model = setup.shape.model()
    if metric == "tokens_per_s_per_gpu":
        return setup.batch * (model.tokens or 0) / ranks / value
    flops = {"model_tflops_per_gpu": model.model_flops, "hardware_tflops_per_gpu": model.hardware_flops}[metric]
    return setup.batch * flops / ranks / value / 1e12


def _setup(line: Mapping[str, str]) -> Setup:
    ranks, chip, batch = int(line["n_gpus"]), line["gpu"], int(line["global_batch"])
    if line["card"]:
        width = min(ranks, 8)
        machines = Machines(chip, width, CARDS[line["card"]], LATENCY)
        return Setup(_shape(line), batch, _strategy(line), machines, (("nodes", ranks // width),))
    size = ("ranks", ranks) if ranks <= 8 else ("nodes", -(-ranks // 8))
    kind = "dgx-h100" if chip.startswith("h100") else "dgx-a100"
    return Setup(_shape(line), batch, _strategy(line), kind, (size,), chip)


def _shape(line: Mapping[str, str]) -> Shape:
    if line["family"] == "catalogue":
        return Published(line["model"], line["dtype"])
    sizes: dict[str, Any] = {name: int(line[name]) for name in ("layers", "hidden", "heads", "vocab")}
    flash = SHARES[line["flash"]] if line["flash"] in SHARES else float(line["flash"])
    common: dict[str, Any] = dict(dtype=line["dtype"], recompute=line["recompute"], flash=flash)
    shape = Transformer(**sizes, sequence=int(line["seq_len"]), **common, dropout=line["family"] == "gpt")
    if line["family"] == "mpt":
        return replace(shape, bias=False, positions="none")
    if line["family"] != "llama":
        return shape
    more: dict[str, Any] = dict(kv_heads=int(line["kv_heads"]), ffn=int(line["ffn"]), gated=True, bias=False)
    return replace(shape, **more, norm="rms", positions="rotary", tied=False, final_norm=True)


def _strategy(line: Mapping[str, str]) -> Stack:
    """The stack of a row: a pipeline of Megatron, or sharding, or plain data parallelism."""
    tensor, pipeline, context, zero = (int(line[key]) for key in ("tp", "pp", "cp", "zero"))
    ranks, chunks = int(line["n_gpus"]), int(line["chunks"])
    data = ranks // (tensor * pipeline * context)
    microbatches = int(line["global_batch"]) // data // int(line["micro_batch"])
    sequence = tensor > 1 and line["sequence"] == "yes"
    if zero == 0 and tensor * pipeline > 1:
        return megatron(tensor, pipeline, data, microbatches, chunks, sequence)
    if zero and pipeline * context > 1:
        schedule = "interleaved" if chunks > 1 else "1f1b"
        return Hybrid(data, tensor, pipeline, context, zero=zero if data > 1 else 0, microbatches=microbatches,
                      schedule=schedule, chunks=chunks, sequence=sequence)  # fmt: skip
    averaged: list[Layer] = [Sharded(zero, replicas=data) if zero else DataParallel(replicas=data)] if data > 1 else []
    split: list[Layer] = [TensorParallel(sequence, ways=tensor)] if tensor > 1 else []
    return stack(Single(microbatches=microbatches), *averaged, *split)
