"""Instructions that compute: they read and write the values of one rank."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import ClassVar

from . import checks
from .instruction import Instruction
from .passes import PASSES
from .values import Chunk, Grads, Params, Replicated, Value, require_value
from .work import Work, require_work

MATHS = "a function of a module, or a frozen dataclass with a __call__"
"""What the maths of an instruction is, so that two of them can be compared."""


@dataclass(frozen=True)
class Update(Instruction):
    """Apply the rule to parameters (``Params(…)`` or a chunk of them) and set their gradients to zero.

    ``staleness`` counts the updates since the gradient's parameters were read; ``since`` names a copy of those
    parameters, for rules that compensate the delay.

    >>> from simulator import Params
    >>> print(*Update(Params(0)).writes)
    Params(0) Grads(0)
    """

    makes: ClassVar[tuple[type[Value], ...]] = (Params,)
    params: Value
    staleness: int = field(default=0, compare=False)
    since: Value | None = None

    def __post_init__(self) -> None:
        require_value("params", self.params)
        if self.since is not None:
            require_value("since", self.since)
        if type(self.staleness) is not int:
            checks.whole("staleness", self.staleness, of="Update")

    @property
    def reads(self) -> tuple[Value, ...]:
        return (self.since,) if self.since else ()

    @property
    def writes(self) -> tuple[Value, ...]:
        return self.params, gradients_of(self.params)

    def __str__(self) -> str:
        return f"Update {self.params}"


@dataclass(frozen=True)
class Reduce(Instruction):
    """Add ``scale * source`` to ``target``: what a server does with a gradient that has arrived.

    >>> from simulator import Grads, Named
    >>> print(Reduce(Grads(0), Named("arrived"), scale=0.5))
    Reduce Grads(0) += 0.5 arrived[0]
    """

    target: Value
    source: Value
    scale: float = 1.0

    def __post_init__(self) -> None:
        require_value("target", self.target)
        require_value("source", self.source)
        if type(self.scale) is not float or not -inf < self.scale < inf:
            checks.number("scale", self.scale, of="Reduce")

    @property
    def reads(self) -> tuple[Value, ...]:
        return self.target, self.source

    @property
    def writes(self) -> tuple[Value, ...]:
        return (self.target,)

    def __str__(self) -> str:
        return f"Reduce {self.target} += {self.scale:.4g} {self.source}"


@dataclass(frozen=True)
class Copy(Instruction):
    """Store a copy of ``source`` under the name ``target``.

    >>> from simulator import Named, Params
    >>> print(Copy(Params(0), Named("anchor")))
    Copy Params(0) to anchor[0]
    """

    source: Value
    target: Value

    def __post_init__(self) -> None:
        require_value("source", self.source)
        require_value("target", self.target)

    @property
    def reads(self) -> tuple[Value, ...]:
        return (self.source,)

    @property
    def writes(self) -> tuple[Value, ...]:
        return (self.target,)

    def __str__(self) -> str:
        return f"Copy {self.source} to {self.target}"


@dataclass(frozen=True)
class Compute(Instruction):
    """Any other maths: ``function(*tensors of reads)`` gives the tensors of ``writes`` (a tuple, or one tensor).

    ``reads`` and ``writes`` may be given as one value or several in a list.

    ``seconds`` is what it costs on the virtual clock, and so is ``work``, for a microbatch of this rank. The function
    is called where tensors are, and only there; where there are none, ``sizes`` says how large [bytes] the buffers are
    that it writes; without it, the first time one is written, it counts as large as the first value that is read.

    Raises ValueError for maths that is no function or has no hash, and for a time [s] below 0.

    >>> from math import sqrt
    >>> from simulator import Named
    >>> print(Compute(sqrt, reads=Named("variance"), writes=Named("deviation"), seconds=1e-3))
    Compute sqrt
    """

    function: object
    reads: tuple[Value, ...] = ()
    writes: tuple[Value, ...] = ()
    seconds: float = 0.0
    work: Work | None = None
    sizes: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "reads", as_values("reads", self.reads))
        object.__setattr__(self, "writes", as_values("writes", self.writes))
        checks.number("seconds", self.seconds, least=0, of="Compute")
        if not callable(self.function):
            raise ValueError(f"the maths of a Compute is a function of tensors; got function={self.function!r}")
        checks.comparable("function", self.function, MATHS)
        checks.comparable("sizes", self.sizes, "a tuple of bytes")
        checks.comparable("work", self.work, "works of numbers and tuples")
        _require_sizes(self)
        if self.work is not None:
            require_work("work", self.work, of="Compute")

    def __str__(self) -> str:
        return f"Compute {getattr(self.function, '__name__', 'function')}"


@dataclass(frozen=True)
class Measure(Instruction):
    """Note a number that is computed from tensors: ``function(*tensors of reads)`` becomes a sample of the Run.

    Where there are no tensors, nothing is noted. Raises ValueError as ``Compute`` does.

    >>> from simulator import Params
    >>> print(Measure("length", abs, reads=Params(0)))
    Measure length
    """

    name: str
    function: object
    reads: tuple[Value, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "reads", as_values("reads", self.reads))
        checks.kind("name", self.name, str, "what a number is called in the samples of a Run")
        if not callable(self.function):
            raise ValueError(f"a Measure has a function from tensors to a number; got function={self.function!r}")
        checks.comparable("function", self.function, MATHS)

    def __str__(self) -> str:
        return f"Measure {self.name}"


@dataclass(frozen=True)
class Free(Instruction):
    """Forget a value, but for the part ``keep``: activations are dropped, gradients become zero again.

    Parameters that are freed may not be used before they are gathered or received again.

    >>> from simulator import Grads
    >>> print(Free(Grads(2)))
    Free Grads(2)
    """

    value: Value
    keep: Value | None = None

    def __post_init__(self) -> None:
        require_value("value", self.value)
        if self.keep is not None:
            require_value("keep", self.keep)

    @property
    def writes(self) -> tuple[Value, ...]:
        return (self.value,)

    def __str__(self) -> str:
        return f"Free {self.value}" if self.keep is None else f"Free {self.value} but {self.keep}"


def _require_sizes(compute: Compute) -> None:
    sizes = checks.several("sizes", compute.sizes, "a tuple of the bytes of what a Compute writes, in this order")
    for size in sizes:
        checks.number("sizes", size, least=0, of="Compute, in bytes")
    if len(sizes) > (writes := len(compute.writes)):
        raise ValueError(f"a Compute has sizes of what it writes; got sizes={sizes} for {writes} write(s)")


def as_values(name: str, values: object) -> tuple[Value, ...]:
    """One value or several, always as a tuple."""
    found = tuple(values) if isinstance(values, (tuple, list)) else (values,)
    for value in found:
        require_value(name, value)
    return found


def gradients_of(params: Value) -> Value:
    """The gradients that belong to parameters: ``Params(b)`` gives ``Grads(b)``, a chunk the same chunk."""
    if isinstance(params, Chunk):
        return Chunk(gradients_of(params.value), params.index, params.of)
    if isinstance(params, Params):
        return Grads(params.blocks)
    if isinstance(params, Replicated):
        return Replicated(Grads(params.value.blocks), params.over)
    raise ValueError(f"only Params or a Chunk of Params have gradients; got {params}")


COMPUTING = (*PASSES, Update, Reduce, Copy, Compute, Measure, Free)
"""What the machines can compute."""
