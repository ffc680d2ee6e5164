"""Problems: the same everywhere, honest about their sizes, and worth learning."""

import subprocess
import sys
from dataclasses import replace
from math import log

import cloudpickle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from simulator.model import Model
from simulator.problem import Problem
from simulator.problems import problem, problems
from simulator.problems.blocks import named_parameters
from simulator.problems.draws import mix
from simulator.work import Flops

SMALL_GPT = {"layers": 1, "hidden": 32, "heads": 2, "sequence": 32, "batch": 8}


def batch(seed, step):
    """Eight samples; torch's generator is seeded by the problem."""
    inputs = torch.randn(8, 3)
    return inputs, inputs.sum(1, keepdim=True)


def own(**changes):
    """A problem as a user writes it."""
    given = {"blocks": [nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)], "loss": nn.functional.mse_loss, "data": batch}
    return Problem(**(given | changes))


def train(problem, steps, seed=0):
    """Losses and final parameters of plain training."""
    blocks, losses = problem.build(seed), []
    optimizer = problem.rule.optimizer([p for _, p in named_parameters(blocks)])
    for step in range(steps):
        output, targets = problem.batch_of(seed, step)
        for block in blocks:
            output = block(output)
        loss = problem.loss(output, targets)
        optimizer.zero_grad()
        loss.backward()
        problem.rule.step(optimizer)
        losses.append(loss.item())
    return losses, {name: p.detach().numpy() for name, p in named_parameters(blocks)}


# ---------------------------------------------------------------- every problem

SUMS = "[float(x.sum()) for x in (*p.batch_of(3, 4), *p.parameters(9).values())]"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", problems())
def test_every_problem_keeps_its_promises(name, dtype):
    made = problem(name, dtype=dtype)
    made.check()
    model = made.model()
    assert model.parameters == sum(array.size for array in made.parameters(0).values())
    assert {str(array.dtype) for array in made.parameters(0).values()} == {dtype}
    assert model.parameter_bytes == {"float32": 4, "float64": 8}[dtype]
    assert model.batch == made.batch == len(made.batch_of(3, 7)[0])
    assert len(made.shapes()) == len(model.blocks) + 1
    assert made.name == name and "loss" in made.evaluate(made.parameters(0))


@pytest.mark.parametrize("name", problems())
def test_both_dtypes_start_alike_and_see_the_same(name):
    single, double = problem(name), problem(name, dtype="float64")
    for key, array in double.parameters(5).items():
        assert (single.parameters(5)[key] == array.astype("float32")).all()
    for a, b in zip(single.batch_of(5, 2), double.batch_of(5, 2), strict=True):
        assert torch.equal(a, b.to(a.dtype))


def test_seed_and_step_decide_in_any_process():
    class Doubled(nn.Module):
        def forward(self, x):
            return 2 * x

    many = [problem(name) for name in problems()] + [own(blocks=lambda: [nn.Linear(3, 1), Doubled()])]
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # as for a notebook cell
    code = f"import cloudpickle, sys\nfor p in cloudpickle.load(sys.stdin.buffer): print({SUMS})"
    done = subprocess.run([sys.executable, "-c", code], input=cloudpickle.dumps(many), capture_output=True, check=True)
    assert done.stdout.decode().splitlines() == [str(eval(SUMS, {"p": p})) for p in many]


def test_seeds_and_steps_differ():
    for name in problems():
        made = problem(name)
        draws = [made.batch_of(seed, step)[0] for seed, step in [(0, 0), (0, 1), (1, 0), (1, 1)]]
        assert not any(torch.equal(a, b) for i, a in enumerate(draws) for b in draws[:i])


@given(st.lists(st.tuples(st.integers(-(2**40), 2**40), st.integers(0, 2**40)), unique=True, min_size=2))
def test_mix_tells_pairs_apart(pairs):
    assert len({mix(*pair) for pair in pairs}) == len(pairs)
    assert all(0 <= mix(*pair) < 2**63 for pair in pairs)


def test_mix_of_zero_is_the_first_splitmix64_number():
    assert mix(0) == 0xE220A8397B1DCDAF >> 1


# ---------------------------------------------------------------- quadratic


