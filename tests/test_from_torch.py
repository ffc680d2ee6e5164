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


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 4)

    def forward(self, x, mask):
        return {"logits": self.linear(x) * mask}


class Looks(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


PAIR = torch.zeros(6, 8), torch.ones(6, 4)


@pytest.mark.parametrize("sample", [PAIR, dict(x=PAIR[0], mask=PAIR[1])])
def test_from_torch_takes_several_inputs_and_any_output(sample):
    model = sim.Model.from_torch(Masked(), sample)
    assert model.batch == 6 and model.model_flops == 3 * 2 * 8 * 4
    assert model.blocks[0].input_bytes == 4 * (8 + 4)


def test_rows_of_samples_count_for_the_samples():
    """What flattens tokens into the first dimension leaves as many samples, and their FLOP."""
    net = nn.Sequential(nn.Linear(8, 4), nn.Flatten(0, 1), nn.Linear(4, 16))
    model = sim.Model.from_torch(net, torch.zeros(3, 5, 8))
    assert model.model_flops / 3 == 5 * 2 * (8 * 4 + 4 * 16) and model.blocks[2].input_bytes == 4 * 5 * 4


def test_frozen_parameters_have_no_gradient_and_no_optimizer():
    """Weight gradients, states and all-reduces are of what learns; where nothing before learns, no backward pass is."""
    net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))
    whole = sim.Model.from_torch(net, torch.zeros(16, 64))
    net[0].requires_grad_(False)
    part = sim.Model.from_torch(net, torch.zeros(16, 64))
    assert part.parameters == 256 * 64 + 64 and part.blocks[0].buffers == 64 * 256 + 256
    assert part.blocks[0].backward.flops == 0 and part.blocks[2].backward == whole.blocks[2].backward
    few, many = (sim.memory(sim.DataParallel(), model, 2)[0].peak for model in (part, whole))
    assert few.optimizer == few.gradients * 2 == 8 * part.parameters and many.optimizer == 8 * whole.parameters
    net[0].requires_grad_(True)
    net[2].requires_grad_(False)
    last = sim.Model.from_torch(net, torch.zeros(16, 64)).blocks[2]
    assert last.backward.flops == last.forward.flops and last.weight.flops == 0


def test_a_module_in_another_dtype_is_another_width():
    """As the module itself in that dtype; its own dtype changes nothing."""
    net, sample = nn.Sequential(nn.Linear(64, 256), nn.Tanh(), nn.Linear(256, 64)), torch.zeros(16, 64)
    model = sim.Model.from_torch(net, sample)
    halved, own = sim.with_knobs(model, dtype="bfloat16"), sim.Model.from_torch(net.bfloat16(), sample.bfloat16())
    assert sim.with_knobs(model, dtype="fp32") == model and halved.parameter_bytes == 2
    assert halved.blocks[1:] == own.blocks[1:] and halved.blocks[0].forward == own.blocks[0].forward
    two = sim.Cluster.flat(2, 1e9, 1e-6, A100)
    times = [sim.simulate(sim.DataParallel(), model, two, steps=1, dtype=dtype).makespan for dtype in ("fp32", "bf16")]
    assert times[0] == sim.simulate(sim.DataParallel(), model, two, steps=1).makespan > times[1]
    with pytest.raises(ValueError, match="belong to one dtype; got dtype='bf16': leave it out"):
        sim.with_knobs(sim.Model.of_times(), dtype="bf16")


@pytest.mark.parametrize(
    "module, sample, said",
    [
        (3, torch.zeros(1, 8), "module is a torch.nn.Module"),
        (nn.Linear(8, 8), None, "sample is a tensor"),
        (nn.Linear(8, 8), (), "sample is a tensor"),
        (nn.Linear(64, 8), torch.zeros(64), r"one sample of them is sample.unsqueeze\(0\)"),
        (nn.Conv2d(3, 16, 3), torch.zeros(3, 32, 32), r"a single one, give sample.unsqueeze\(0\)"),
        (nn.Sequential(Masked(), nn.Linear(4, 4)), (torch.zeros(2, 8), torch.ones(2, 4)), "block 0 returned a dict"),
        (Masked(), (torch.zeros(2, 8), torch.ones(2, 3)), "cannot take the inputs of sample"),
        (Looks(), torch.zeros(2, 8), r"cannot look at numbers, as in `if x.sum\(\) > 0`"),
        (nn.Linear(8, 8), torch.tensor(1.0), "samples along its first dimension"),
        (nn.Linear(8, 8), torch.zeros(2, 7), "block 0 cannot take what enters it"),
    ],
)
def test_from_torch_says_what_is_wrong(module, sample, said):
    with pytest.raises(ValueError, match=said):
        sim.Model.from_torch(module, sample)
