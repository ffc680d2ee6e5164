"""Which collectives PyTorch really issues: every one passes its dispatcher, from Python and from C++ alike.

While ``watching`` holds, kernels of our own stand before those of ``torch.ops.c10d`` (what process groups run) and of
``torch.ops._c10d_functional`` (what DTensor runs). They tell about the collective and pass it on. This sees what DDP's
reducer issues from C++, and it costs nothing for operations that are no communication.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import _resolve_process_group

from .issued import FUNCTIONAL, GROUPS, Issued, Reader

Work = Any
Hear = Callable[[Issued], Callable[[Any], None]]
"""Told when a collective is issued; what it gives is told its Work, or the tensors that wait_tensor will be given."""


@contextmanager
def watching(hear: Hear, waited: Callable[[Work | torch.Tensor], None], device: str = "cpu") -> Iterator[None]:
    """Tell ``hear`` of everything that is issued, and ``waited`` of every Work or tensor that was waited for."""
    key = torch.device(device).type.upper()
    groups, functional = torch.library.Library("c10d", "IMPL"), torch.library.Library("_c10d_functional", "IMPL")
    plain_wait = dist.Work.wait

    def wait(work: Work, *arguments: Any) -> bool:
        done: bool = plain_wait(work, *arguments)
        waited(work)
        return done

    for name, reader in GROUPS.items():
        kernel = _before(getattr(torch.ops.c10d, name).default, reader, hear)
        groups.impl(name, kernel, f"Autograd{key}", with_keyset=True)
    for name, reader in FUNCTIONAL.items():
        functional.impl(name, _around(getattr(torch.ops._c10d_functional, name).default, reader, hear), key)
    functional.impl("wait_tensor", _waiting(waited), key)
    dist.Work.wait = wait  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        dist.Work.wait = plain_wait  # type: ignore[method-assign]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            groups._destroy()
            functional._destroy()


def _before(operation: Any, reader: Reader, hear: Hear) -> Callable[..., Any]:
    """A kernel for the autograd key, which goes on to the kernel behind it."""
    names = [argument.name for argument in operation._schema.arguments]

    def kernel(keys: Any, *arguments: Any, **more: Any) -> Any:
        given = {**dict(zip(names, arguments)), **more}
        begun = hear(reader(dist.ProcessGroup.unbox(given["process_group"]), given))
        result = operation.redispatch(keys & torch._C._after_autograd_keyset, *arguments, **more)
        begun(dist.Work.unbox(result[-1] if isinstance(result, (tuple, list)) else result))
        return result

    return kernel


def _around(operation: Any, reader: Reader, hear: Hear) -> Callable[..., Any]:
    """A kernel for the device's key, which does what the operation does on every device."""
    names = [argument.name for argument in operation._schema.arguments]

    def kernel(*arguments: Any, **more: Any) -> Any:
        given = {**dict(zip(names, arguments)), **more}
        group = given["group_name"]
        if isinstance(group, str):
            group = _resolve_process_group(group)  # type: ignore[arg-type]
        begun = hear(reader(group, given))
        result = operation._op_dk(torch._C.DispatchKey.CompositeExplicitAutograd, *arguments, **more)
        begun(result)
        return result

    return kernel


def _waiting(waited: Callable[[torch.Tensor], None]) -> Callable[[torch.Tensor], Any]:
    operation = torch.ops._c10d_functional.wait_tensor.default

    def kernel(tensor: torch.Tensor) -> Any:
        result = operation._op_dk(torch._C.DispatchKey.CompositeExplicitAutograd, tensor)
        waited(tensor)
        return result

    return kernel
