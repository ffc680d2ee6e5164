"""The maths of ring attention: attend to one part of the keys at a time, and put together what was found.

Tensors are ``[samples, tokens, heads, width]``; keys and values lie together as ``[samples, tokens, 2, heads, width]``.
What was found so far is the softmax-weighted mean of the values and, in one more column, the logarithm of the sum of
the weights, so that two partial results can be added (Milakov and Gimelshein 2018, arXiv:1805.02867; Dao et al. 2022,
arXiv:2205.14135, for the way back).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def keys(entering: torch.Tensor) -> torch.Tensor:
    """The keys and values of ``[samples, tokens, 3, heads, width]``."""
    return entering[:, :, 1:].clone()


def nothing_found(entering: torch.Tensor) -> torch.Tensor:
    """Before any keys were seen."""
    found = entering.new_zeros(*entering.shape[:2], *entering.shape[3:-1], entering.shape[-1] + 1)
    found[..., -1] = -inf
    return found


def what_was_found(found: torch.Tensor) -> torch.Tensor:
    """The mean of the values, without the column of sums."""
    return found[..., :-1].clone()


def nothing_lost(entering: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Zero gradients, of queries and of keys and values."""
    return entering.new_zeros(entering[:, :, 0].shape), entering.new_zeros(entering[:, :, 1:].shape)


def join(query_slope: torch.Tensor, key_slopes: torch.Tensor) -> torch.Tensor:
    """The gradient of ``[samples, tokens, 3, heads, width]``."""
    import torch

    return torch.cat([query_slope.unsqueeze(2), key_slopes], 2)


@dataclass(frozen=True)
class Attend:
    """Add what the queries find in some keys. ``hides``: of the same tokens, where later ones are hidden."""

    hides: bool

    @property
    def __name__(self) -> str:
        return "attend"

    def __call__(self, entering: torch.Tensor, keys: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
        """What was found so far, with what is found here."""
        scores = _scores(entering[:, :, 0], keys[:, :, 0], self.hides)
        total = scores.logsumexp(-1)
        here = ((scores - total.unsqueeze(-1)).exp() @ keys[:, :, 1].transpose(1, 2)).transpose(1, 2)
        total = total.transpose(1, 2)
        both = found[..., -1].logaddexp(total)
        result = found.clone()
        result[..., :-1] *= (found[..., -1] - both).exp().unsqueeze(-1)
        result[..., :-1] += here * (total - both).exp().unsqueeze(-1)
        result[..., -1] = both
        return result


@dataclass(frozen=True)
class AttendBack:
    """Add the gradients of the queries, and of some keys and values; see ``Attend``."""

    hides: bool

    @property
    def __name__(self) -> str:
        return "attend back"

    def __call__(
        self,
        entering: torch.Tensor,
        keys: torch.Tensor,
        found: torch.Tensor,
        slope: torch.Tensor,
        query_slope: torch.Tensor,
        key_slopes: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Both gradients so far, with those from here."""
        query, key, value = (x.transpose(1, 2) for x in (entering[:, :, 0], keys[:, :, 0], keys[:, :, 1]))
        out, up = found[..., :-1].transpose(1, 2), slope.transpose(1, 2)
        weights = (_scores(entering[:, :, 0], keys[:, :, 0], self.hides) - found[..., -1:].transpose(1, 2)).exp()
        # The gradient of a softmax: each weight times how far its own slope lies above their mean.
        scores = weights * (up @ value.transpose(2, 3) - (up * out).sum(-1, keepdim=True)) * query.shape[-1] ** -0.5
        more = key_slopes.clone()
        more[:, :, 0] += (scores.transpose(2, 3) @ query).transpose(1, 2)
        more[:, :, 1] += (weights.transpose(2, 3) @ up).transpose(1, 2)
        return query_slope + (scores @ key).transpose(1, 2), more


def _scores(query: torch.Tensor, key: torch.Tensor, hides: bool) -> torch.Tensor:
    """``[samples, heads, queries, keys]``, minus infinity where a token would read a later one."""
    import torch

    scores = query.transpose(1, 2) @ key.permute(0, 2, 3, 1) * query.shape[-1] ** -0.5
    if hides:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -inf)
    return scores
