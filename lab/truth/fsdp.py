"""Published runs of fully sharded training: llm-foundry, torchtitan, and ZeRO-3 in Megatron's paper."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import simulator as sim
from simulator import Sharded, TensorParallel, stack
from simulator.cluster import Overheads
from simulator.models import Transformer
from simulator.strategies import Single
from simulator.work import Measured

from .gathering import GatheredAgain
from .llama import Llama
from .rows import Row, Setup, table

FLASH_1 = 0.325
"""The share of an A100's peak that the first flash attention reaches: 25 to 40 % (Dao 2023, arXiv:2307.08691)."""
FLASH_2_HOPPER = 0.35
"""The share of an H100's peak that the second one reaches (Shah et al. 2024, arXiv:2407.08608), at 700 W."""
TITAN = "h100-sxm-500w"
"""The H100 of its tables."""
FETCHED = 10.2e9, 0.377
"""What DeepSpeed's software took to gather so many bytes of parameters in June 2021 [B, s], whatever the links.

Issue 1174 and pull request 1188 of deepspeedai/DeepSpeed: a BERT of 5.1 billion parameters on one machine of 8 A100s on
NVLink, forward 480 ms with ZeRO-3 and 60 ms with ZeRO-2; 43 ms of the difference is what NCCL would take. Gathers were
not asynchronous either, for each waited for the device, and their results were copied.
"""
PLAIN = {"FSDP": "eager", "FSDP+compile": "compiled", "compile; bf16; vanilla TP": "compiled"}
"""The techniques of torchtitan that compute in bf16 and overlap no tensor parallelism."""


def llm_foundry() -> Iterator[Row]:
    """MPT on A100s, from 125 million to 70 billion parameters: flash attention, neither biases nor dropout."""
    devices = {"a100_80gb": "a100-sxm-80gb", "a100_40gb": "a100-sxm-40gb"}
    for line in table("llm_foundry_mpt_fsdp_a100"):
        if line["gpu"] not in devices or line["act_cpu_offload"] == "True":
            continue
        shape = Transformer(
            **_sizes(line), vocab=int(line["vocab"]), dtype="bf16", recompute=line["recompute"], flash=FLASH_1,
            dropout=False, bias=False, positions="none",
        )  # fmt: skip
        strategy = stack(Single(microbatches=int(line["grad_accum"])), Sharded(3))
        setup = Setup(shape, int(line["global_batch"]), strategy, "dgx-a100", _machines(line), devices[line["gpu"]])
        name = f"{line['model']}, {line['seq_len']} tokens, {line['n_gpus']} x {line['gpu'][5:]}, {line['micro_batch']}"
        yield Row(name, line["model"], float(line["iter_time_s_derived"]), setup)


def torchtitan() -> Iterator[Row]:
    """Llama 3.1 on H100s of 500 W; without float8 and without what hides communication."""
    flash = FLASH_2_HOPPER * sim.device(TITAN).flops / sim.device("h100-sxm").flops  # it has less power
    for line in table("torchtitan"):
        if line["techniques"] not in PLAIN:
            continue
        shape = sim.model(line["model"].lower().replace("llama3.1", "llama3")).recipe
        assert isinstance(shape, Transformer)
        full = line["recompute"] == "full"
        recompute = "full" if full else "selective"
        shape = replace(shape, sequence=int(line["seq_len"]), recompute=recompute, flash=flash, dtype="bf16")
        llama = Llama(shape, PLAIN[line["techniques"]] == "compiled", repeats=not full)
        layers = [Sharded(3, replicas=int(line["fsdp"]))]
        ways = int(line["tp"])
        strategy = stack(*layers, TensorParallel(True, ways=ways)) if ways > 1 else stack(*layers)
        setup = Setup(llama, int(line["global_batch"]), strategy, "dgx-h100", _machines(line), TITAN)
        seconds = int(line["global_batch"]) * shape.sequence / int(line["n_gpus"]) / float(line["tokens_per_s_per_gpu"])
        name = f"{line['model']}, {line['n_gpus']} GPUs, {line['techniques']}"
        yield Row(name, line["model"], seconds, setup)


def zero3() -> Iterator[Row]:
    """Table 2 of Narayanan et al. 2021 (arXiv:2104.04473), its half with ZeRO-3 and nothing else.

    Parameters are gathered when they are needed, and three times: forward, for what is computed again, and backward
    (Rajbhandari et al. 2021, arXiv:2104.07857).
    """
    for line in table("megatron2021_table2_zero3_vs_ptd"):
        if line["scheme"] == "PTD":
            continue
        shape = Transformer(**_sizes(line), vocab=int(line["vocab"]), dtype="fp16", recompute="full")
        gathering = Measured(((0.0, 0.0), FETCHED))
        software = Overheads(collectives=(("AllGather", int(line["n_gpus"]), gathering),))
        strategy = stack(Sharded(3, prefetch=0), GatheredAgain())
        setup = Setup(
            shape, int(line["global_batch"]), strategy, "dgx-a100", _machines(line), overheads=software
        )
        model = f"GPT-{line['params_b']}B"
        yield Row(f"{model}, {line['n_gpus']} GPUs", model, float(line["iter_time_s_derived_eq3"]), setup)


def _sizes(line: Mapping[str, str]) -> dict[str, Any]:
    keys = {"layers": "layers", "hidden": "hidden", "heads": "heads", "sequence": "seq_len"}
    return {name: int(line[key]) for name, key in keys.items()}


def _machines(line: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    ranks = int(line["n_gpus"])
    return (("ranks", ranks),) if ranks <= 8 else (("nodes", -(-ranks // 8)),)
