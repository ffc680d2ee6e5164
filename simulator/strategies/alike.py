"""Ranks that share a block hold some of its parameters all alike; what would make them differ is refused."""

from __future__ import annotations

from ..compression import Compressor, ErrorFeedback, PowerSGD
from ..rank import Rank


def require_alike(me: Rank, compressor: Compressor | None) -> None:
    """Raise ValueError where ranks would round the gradients differently of parameters that they all hold.

    Under tensor and expert parallelism a payload mixes what all hold with what one holds, so only compressors that
    treat every number for itself, or by parameter, keep them alike; under context parallelism ranks must not draw for
    themselves.
    """
    if compressor is None:
        return
    inner = compressor.compressor if isinstance(compressor, ErrorFeedback) else compressor
    if inner.linear or isinstance(inner, PowerSGD):
        return
    draws = inner.variance(1024) > 0 and not inner.shared_seed
    if max(me.cut.tensor[1], me.cut.expert[1]) > 1 or (me.cut.context[1] > 1 and draws):
        raise ValueError(
            f"ranks that share blocks must round alike what they all hold; {compressor} would not: use a linear"
            " compressor (FP16, BF16, RandomK) or PowerSGD, or a strategy that does not split blocks"
        )


def require_whole(me: Rank, what: object) -> None:
    """Raise ValueError where ranks share blocks: each would see a norm, or draw noise, of its own."""
    if me.cut.parted:
        raise ValueError(
            f"{what} needs the whole gradient of a worker on one rank; here ranks share blocks, and what they all hold"
            " would drift apart: use a strategy that does not split blocks"
        )
