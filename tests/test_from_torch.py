"""A torch module as operations: FLOPs, bytes and blocks are those that torch counts."""

from __future__ import annotations

import pytest
import torch
from common.transformers import A100
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import simulator as sim


def counted(module, sample):
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        module.train()(sample)
    return counter.get_total_flops() / len(sample)


@pytest.mark.parametrize(
    "module, shape",
    [
        (nn.Linear(8, 4), (3, 8)),
        (nn.Conv2d(4, 8, 3, groups=2, padding=1), (2, 4, 9, 9)),
        (nn.ConvTranspose2d(4, 8, 3, groups=2), (2, 4, 9, 9)),
        (nn.Conv3d(2, 4, 3), (2, 2, 5, 5, 5)),
        (nn.TransformerEncoderLayer(64, 4, 128, batch_first=True), (2, 16, 64)),
    ],
)
def test_from_torch_counts_the_flops_that_torch_counts(module, shape):
    model = sim.Model.from_torch(module, torch.zeros(shape))
    assert model.model_flops / 3 == pytest.approx(counted(module, torch.zeros(shape)))
    assert model.parameters == sum(parameter.numel() for parameter in module.parameters())
    assert model.batch == shape[0]


def test_from_torch_makes_blocks_of_the_children_of_a_sequential():
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 900, 10))
    model = sim.Model.from_torch(net, torch.zeros(4, 3, 32, 32))
    assert [block.parameters for block in model.blocks] == [448, 32, 0, 0, 144010]
    assert [block.input_bytes for block in model.blocks] == [12288, *[4 * 14400] * 4]
    assert model.blocks[1].buffers == 32 and model.blocks[0].shapes[0] == (16, 3, 3, 3)
    run = sim.simulate(sim.DataParallel(), model, sim.Cluster.flat(2, 1e9, 1e-6, A100), steps=1)
    assert run.makespan > 0


def test_from_torch_keeps_what_autograd_keeps():
    """Linear: its input; GELU: its input; the next Linear: that again. Parameters do not count."""
    net = nn.Sequential(nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8)))
    (block,) = sim.Model.from_torch(net, torch.zeros(5, 8)).blocks
    assert block.saved_bytes == 4 * (8 + 32 + 32)


def test_from_torch_takes_no_memory_and_leaves_the_module_alone():
    with torch.device("meta"):
        big = nn.Sequential(*(nn.Linear(50_000, 50_000, bias=False) for _ in range(20)))
    assert sim.Model.from_torch(big, torch.zeros(2, 50_000)).parameters == 50_000**2 * 20
    small = nn.Linear(2, 2).eval()
    sim.Model.from_torch(small, torch.zeros(1, 2))
    assert small.weight.device.type == "cpu" and not small.training


def test_from_torch_knows_tied_parameters():
    first, last = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
    last.weight = first.weight
    model = sim.Model.from_torch(nn.Sequential(first, nn.Tanh(), last), torch.zeros(2, 8))
    assert model.parameters == 64 and model.blocks[2].ties[0].block == 0


@pytest.mark.parametrize(
    "module, sample, said",
    [
        (3, torch.zeros(1, 8), "module is a torch.nn.Module"),
        (nn.Linear(8, 8), None, "sample is a tensor"),
        (nn.Linear(8, 8), torch.tensor(1.0), "samples along its first dimension"),
        (nn.Linear(8, 8), torch.zeros(2, 7), "block 0 cannot take what enters it"),
    ],
)
def test_from_torch_says_what_is_wrong(module, sample, said):
    with pytest.raises(ValueError, match=said):
        sim.Model.from_torch(module, sample)
