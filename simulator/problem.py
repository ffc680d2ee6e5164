"""A training problem: blocks, loss and data. What virtual and real workers both learn on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .model import Model
from .rules import SGD, Rule

if TYPE_CHECKING:
    import numpy
    import torch

    from .problems.trial import Traits

DTYPES = ("float32", "float64")
HELD_BACK = 2**31 - 1
"""The seed whose first batch evaluates problems that bring no evaluation; runs do not use it."""


@dataclass(frozen=True, eq=False)
class Problem:
    """Something to learn, split into blocks.

    - ``blocks``: a list of ``torch.nn.Module``, run one after another, or a function without arguments that makes
      one (torch's random numbers are then seeded with the seed of the run, which so draws the initial weights).
      Modules given are templates: every use copies them. One tensor passes from block to block.
    - ``loss(output, targets)``: the mean loss over the samples, a tensor with one element.
    - ``data(seed, step)``: the inputs and targets of the *global* batch of a step, samples along the first
      dimension. Worker w of W takes slice w. It gives the same batch whenever and wherever it is called (torch's
      random numbers are seeded from both numbers before each call).
    - ``prepare(inputs, targets)``: makes some samples ready once they are fetched, each for itself and each time alike
      (decoding, say, or padding); gives two tensors. It is part of Load, and may be slow; optional. It draws no random
      numbers of torch's own, which all threads share.
    - ``evaluation(blocks)``: a dict of numbers on data held back, given trained blocks in eval mode; optional.
    - ``rule``: how parameters are updated unless the strategy says otherwise.
    - ``dtype``: "float32" or "float64", for parameters and floating-point data.
    - ``times``: a Model with measured times, made by calibration; optional.

    What blocks and loss draw from torch's random numbers, as Dropout does, depends on seed, step, block, microbatch and
    worker: both clocks draw the same, and so does every run of one seed. A batch that is cut otherwise draws
    otherwise, so such a problem does not learn quite what ``Single`` learns.

    Raises ValueError for a bad argument; what blocks, loss and data give is seen by ``check()`` and in use.
    Two problems are equal only if they are the same object.

    Example, in a notebook cell::

        problem = sim.Problem(
            blocks=[torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)],
            loss=torch.nn.functional.mse_loss,
            data=my_batch,
        )
    """

    blocks: Sequence[torch.nn.Module] | Callable[[], Sequence[torch.nn.Module]]
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    data: Callable[[int, int], tuple[torch.Tensor, torch.Tensor]]
    evaluation: Callable[[Sequence[torch.nn.Module]], dict[str, float]] | None = None
    rule: Rule = field(default_factory=lambda: SGD(0.1))
    dtype: str = "float32"
    name: str = "own problem"
    times: Model | None = None
    prepare: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", {f"torch.{name}": name for name in DTYPES}.get(str(self.dtype), self.dtype))
        if self.dtype not in DTYPES:
            raise ValueError(f"a problem computes in one of {', '.join(DTYPES)}; got dtype={self.dtype!r}")
        if not isinstance(self.rule, Rule):
            raise ValueError(f"rule is one of simulator.rules, such as rules.SGD(0.1); got {self.rule!r}")
        if self.times is not None and not isinstance(self.times, Model):
            raise ValueError(f"times is a Model, as calibration makes it; got {self.times!r}")
        for name in ("loss", "data", "evaluation", "prepare"):
            given = getattr(self, name)
            if not callable(given) and not (given is None and name in ("evaluation", "prepare")):
                raise ValueError(f"{name} is a function; got {getattr(self, name)!r}")
        if not _is_recipe(self.blocks):
            from .problems.blocks import checked

            checked(self.blocks)

    def __repr__(self) -> str:
        return f"<Problem {self.name!r}: {self.dtype}, updated by {self.rule}>"

    @property
    def torch_dtype(self) -> torch.dtype:
        """``dtype`` as torch names it."""
        import torch

        return torch.float64 if self.dtype == "float64" else torch.float32

    def build(self, seed: int) -> list[torch.nn.Module]:
        """Fresh blocks with their initial weights, in the problem's dtype. The caller's random state is untouched."""
        from .problems.blocks import checked
        from .problems.draws import seeded

        with seeded(seed):
            made = self.blocks() if _is_recipe(self.blocks) else self.blocks  # type: ignore[operator]
        # copied even when just made: a recipe may return the same modules each time
        return [block.to(self.torch_dtype) for block in deepcopy(checked(made))]

    def batch_of(self, seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets of the global batch of a step, prepared; floating-point numbers in the problem's dtype.

        Raises ValueError when they are not two tensors of ``batch`` samples each.
        """
        return self.prepared(*self.drawn(seed, step))

    def prepared(self, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What ``prepare`` makes of some samples. Raises ValueError when these are not two tensors of as many."""
        if self.prepare is None:
            return inputs, targets
        return self._pair(self.prepare(inputs, targets), "prepare(inputs, targets)", len(inputs))

    def drawn(self, seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The global batch of a step as ``data`` gives it. Raises ValueError as ``batch_of`` does."""
        inputs, targets = self._draw(seed, step)
        if len(inputs) != self.batch:
            raise ValueError(
                f"every global batch has as many samples as data(0, 0), {self.batch}; data({seed}, {step}) gave"
                f" {len(inputs)}; drop the last, smaller batch or fill it up"
            )
        return inputs, targets

    @cached_property
    def batch(self) -> int:
        """Samples in a global batch."""
        return len(self._draw(0, 0)[0])

    def parameters(self, seed: int) -> dict[str, numpy.ndarray[Any, Any]]:
        """The initial parameters: block number and the module's own name, as in ``"0.weight"``, to arrays."""
        from .problems.blocks import named_parameters

        return {name: tensor.detach().numpy().copy() for name, tensor in named_parameters(self.build(seed))}

    def evaluate(self, parameters: Mapping[str, Any]) -> dict[str, float]:
        """What ``evaluation`` says of these parameters (names as in ``parameters(seed)``, to arrays).

        Without an evaluation it is ``{"loss": …}`` on a batch that no run sees. Raises ValueError when names or
        shapes are not those of the blocks.
        """
        import torch

        from .problems.blocks import fill
        from .problems.draws import seeded

        blocks = self.build(0)
        fill(blocks, parameters)
        for block in blocks:
            block.eval()
        with torch.no_grad(), seeded(HELD_BACK):
            if self.evaluation is not None:
                return self.evaluation(blocks)
            output, targets = self.batch_of(HELD_BACK, 0)
            for block in blocks:
                output = block(output)
            return {"loss": float(self.loss(output, targets))}

    def shapes(self) -> list[tuple[tuple[int, ...], torch.dtype]]:
        """Shape per sample and dtype of what enters each block; the last entry is the output of all."""
        return list(self._shapes)

    def model(self) -> Model:
        """The problem as the virtual clock times it: ``times`` if measured, else parameters, sizes and FLOPs.

        Raises ValueError when ``times`` has another number of blocks.
        """
        if self.times is None:
            return self._model
        if len(self.times.blocks) != len(self._shapes) - 1:
            raise ValueError(
                f"times are those of the problem's own blocks; got {len(self.times.blocks)} blocks in times for"
                f" {len(self._shapes) - 1} in the problem; calibrate again"
            )
        return self.times.with_batch(self.batch)

    def check(self) -> None:
        """Try two samples, once. Raises ValueError that says what is wrong with blocks, loss or data.

        Runs that learn call it before they begin.
        """
        self.traits  # noqa: B018 (found by trying)

    @cached_property
    def traits(self) -> Traits:
        """Which blocks draw random numbers, and which write over what enters them. Raises as ``check`` does."""
        from .problems.trial import tried

        return tried(self)

    @cached_property
    def _shapes(self) -> tuple[tuple[tuple[int, ...], torch.dtype], ...]:
        from .problems.inspection import shapes

        return shapes(self)

    @cached_property
    def _model(self) -> Model:
        from .problems.inspection import model

        return model(self)

    def _draw(self, seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        from .problems.draws import mix, seeded

        with seeded(mix(seed, step)):
            drawn = self.data(seed, step)
        return self._pair(drawn, "data(seed, step)")

    def _pair(self, given: object, name: str, samples: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets, checked, in the problem's dtype."""
        import torch

        from .problems.blocks import kinds

        pair = given if isinstance(given, (tuple, list)) else ()
        if [isinstance(x, torch.Tensor) for x in pair] != [True, True]:
            raise ValueError(f"{name} returns two tensors, inputs and targets; got {kinds(given)}")
        inputs, targets = ((x.to(self.torch_dtype) if x.is_floating_point() else x).contiguous() for x in pair)
        sizes = {len(x) if x.dim() else 0 for x in (inputs, targets)}
        if len(sizes) > 1 or not min(sizes) or samples not in (None, *sizes):
            raise ValueError(
                f"{name} returns one target for each sample, samples along the first dimension,"
                f" {'at least one' if samples is None else f'as many as it was given, {samples}'};"
                f" got inputs of shape {tuple(inputs.shape)} and targets of shape {tuple(targets.shape)}"
            )
        return inputs, targets


def _is_recipe(blocks: object) -> bool:
    """Whether blocks are a function that makes them: modules can be called too, but are not recipes."""
    return callable(blocks) and not hasattr(blocks, "named_parameters")
