"""The files of published runs: what they are, how their rows are run, and what may be fitted on parts of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

from . import bigscience, fsdp, megatron, others, scaling
from .rows import ZERO_SHOT, Knobs, Row

DISPATCH = tuple(10e-6 * tens for tens in range(11))
"""What a calibration tries for the time to issue an operation [s]."""
ISSUED = 70e-6
"""What it finds inside of one machine [s], and tries on many."""
EFFICIENCY = (None, 0.83)
"""What it tries for the share of the peak; the catalogue has 0.87 for an A100."""


@dataclass(frozen=True)
class File:
    """Rows that were published together.

    ``knobs``: what a calibration chooses from; it is done on one of ``every`` so many rows. ``unit`` of its numbers.
    """

    name: str
    title: str
    about: str
    rows: Callable[[], Iterator[Row]]
    knobs: tuple[Knobs, ...] = (ZERO_SHOT,)
    every: int = 2
    unit: str = "s"


FILES = (
    File(
        "korthikanti2022",
        "Korthikanti et al. 2022, Table 5",
        "GPT of 22 to 1000 billion parameters on 8 to 512 A100s of Selene, whole layers recomputed or attention alone"
        " (arXiv:2205.05198).",
        megatron.korthikanti2022,
    ),
    File(
        "megatron2021",
        "Narayanan et al. 2021, Table 1",
        "GPT of 1.7 to 1008 billion parameters on 32 to 3072 A100s of Selene; times follow from the published FLOP/s"
        " (arXiv:2104.04473).",
        megatron.megatron2021,
    ),
    File(
        "megatron2021_table2",
        "Narayanan et al. 2021, Table 2, PTD",
        "Pipeline, tensor and data parallelism at a fixed batch on more and more A100s.",
        megatron.megatron2021_table2,
    ),
    File(
        "zero3",
        "Narayanan et al. 2021, Table 2, ZeRO-3",
        "The same models with ZeRO-3 alone, as DeepSpeed did it then: parameters are gathered when they are needed, and"
        " software takes longer for it than the links.",
        fsdp.zero3,
    ),
    File(
        "vtrain_multi",
        "vTrain, many machines (open rows)",
        "Megatron-DeepSpeed on 64 to 512 A100s (Bang et al. 2024, arXiv:2312.12391).",
        megatron.vtrain_multi,
        tuple(Knobs(dispatch, share) for dispatch, share in product((0.0, ISSUED), EFFICIENCY)),
    ),
    File(
        "vtrain_single",
        "vTrain, one machine (open rows)",
        "Megatron-DeepSpeed on 2 to 8 A100s with models of 0.2 to 1.3 billion parameters and few samples at a time:"
        " most kernels are so short that issuing them takes longer.",
        megatron.vtrain_single,
        tuple(Knobs(dispatch) for dispatch in DISPATCH),
        every=6,
    ),
    File(
        "llm_foundry",
        "MosaicML llm-foundry, MPT with FSDP",
        "MPT of 125 million to 70 billion parameters on 8 to 128 A100s of both sizes.",
        fsdp.llm_foundry,
    ),
    File(
        "torchtitan",
        "torchtitan, Llama 3.1 in bf16",
        "Llama 3.1 of 8 and 70 billion parameters on 8 to 256 H100s of 500 W.",
        fsdp.torchtitan,
    ),
    File(
        "bigscience",
        "BigScience on V100s",
        "GPT of 7 to 206 billion parameters, Megatron-LM and Megatron-DeepSpeed on 16 to 256 V100s of Jean Zay. The"
        " same run was up to 80 % slower on other days: where the file has it twice, so has the table.",
        bigscience.bigscience,
    ),
    File(
        "scaling",
        "Horovod and ColossalAI",
        "Images, sentences and tokens: the time of a step, or how many times as long as on one GPU it takes.",
        scaling.scaling,
        unit="s, or over one GPU",
    ),
    File(
        "others",
        "Well-known runs of many authors",
        "Language models of 0.8 to 530 billion parameters and images, in fp32, fp16, bf16 and fp8, on 1 to 12288 P100s,"
        " V100s, A100s and H100s: what their papers and tables tell of the plan, and no more.",
        others.others,
    ),
)
