"""Tensor parallelism: PyTorch's DTensor, with plans for the problems of this package.

A plan says how each Linear is split: by columns (its outputs) or by rows (its inputs); a pair of both needs one
all-reduce forward and one backward (Shoeybi et al. 2019, arXiv:1909.08053). With sequence parallelism what lies between
the pairs is split along the sequence, and an all-gather and a reduce-scatter stand for each all-reduce (Korthikanti et
al. 2022, arXiv:2205.05198).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    PrepareModuleOutput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.nn import functional

from simulator.holdings import Piece
from simulator.problems.transformer import Attention, Embedding, Transformer

from .sharded import full, quiet, shard
from .training import Chain, Training

Plan = dict[str, ParallelStyle]


def tensor_parallel(training: Training, sequence: bool = False) -> list[Piece]:
    """``parallelize_module`` over the axis "tensor". ValueError for problems without a plan."""
    model = split(training, sequence)
    return _train(training, model)


def sharded_tensor_parallel(training: Training, stage: int = 3, sequence: bool = False) -> list[Piece]:
    """Tensor parallelism inside FSDP2: the axes "data" and "tensor" of one mesh."""
    model = shard(split(training, sequence), training.mesh()["data"], stage)
    return _train(training, model)


def _train(training: Training, model: Chain) -> list[Piece]:
    optimizer = training.optimizer(model.named_parameters())
    for group in optimizer.param_groups:
        group["foreach"] = False  # one operation for all parameters cannot mix DTensors with others
    with quiet():
        with training.log.recording():
            training.train(model, optimizer, notes_losses=training.me.first("tensor"))
        return training.pieces(_parameters(model))


# ---------------------------------------------------------------- the plans


def split(training: Training, sequence: bool) -> Chain:
    """The model with its Linears split over the axis "tensor"."""
    model, mesh = training.chain(), training.mesh()["tensor"]
    blocks = list(model.blocks.values())
    if any(isinstance(block, Transformer) for block in blocks):
        _check_gpt(training, blocks, mesh.size(), sequence)
        for block in blocks:
            _split_gpt(block, mesh, sequence)
    elif sequence or not _is_perceptron(blocks):
        raise ValueError(
            "PyTorch splits a model by a plan, and there are plans for tiny-gpt and, without sequence=True, for"
            f" digits-mlp; got {training.problem.name}; use engine='program'"
        )
    else:
        parallelize_module(model, mesh, _perceptron_plan(model))
    return model


def _perceptron_plan(model: Chain) -> Plan:
    """Linears in pairs, by columns and by rows; one that is left over stays whole."""
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    columns, rows = linears[0 : len(linears) // 2 * 2 : 2], linears[1::2]
    return {**{name: ColwiseParallel() for name in columns}, **{name: RowwiseParallel() for name in rows}}


def _is_perceptron(blocks: list[nn.Module]) -> bool:
    inner = [module for block in blocks for module in block.modules() if not isinstance(module, nn.Sequential)]
    return all(isinstance(module, (nn.Linear, nn.ReLU)) for module in inner)


def _split_gpt(block: nn.Module, mesh: DeviceMesh, sequence: bool) -> None:
    if isinstance(block, Transformer):
        whole = block.attention[1]
        assert isinstance(whole, Attention)
        block.attention[1] = HeadsFirst(whole, mesh.size())
        parallelize_module(block, mesh, _transformer_plan(sequence))
    elif sequence and isinstance(block, Embedding):
        parts = PrepareModuleOutput(output_layouts=Replicate(), desired_output_layouts=Shard(1))
        parallelize_module(block, mesh, parts)
    elif sequence:
        together = PrepareModuleInput(
            input_layouts=Shard(1), desired_input_layouts=Replicate(), use_local_output=True
        )
        parallelize_module(block, mesh, {"0": SequenceParallel(), "1": together})


def _transformer_plan(sequence: bool) -> Plan:
    if not sequence:
        return {
            "attention.1.read": ColwiseParallel(), "attention.1.write": RowwiseParallel(),
            "think.1": ColwiseParallel(), "think.3": RowwiseParallel(),
        }  # fmt: skip
    return {
        "attention.0": SequenceParallel(), "think.0": SequenceParallel(),
        "attention.1": PrepareModuleInput(input_layouts=Shard(1), desired_input_layouts=Replicate()),
        "attention.1.read": ColwiseParallel(), "attention.1.write": RowwiseParallel(output_layouts=Shard(1)),
        "think.1": ColwiseParallel(input_layouts=Shard(1)), "think.3": RowwiseParallel(output_layouts=Shard(1)),
    }  # fmt: skip


def _check_gpt(training: Training, blocks: list[nn.Module], ways: int, sequence: bool) -> None:
    heads = next(module.heads for block in blocks for module in block.modules() if isinstance(module, Attention))
    if heads % ways:
        raise ValueError(f"every rank takes whole attention heads; got {heads} heads for {ways} ranks")
    length = training.problem.shapes()[1][0][0]
    if sequence and length % ways:
        raise ValueError(f"the sequence is cut into equal parts; got {length} places for {ways} ranks")


# ---------------------------------------------------------------- attention by heads


class HeadsFirst(nn.Module):
    """Attention whose ``read`` keeps query, key and value of one head together, so that a part of its rows is heads.

    In the problem's module all queries come first, and a part of the rows would be no heads at all.
    """

    def __init__(self, whole: Attention, ways: int):
        super().__init__()
        self.heads, self.here = whole.heads, whole.heads // ways
        self.read, self.write = whole.read, whole.write
        with torch.no_grad():
            for parameter in self.read.parameters():
                parameter.copy_(_reordered(parameter, (3, self.heads)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[samples, sequence, hidden]`` to the same shape, this rank's heads only between read and write."""
        query, key, value = self.read(x).unflatten(2, (self.here, 3, -1)).permute(3, 0, 2, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        written: torch.Tensor = self.write(mixed.transpose(1, 2).flatten(2))
        return written


def _reordered(rows: torch.Tensor, parts: tuple[int, int]) -> torch.Tensor:
    """Rows that are nested in ``parts``, nested the other way round."""
    return rows.unflatten(0, (*parts, -1)).transpose(0, 1).flatten(0, 2)


def _parameters(model: Chain) -> Iterator[tuple[str, torch.Tensor]]:
    """Whole parameters in the problem's order of rows."""
    split_reads = {
        f"{name}.read.{part}": module.heads
        for name, module in model.named_modules()
        if isinstance(module, HeadsFirst)
        for part in ("weight", "bias")
    }
    for name, parameter in model.named_parameters():
        tensor = full(parameter)
        yield name, _reordered(tensor, (split_reads[name], 3)) if name in split_reads else tensor
