"""How other frameworks scale: Horovod's images per second and efficiencies, and ColossalAI's samples per second.

An efficiency of 90 % on many GPUs means that a step takes 1/0.9 times as long as on one: that ratio is what is
predicted. Gradients are joined until they have 64 MB, as Horovod does, and overlap the backward pass. TensorFlow's
benchmarks, with which Horovod was measured, count in numbers of 4 bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import simulator as sim
from simulator import DataParallel, Sharded, Single, stack
from simulator.models import Transformer
from simulator.stack import Stack

from .machines import Machines
from .rows import ZERO_SHOT, Knobs, Row, Setup, table

NETWORK = {"RoCE 25Gbit/s": 25e9, "25Gbit/s RoCE": 25e9, "100Gbps RDMA": 100e9}
SHARE = 0.925
"""Of the line rate that data can have, as of the cards of the catalogue."""
LATENCY = 2e-6
"""Of RDMA over Ethernet, from card to card [s], as in the catalogue."""
FUSED = 64 * 2**20
"""Bytes of gradients that Horovod joins (Sergeev and Del Balso 2018, arXiv:1802.05799)."""
SEQUENCE = 128
"""Tokens of a sample of BERT's first phase of pretraining (Devlin et al. 2019, arXiv:1810.04805)."""
IMAGES = {"Inception V3": "inception-v3", "ResNet-101": "resnet-101", "VGG-16": "vgg-16"}
STANDS_FOR = {"Llama-like 7B": "llama2-7b"}


@dataclass(frozen=True)
class Published:
    """A model of the catalogue in some dtype; ``sequence``: another number of tokens."""

    key: str
    dtype: str
    sequence: int | None = None
    recompute: str = "none"

    @property
    def layers(self) -> int:
        """Its blocks."""
        return len(self.model().blocks)

    def model(self) -> sim.Model:
        """The Model."""
        found = sim.model(self.key, dtype=self.dtype, recompute=self.recompute)
        if self.sequence is None or not isinstance(found.recipe, Transformer):
            return found
        return replace(found.recipe, sequence=self.sequence).model()


@dataclass(frozen=True)
class Slowdown:
    """How many times as long a step takes ``together`` as ``alone``."""

    together: Setup
    alone: Setup

    def seconds(self, knobs: Knobs = ZERO_SHOT) -> float:
        """The ratio."""
        return self.together.seconds(knobs) / self.alone.seconds(knobs)

    @property
    def work(self) -> float:
        """How much there is to simulate, roughly."""
        return self.together.work


def scaling() -> Iterator[Row]:
    """Rows whose model, machines and batch are told; the rest of the file lacks one of these."""
    for line in table("misc_dp_scaling"):
        found = _row(line)
        if found is not None:
            yield found


def _row(line: Mapping[str, str]) -> Row | None:
    model, metric, value = line["model"], line["metric"], float(line["value"])
    name = f"{model}, {line['n_gpus']} x {line['gpu'].split(' ')[0]}, {line['strategy'].split(' ')[0]}"
    if metric.startswith("scaling_efficiency") and "Horovod" in line["strategy"]:
        slowdown = Slowdown(_horovod(line, int(line["n_gpus"])), _horovod(line, 1))
        return Row(f"{name}: over one", model, 100 / value, slowdown)
    if metric == "images_per_s_total":
        setup = _horovod(line, int(line["n_gpus"]))
        return Row(f"{name}: seconds", model, setup.batch / value, setup)
    if metric == "samples_per_s" and line["strategy"].startswith("zero2(dp8)") and model in STANDS_FOR:
        setup = _sharded(line)
        return Row(f"{name}: seconds", model, setup.batch / value, setup)
    return None


def _horovod(line: Mapping[str, str], ranks: int) -> Setup:
    """Of a row, on so many GPUs."""
    speed = next(speed for told, speed in NETWORK.items() if told in line["interconnect"])
    width = min(ranks, int(line["gpus_per_node"]))
    if line["model"] in IMAGES:
        chip, shape = "p100-sxm2", Published(IMAGES[line["model"]], "fp32")
    else:
        chip, shape = "v100-sxm2-32gb", Published("bert-large", "fp16", SEQUENCE)
    machines = Machines(chip, width, speed / 8 * SHARE, LATENCY)
    strategy: Stack = stack(Single()) if ranks == 1 else stack(DataParallel(bucket_bytes=FUSED))
    return Setup(shape, ranks * int(line["batch_per_gpu"]), strategy, machines, (("nodes", ranks // width),))


def _sharded(line: Mapping[str, str]) -> Setup:
    """ColossalAI's ZeRO-2: "seq4096 bs/dp 36"; its FLOP/s count layers that are computed again."""
    ranks, told = int(line["n_gpus"]), line["strategy"]
    sequence, samples = int(told.split("seq")[1].split(" ")[0]), int(told.split("bs/dp ")[1])
    shape = Published(STANDS_FOR[line["model"]], "bf16", sequence, "full")
    size = (("ranks", ranks),)
    return Setup(shape, ranks * samples, stack(Sharded(2)), "dgx-h100", size, "h200-sxm")
