"""DistributedDataParallel's communication hooks, which compress gradients: by name, as it wants them."""

# Without annotations from __future__: DistributedDataParallel compares those of a hook with classes, not texts.

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

POWERSGD_START = 2
"""The first step in which gradients are compressed: DistributedDataParallel arranges its buckets in the first two."""


@dataclass(frozen=True)
class Hook:
    """A hook and what it remembers, made anew for every model."""

    state: Callable[[Any], Any]
    function: Callable[..., torch.futures.Future[torch.Tensor]]

    def of(self, model: DistributedDataParallel) -> tuple[Any, Callable[..., Any]]:
        """The arguments of ``model.register_comm_hook``."""
        return self.state(model.process_group), self.function


def fp16() -> Hook:
    """Gradients travel as 16-bit floats, as PyTorch's own hook sends them."""
    return Hook(lambda group: group, fp16_compress_hook)


def bf16() -> Hook:
    """Gradients travel as bfloat16. PyTorch's own hook demands CUDA, though gloo averages bfloat16 as well."""
    return Hook(lambda group: group, bf16_hook)


def powersgd(rank: int = 2, feedback: bool = True) -> Hook:
    """PowerSGD (Vogels et al. 2019, arXiv:1905.13727) with warm start, from the third step on.

    A matrix of r × c numbers becomes (r + c) · rank where that saves at least half, and travels as it is elsewhere.
    ``feedback``: what was left out of a gradient is added to the next.
    """

    def state(group: Any) -> PowerSGDState:
        return PowerSGDState(
            group, matrix_approximation_rank=rank, start_powerSGD_iter=POWERSGD_START, use_error_feedback=feedback
        )

    return Hook(state, powerSGD_hook)


def bf16_hook(group: Any, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """Average a bucket in bfloat16: divided before it is sent, so that the sum does not overflow."""
    small = bucket.buffer().to(torch.bfloat16).div_(group.size())
    buffer = bucket.buffer()
    future = dist.all_reduce(small, group=group, async_op=True).get_future()
    return future.then(lambda done: buffer.copy_(done.value()[0]))  # type: ignore[no-any-return]


HOOKS: dict[str, Callable[..., Hook]] = {"fp16": fp16, "bf16": bf16, "powersgd": powersgd}
"""The hooks by name."""
