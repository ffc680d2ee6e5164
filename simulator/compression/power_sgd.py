"""Low-rank matrices."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from .. import checks
from ..problems.draws import generator
from .base import Compressor, Shapes, count
from .levels import wide
from .packing import as_bytes, from_bytes, require_length
from .vectors import require_finite

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Part:
    """One tensor as a matrix of ``rows`` × ``columns``; ``rank`` 0: it is sent as it is."""

    rows: int
    columns: int
    rank: int

    @property
    def left(self) -> int:
        """How many numbers of the first factor, or of the matrix itself, are sent."""
        return self.rows * (self.rank or self.columns)

    @property
    def right(self) -> int:
        """How many numbers of the second factor are sent."""
        return self.columns * self.rank


@dataclass(frozen=True)
class PowerSGD(Compressor):
    """An m × n matrix as ``p qᵀ`` of rank r: r(m + n) numbers, by one step of power iteration.

    ``p = M q`` for a random q or that of the step before, then orthonormal columns, then ``q = Mᵀ p``. Tensors of more
    dimensions are matrices of ``shape[0]`` rows; those of one dimension, and those that r(m + n) would not make
    smaller, are sent as they are. Biased: use it in ``ErrorFeedback``. A flat vector without shapes stays as it is:
    give them with ``encode_shaped``.

    Both factors are linear in M while the other one is common to all ranks, so two all-reduces do the exchange:

    1. ``p = first(flat, q, shapes)``, averaged over the ranks (what is sent as it is, is in it);
    2. ``p = orthogonal(p, shapes)``; ``q = second(flat, p, shapes)``, averaged;
    3. ``rebuild(p, q, shapes)`` is the compressed mean; q warms the next step up; the first is ``begin(shapes, …)``.

    Source: Vogels et al. 2019, arXiv:1905.13727.

        >>> PowerSGD(rank=2).nbytes_shaped(((100, 50), (50,)), width=4)  # 2 (100 + 50) + 50 numbers
        1400
    """

    rank: int = 2

    def __post_init__(self) -> None:
        checks.whole("rank", self.rank, least=1, of="PowerSGD")

    def parts(self, shapes: Shapes) -> tuple[Part, ...]:
        """How each tensor is sent."""
        return tuple(map(self._part, shapes))

    def sizes(self, shapes: Shapes) -> tuple[int, int]:
        """How many numbers ``first`` and ``second`` give.

        >>> PowerSGD(rank=2).sizes(((100, 50), (50,)))
        (250, 100)
        """
        parts = self.parts(shapes)
        return sum(part.left for part in parts), sum(part.right for part in parts)

    # ------------------------------------------------------------ steps of the exchange

    def begin(self, shapes: Shapes, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
        """The second factors before the first step: gaussian, 1-d; all ranks draw from one ``seed``."""
        import torch

        return torch.randn(self.sizes(shapes)[1], generator=generator(seed), dtype=wide(dtype)).to(dtype)

    def first(self, flat: torch.Tensor, q: torch.Tensor, shapes: Shapes) -> torch.Tensor:
        """``M q`` of every matrix, and what is sent as it is, end to end. Raises DivergedError unless M is finite."""
        require_finite(flat, self)
        return _joined(flat, [m @ q if part.rank else m for part, m, q in self._each(shapes, flat, q)])

    def orthogonal(self, p: torch.Tensor, shapes: Shapes) -> torch.Tensor:
        """``first``, with orthonormal columns in every factor. Raises DivergedError unless they are finite."""
        return _joined(p, [_basis(p, self) if part.rank else p for part, p, _ in self._factors(shapes, p)])

    def second(self, flat: torch.Tensor, p: torch.Tensor, shapes: Shapes) -> torch.Tensor:
        """``Mᵀ p`` of every matrix, end to end, for an orthogonal p."""
        pairs = zip(self._each(shapes, flat), self._factors(shapes, p), strict=True)
        return _joined(flat, [m.T @ p for (part, m, _), (_, p, _) in pairs if part.rank])

    def rebuild(self, p: torch.Tensor, q: torch.Tensor, shapes: Shapes) -> torch.Tensor:
        """The flat vector that the factors stand for."""
        return _joined(p, [p @ q.T if part.rank else p for part, p, q in self._factors(shapes, p, q)])

    # ------------------------------------------------------------ as a compressor

    def encode(self, flat: torch.Tensor, seed: int = 0) -> torch.Tensor:
        """See ``Compressor.encode``: a vector of one dimension, so it stays as it is."""
        return as_bytes(require_finite(flat, self)).clone()

    def decode(self, data: torch.Tensor, size: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
        """See ``Compressor.decode``."""
        return self.decode_shaped(data, ((size,),), dtype, seed)

    def nbytes(self, size: int, width: int) -> int:
        """size · width: a vector of one dimension."""
        return size * width

    def encode_shaped(self, flat: torch.Tensor, shapes: Shapes, seed: int = 0) -> torch.Tensor:
        """Both factors, from a random start and one step of power iteration."""
        import torch

        q = self.begin(shapes, flat.dtype, seed).to(flat.device)
        p = self.orthogonal(self.first(flat, q, shapes), shapes)
        return as_bytes(torch.cat([p, self.second(flat, p, shapes)]))

    def decode_shaped(self, data: torch.Tensor, shapes: Shapes, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
        """See ``Compressor.decode_shaped``."""
        require_length(data, self.nbytes_shaped(shapes, dtype.itemsize), self)
        left, right = self.sizes(shapes)
        p, q = from_bytes(data, dtype).split([left, right])
        return self.rebuild(p, q, shapes)

    def nbytes_shaped(self, shapes: Shapes, width: int) -> int:
        """r(m + n) numbers for a matrix, all of them for a vector."""
        return sum(self.sizes(shapes)) * width

    def _part(self, shape: tuple[int, ...]) -> Part:
        rows = shape[0] if shape else 1
        columns = prod(shape[1:])
        worth = len(shape) > 1 and self.rank * (rows + columns) < rows * columns
        return Part(rows, columns, self.rank if worth else 0)

    def _each(
        self, shapes: Shapes, flat: torch.Tensor, q: torch.Tensor | None = None
    ) -> list[tuple[Part, torch.Tensor, torch.Tensor]]:
        """Each part, its matrix and its second factor."""
        if flat.numel() != count(shapes):
            raise ValueError(f"the shapes {shapes} hold {count(shapes)} numbers; got {flat.numel()}; give them all")
        parts = self.parts(shapes)
        ms = flat.split([part.rows * part.columns for part in parts])
        qs = _split(q, parts, flat)
        return [(part, m.view(part.rows, part.columns), q) for part, m, q in zip(parts, ms, qs, strict=True)]

    def _factors(
        self, shapes: Shapes, p: torch.Tensor, q: torch.Tensor | None = None
    ) -> list[tuple[Part, torch.Tensor, torch.Tensor]]:
        """Each part, its first factor and its second."""
        parts = self.parts(shapes)
        ps = p.split([part.left for part in parts])
        qs = _split(q, parts, p)
        width = [part.rank or part.columns for part in parts]
        return [(part, p.view(part.rows, w), q) for part, p, w, q in zip(parts, ps, width, qs, strict=True)]


def _split(q: torch.Tensor | None, parts: tuple[Part, ...], like: torch.Tensor) -> list[torch.Tensor]:
    if q is None:
        return [like.new_empty(0)] * len(parts)
    return [piece.view(part.columns, part.rank) for part, piece in zip(parts, q.split([p.right for p in parts]))]


def _basis(p: torch.Tensor, who: PowerSGD) -> torch.Tensor:
    import torch

    return torch.linalg.qr(require_finite(p, who).to(wide(p.dtype))).Q.to(p.dtype)


def _joined(like: torch.Tensor, pieces: list[torch.Tensor]) -> torch.Tensor:
    import torch

    return torch.cat([like.new_empty(0), *(piece.reshape(-1) for piece in pieces)])