@settings(max_examples=25, deadline=None)
@given(
    spectrum=st.lists(st.floats(0.01, 10), min_size=1, max_size=5),
    blocks=st.integers(1, 5),
    noise=st.sampled_from([0.0, 0.7]),
    start=st.floats(-2, 2),
)
def test_quadratic_has_exact_losses_and_noisy_gradients(spectrum, blocks, noise, start):
    blocks = min(blocks, len(spectrum))
    made = problem("quadratic", dtype="float64", spectrum=spectrum, noise=noise, start=start, batch=4, blocks=blocks)
    modules = made.build(0)
    inputs, targets = made.batch_of(1, 2)
    output = inputs
    for module in modules:
        output = module(output)
    loss = made.loss(output, targets)
    loss.backward()
    curvature = torch.tensor(spectrum, dtype=torch.float64)
    assert loss.item() == pytest.approx(0.5 * start**2 * sum(spectrum), rel=1e-12)
    gradient = torch.cat([p.grad for _, p in named_parameters(modules)])
    torch.testing.assert_close(gradient, curvature * start + inputs[:, 1:].mean(0))
    assert made.evaluate(made.parameters(0))["loss"] == pytest.approx(loss.item(), rel=1e-12)


def test_quadratic_without_noise_decays_as_known():
    losses, _ = train(problem("quadratic", dtype="float64", noise=0.0, lr=0.5), steps=10)
    assert losses == pytest.approx([0.5 * (0.5 ** (2 * t) + 0.1 * 0.95 ** (2 * t)) for t in range(10)], rel=1e-12)


def test_quadratic_noise_is_standard_normal():
    inputs, _ = problem("quadratic", batch=20_000, noise=2.0).batch_of(0, 0)
    assert inputs[:, 1:].std(0).tolist() == pytest.approx([2, 2], rel=0.03)
    assert inputs[:, 1:].mean(0).tolist() == pytest.approx([0, 0], abs=0.06)


# ---------------------------------------------------------------- digits


def test_digits_are_the_known_images_split_once():
    from simulator.problems import digits

    images, labels = digits.all_images()
    assert images.shape == (1797, 64) and images.min() == 0 and images.max() == 1
    assert labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert labels[digits.TRAINING :].bincount().min() > 15


def test_perceptron_learns_digits():
    made = problem("digits-mlp")
    losses, parameters = train(made, steps=300)
    assert losses[0] == pytest.approx(log(10), rel=0.05)
    assert made.evaluate(parameters)["accuracy"] > 0.9


def test_convolutional_net_learns_digits():
    made = problem("digits-conv")
    _, parameters = train(made, steps=300)
    assert made.evaluate(parameters)["accuracy"] > 0.9


def test_a_batch_holds_different_images():
    inputs, _ = problem("digits-mlp", batch=1500).batch_of(0, 0)
    assert len(inputs.unique(dim=0)) == 1500


def test_perceptron_costs_what_it_must():
    model = problem("digits-mlp", hidden=32, layers=2).model()
    assert [block.parameters for block in model.blocks] == [64 * 32 + 32, 32 * 10 + 10]
    assert [block.forward for block in model.blocks] == [Flops(2 * 64 * 32), Flops(2 * 32 * 10)]
    assert [block.backward for block in model.blocks] == [Flops(4 * 64 * 32), Flops(4 * 32 * 10)]
    assert [block.input_bytes for block in model.blocks] == [64 * 4, 32 * 4]


# ---------------------------------------------------------------- tiny GPT


def test_sonnets_are_whole():
    from simulator.problems import gpt

    letters, train_text, held_back = gpt.whole_text()
    text = "".join(letters[i] for i in torch.cat([train_text, held_back]))
    poems = text.strip().split("\n\n")
    assert len(poems) == 18 and {len(poem.splitlines()) for poem in poems} == {14}
    assert text.isascii() and len(text) > 10_000
    assert not any(line != line.rstrip() for line in text.splitlines())


def test_tiny_gpt_learns_more_than_letter_frequencies():
    from simulator.problems import gpt

    share = gpt.whole_text()[1].bincount().double() / len(gpt.whole_text()[1])
    entropy = -(share[share > 0] * share[share > 0].log()).sum().item()
    made = problem("tiny-gpt", **SMALL_GPT)
    losses, parameters = train(made, steps=100)
    assert losses[-1] < entropy - 0.2 and made.evaluate(parameters)["loss"] < entropy - 0.2


