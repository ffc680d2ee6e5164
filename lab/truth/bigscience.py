"""BigScience's first runs of Megatron-LM and Megatron-DeepSpeed on the V100s of Jean Zay, May to July 2021.

The file has sizes in billions; scripts, ``experiments/gpt2-meg/*.slurm`` of bigscience-workshop/bigscience, tell what
these stand for. Four V100s on NVLink make a machine. Its four Omni-Path links have 400 Gbit/s, of which NCCL got 55 as
the authors measured all-reduces over 16 machines (``experiments/bandwidth/README.md`` there). They say that the same
run was 40 % faster or slower at other times of the day.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from simulator.models import Transformer

from .machines import Machines
from .megatron import megatron, padded
from .rows import Row, Setup, table

SIZES = {
    "7.5B": (4096, 36),
    "18B": (6144, 40),
    "30B": (7168, 48),
    "39B": (8192, 48),
    "52B": (8192, 64),
    "65B": (9216, 64),
    "116B": (12288, 64),
    "206B": (16384, 64),
}
"""Hidden size and layers; of 22, 50 and 78 billion parameters no script tells them."""
HEADS, VOCABULARY = 32, 50257
TRAFFIC = 55.0766e9 / 8
"""What NCCL's all-reduces get of a machine's network [B/s]."""
LATENCY = 1.5e-6
"""Of Omni-Path, from card to card [s]; from memory."""


def bigscience() -> Iterator[Row]:
    """Those with pipelines, on as many GPUs as their grid has; ZeRO-3 and states in the host's memory are left out."""
    for line in table("bigscience_v100_gpt2"):
        if line["size"] not in SIZES or not line["pp"]:
            continue
        stages, tensor, data = int(line["pp"]), int(line["tp"]), int(line["dp"])
        if stages * tensor * data == int(line["gpus"]):
            grid = f"t{tensor} p{stages} d{data}"
            name = f"GPT-{line['size']} {grid}, {_micro(line)} of {_batch(line)}, {line['notes'] or 'smallest batch'}"
            yield Row(name, f"GPT-{line['size']}", float(line["speed"].rstrip("s")), _setup(line, tensor, stages, data))


def _setup(line: Mapping[str, str], tensor: int, stages: int, data: int) -> Setup:
    hidden, layers = SIZES[line["size"]]
    shape = Transformer(
        layers, hidden, HEADS, int(line["seq_len"]), padded(VOCABULARY, tensor), dtype="fp16", recompute="full"
    )
    chip = "v100-sxm2-16gb" if "16GB" in line["gpu"] else "v100-sxm2-32gb"
    strategy = megatron(tensor, stages, data, _batch(line) // data // _micro(line))
    machines = Machines(chip, 4, TRAFFIC, LATENCY)
    return Setup(shape, _batch(line), strategy, machines, (("nodes", tensor * stages * data // 4),))


def _micro(line: Mapping[str, str]) -> int:
    """Samples of a microbatch."""
    return int(line["mic_bs"] or line["mbs"])


def _batch(line: Mapping[str, str]) -> int:
    """Samples of a step."""
    return int(line["glob_bs"] or line["gbs"])
