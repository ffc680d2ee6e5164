"""What was not sent is sent later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .base import Compressor, Shapes
from .vectors import require_finite

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ErrorFeedback(Compressor):
    """Any compressor C, and a memory e of what it left out: ``c = C(g + e)``, ``e ← g + e − c``.

    What was applied differs from the sum of all gradients by the memory alone, ``x − lr e = x₀ − lr Σ g`` at a
    constant learning rate, so a biased C converges too. An unbiased C of variance ω (QSGD, TernGrad, RandomK) is
    divided by 1 + ω, for otherwise the memory could grow without bound.

    Without memory (``compress``) this is C itself, so divided. With a server or a changing learning rate put ``lr g``
    in place of g. The memory belongs into checkpoints.

    Source: Karimireddy et al. 2019, arXiv:1901.09847; for 1 + ω, Beznosikov et al. 2020, arXiv:2002.12410.

        >>> import torch
        >>> from simulator.compression import TopK
        >>> gradient, memory = torch.tensor([3.0, 2.0]), torch.zeros(2)
        >>> for step in range(2):
        ...     payload, memory = ErrorFeedback(TopK(0.5)).feedback(gradient, memory)
        ...     memory.tolist()
        [0.0, 2.0]
        [3.0, 0.0]
    """

    compressor: Compressor

    def __post_init__(self) -> None:
        if not isinstance(self.compressor, Compressor) or not self.compressor.takes_feedback:
            raise ValueError(
                "ErrorFeedback wraps a compressor without memory whose error shrinks with the vector; got"
                f" {self.compressor!r}; write for instance ErrorFeedback(TopK(0.01)) or ErrorFeedback(Sign())"
            )

    def feedback(
        self, vector: torch.Tensor, memory: torch.Tensor, seed: int = 0, shapes: Shapes | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One step: the payload (uint8) of ``vector + memory``, and the new memory; all 1-d and of one length.

        ``shapes``: those of the tensors in the vector, where the compressor needs them. Raises DivergedError where the
        new memory is not finite.
        """
        shapes = shapes or ((vector.numel(),),)
        wanted = vector + memory
        data = self.encode_shaped(wanted, shapes, seed)
        return data, require_finite(wanted - self.decode_shaped(data, shapes, vector.dtype, seed), self)

    def encode(self, flat: torch.Tensor, seed: int = 0) -> torch.Tensor:
        """See ``Compressor.encode``: with an empty memory."""
        return self.compressor.encode(flat, seed)

    def decode(self, data: torch.Tensor, size: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
        """See ``Compressor.decode``."""
        return self.compressor.decode(data, size, dtype, seed) / (1 + self.compressor.variance(size))

    def encode_shaped(self, flat: torch.Tensor, shapes: Shapes, seed: int = 0) -> torch.Tensor:
        """See ``Compressor.encode_shaped``: with an empty memory."""
        return self.compressor.encode_shaped(flat, shapes, seed)

    def decode_shaped(self, data: torch.Tensor, shapes: Shapes, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
        """See ``Compressor.decode_shaped``."""
        decoded = self.compressor.decode_shaped(data, shapes, dtype, seed)
        return decoded / (1 + self.compressor.variance(decoded.numel()))

    def nbytes(self, size: int, width: int) -> int:
        """That of the compressor."""
        return self.compressor.nbytes(size, width)

    def nbytes_shaped(self, shapes: Shapes, width: int) -> int:
        """That of the compressor."""
        return self.compressor.nbytes_shaped(shapes, width)

    @property
    def linear(self) -> bool:
        """That of the compressor."""
        return self.compressor.linear

    def payload_dtype(self, dtype: torch.dtype) -> torch.dtype | None:
        """That of the compressor."""
        return self.compressor.payload_dtype(dtype)

    @property
    def shared_seed(self) -> bool:
        """That of the compressor."""
        return self.compressor.shared_seed

    @property
    def varying(self) -> bool:
        """That of the compressor."""
        return self.compressor.varying

    @property
    def takes_feedback(self) -> bool:
        """It has a memory of its own."""
        return False
