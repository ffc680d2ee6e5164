"""Attention in parts: read the tokens, mix them, write them back; heads split over ranks."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from ..cutting import Cut
from ..values import bounds
from .parts import PartModule, padded_bias, share


class Read(PartModule):
    """Queries, keys and values of this rank's heads."""

    shares = True

    def __init__(self, read: nn.Linear, heads: int, cut: Cut):
        super().__init__()
        mine, width = slice(*bounds(heads, *cut.tensor)), read.out_features // (3 * heads)
        weight = read.weight.view(3, heads, width, read.in_features)[:, mine]
        self.weight = share(weight, read.weight)
        self.bias = share(read.bias.view(3, heads, width)[:, mine], read.bias)
        self.units = ((heads, 3 * width * (read.in_features + 1)),)

    def forward(self, x: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """``[samples, tokens, hidden]`` to ``[samples, tokens, 3, heads, width]``."""
        out = functional.linear(x, self.weight.flatten(0, 2), self.bias.flatten())
        return out.unflatten(2, self.bias.shape)


class Mix(PartModule):
    """Attention: every token reads all others; ``causal``: those before it."""

    mixes = True

    def __init__(self, causal: bool):
        super().__init__()
        self.causal = causal

    def forward(self, x: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """``[samples, tokens, 3, heads, width]`` to ``[samples, tokens, heads, width]``."""
        query, key, value = x.permute(2, 0, 3, 1, 4)
        return functional.scaled_dot_product_attention(query, key, value, is_causal=self.causal).transpose(1, 2)


class Write(PartModule):
    """What this rank's heads found, as its share of a sum; the bias is split by outputs."""

    sums = True

    def __init__(self, write: nn.Linear, heads: int, cut: Cut):
        super().__init__()
        width, self.outputs = write.in_features // heads, bounds(write.out_features, *cut.tensor)
        first, last = bounds(heads, *cut.tensor)
        self.weight = share(write.weight[:, first * width : last * width], write.weight)
        self.bias = share(write.bias[slice(*self.outputs)], write.bias)
        self.units = ((heads, width * write.out_features), (write.out_features, 1))

    def forward(self, x: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """``[samples, tokens, heads, width]`` to ``[samples, tokens, hidden]``."""
        return padded_bias(x.flatten(2) @ self.weight.T, self.bias, self.outputs)


def attention_parts(
    read: nn.Linear, write: nn.Linear, heads: int, cut: Cut, causal: bool = True
) -> tuple[PartModule, ...]:
    """The three parts of a self-attention whose Linear ``read`` gives queries, keys and values, in this order."""
    return Read(read, heads, cut), Mix(causal), Write(write, heads, cut)