def test_tiny_gpt_does_not_look_ahead():
    made = problem("tiny-gpt", dtype="float64", **SMALL_GPT)
    letters, targets = made.batch_of(0, 0)
    assert torch.equal(letters[:, 1:], targets[:, :-1])
    changed = letters.clone()
    changed[:, 20:] = 0
    before, after = letters, changed
    for block in made.build(0):
        before, after = block(before), block(after)
    torch.testing.assert_close(before[:, :20], after[:, :20])
    assert not torch.allclose(before[:, 20:], after[:, 20:])


def test_tiny_gpt_counts_attention():
    model = problem("tiny-gpt").model()
    assert model.blocks[1].forward == Flops(64 * 24 * 64**2 + 4 * 64**2 * 64)
    assert (model.blocks[0].input_bytes, model.blocks[1].input_bytes) == (64 * 8, 64 * 64 * 4)


# ---------------------------------------------------------------- problems of one's own


def test_own_modules_stay_untouched():
    modules = [nn.Linear(3, 4), nn.Linear(4, 1)]
    before = [p.clone() for m in modules for p in m.parameters()]
    made = own(blocks=modules, dtype="float64")
    made.check()
    train(made, 3)
    for old, new in zip(before, (p for m in modules for p in m.parameters()), strict=True):
        assert torch.equal(old, new) and new.dtype == torch.float32 and new.grad is None


def test_a_recipe_draws_its_weights_from_the_seed_and_from_nothing_else():
    made = own(blocks=lambda: [nn.Linear(3, 1)])
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, again, other = (made.parameters(seed)["0.weight"] for seed in (7, 7, 8))
    made.batch_of(0, 0)
    assert torch.equal(state, torch.get_rng_state())
    assert (first == again).all() and not (first == other).all()
    torch.manual_seed(7)
    assert (nn.Linear(3, 1).weight.detach().numpy() == first).all()


def test_sequential_counts_as_a_list():
    assert len(own(blocks=nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))).build(0)) == 2


def test_evaluation_sees_the_parameters_given():
    made = own(evaluation=lambda blocks: {"bias": float(blocks[2].bias), "training": blocks[0].training})
    parameters = made.parameters(0) | {"2.bias": [4.5]}
    assert made.evaluate(parameters) == {"bias": 4.5, "training": False}
    assert own().evaluate(own().parameters(0)).keys() == {"loss"}


def test_evaluate_names_what_does_not_fit():
    made = own()
    parameters = made.parameters(0)
    with pytest.raises(ValueError, match=r"missing: 0.bias, 0.weight; unexpected: 3\.x;"):
        made.evaluate({"2.weight": parameters["2.weight"], "2.bias": parameters["2.bias"], "3.x": [1.0]})
    with pytest.raises(ValueError, match=r"2.bias has shape \(1,\); got \(2,\)"):
        made.evaluate(parameters | {"2.bias": [1.0, 2.0]})


def test_measured_times_replace_counted_ones():
    measured = Model.of_times(blocks=3)
    assert replace(own(), times=measured).model() == measured.with_batch(own().batch)


class Drifts(nn.Module):
    """Keeps a number that nobody sees."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return x * self.calls


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"dtype": "float16"}, "float32, float64; got dtype='float16'"),
        ({"blocks": []}, "at least one block; got none"),
        ({"blocks": [nn.Linear(3, 1), "x"]}, "block 1 is a str"),
        ({"blocks": nn.Linear(3, 1)}, "blocks are a list of torch.nn.Module"),
        ({"rule": 0.1}, "rules.SGD"),
        ({"times": 3}, "times is a Model"),
        ({"loss": None}, "loss is a function; got None"),
    ],
)
def test_mistakes_seen_at_once(changes, message):
    with pytest.raises(ValueError, match=message):
        own(**changes)


def stateful(seed, step, calls=[]):  # noqa: B006 (the mistake under test)
    calls.append(0)
    return torch.full((8, 3), float(len(calls))), torch.zeros(8, 1)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"blocks": list}, "at least one block; got none"),
        ({"data": lambda seed, step: torch.ones(8, 3)}, "two tensors, inputs and targets; got a Tensor"),
        ({"data": lambda seed, step: (torch.ones(8, 3), [1])}, r"got a tuple of \(Tensor, list\)"),
        ({"data": lambda seed, step: (torch.ones(8, 3), torch.ones(7))}, r"\(8, 3\) and targets of shape \(7,\)"),
        ({"data": lambda seed, step: (torch.ones(0, 3), torch.ones(0))}, "at least one"),
        ({"data": stateful}, "two calls of data"),
        ({"loss": lambda o, t: (o - t) ** 2}, r"one element; got shape \(2, 1\)"),
        ({"loss": lambda o, t: 1.0}, "got a float"),
        ({"loss": lambda o, t: (o.detach() - t).mean()}, "has no gradient"),
        ({"loss": lambda o, t: ((o - t) ** 2).sum()}, "use reduction='mean'"),
        ({"blocks": [nn.Linear(3, 1), nn.Flatten(0)], "loss": lambda o, t: o.mean()}, None),
        ({"blocks": [nn.Linear(3, 2), nn.Flatten(0)]}, r"block 1 made shape \(4,\) of \(2, 2\)"),
        ({"blocks": [nn.LSTM(3, 1)]}, "block 0 returned a tuple"),
        ({"blocks": [nn.Linear(3, 4), nn.Linear(5, 1)]}, r"block 1 cannot take what enters it, of shape \(2, 4\)"),
        ({"loss": nn.functional.nll_loss}, r"loss\(output, targets\) cannot take an output of shape \(2, 1\)"),
        ({"blocks": [nn.Flatten(), nn.Tanh()]}, r"none of its 2 block\(s\) has one that learns"),
        ({"blocks": [nn.Linear(3, 1), Drifts()]}, "same seed of torch; block 1 did not"),
    ],
)
def test_mistakes_seen_by_check(changes, message):
    made = own(**changes)
    if message is None:
        return made.check()
    with pytest.raises(ValueError, match=message):
        made.check()


def test_a_problem_is_tried_once():
    calls = []
    made = own(loss=lambda o, t: calls.append(0) or nn.functional.mse_loss(o, t))
    made.check()
    first = len(calls)
    made.check()
    assert len(calls) == first > 0


def test_a_trial_tells_what_blocks_do():
    odd = [nn.ReLU(inplace=True), nn.Linear(3, 4), nn.Tanh(), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(4, 1)]
    traits = own(blocks=[*odd, nn.BatchNorm1d(1)]).traits
    assert (traits.draws, traits.overwrites, traits.keeps) == ({4}, {0, 3}, {6})


def test_times_of_another_problem_are_refused():
    with pytest.raises(ValueError, match="got 4 blocks in times for 3 in the problem"):
        own(times=Model.of_times(blocks=4)).model()


def test_a_smaller_last_batch_is_named():
    made = own(data=lambda seed, step: (torch.ones(8 - step, 3), torch.ones(8 - step, 1)))
    with pytest.raises(ValueError, match=r"data\(0, 0\), 8; data\(0, 3\) gave 5"):
        made.batch_of(0, 3)


@pytest.mark.parametrize(
    "name, knobs, message",
    [
        ([], {}, r"one of .*; got \[\]"),
        ("quadratic", {"spectrum": 3}, "spectrum is a list of numbers; got spectrum=3"),
        ("digits", {}, "one of quadratic, digits-mlp, digits-conv, tiny-gpt, tiny-moe; got 'digits'"),
        ("digits-mlp", {"width": 3}, "knobs of digits-mlp are hidden, layers, batch, lr; got width"),
        ("digits-mlp", {"layers": 1}, "got layers=1"),
        ("digits-mlp", {"batch": 1501}, "of 1500; got batch=1501"),
        ("digits-conv", {"channels": 0}, "channels is a whole number, at least 1; got channels=0"),
        ("digits-conv", {"lr": -1}, "lr is a finite number, above 0"),
        ("tiny-gpt", {"heads": 3}, "hidden=64, heads=3"),
        ("tiny-gpt", {"sequence": 5000}, "got 5000"),
        ("quadratic", {"spectrum": ()}, "dimensions=0"),
        ("quadratic", {"blocks": 3}, "at least one of 2 dimensions; got blocks=3"),
        ("quadratic", {"noise": float("nan")}, "noise is a finite number"),
    ],
)
def test_bad_names_and_knobs_are_named(name, knobs, message):
    with pytest.raises(ValueError, match=message):
        problem(name, **knobs)
