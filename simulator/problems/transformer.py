"""The modules of the tiny GPT, each whole and in parts that ranks can share."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from ..cutting import Cut
from ..values import bounds
from .attention import attention_parts
from .parts import Add, Columns, PartModule, Pointwise, padded_bias, share


class Embedding(nn.Module):
    """Characters ``[samples, sequence]`` to vectors ``[samples, sequence, hidden]``, their places added."""

    def __init__(self, letters: int, sequence: int, hidden: int):
        super().__init__()
        self.letter = nn.Parameter(0.02 * torch.randn(letters, hidden))
        self.place = nn.Parameter(0.02 * torch.randn(sequence, hidden))

    def forward(self, letters: torch.Tensor) -> torch.Tensor:
        """Look both up and add them."""
        return functional.embedding(letters, self.letter) + self.place[: letters.shape[1]]

    def parts(self, cut: Cut) -> list[PartModule]:
        """One part: letters are split over ranks, and so are the numbers that stand for places."""
        return [LookUp(self, cut)]


class Attention(nn.Module):
    """Causal self-attention: every place reads those before it."""

    def __init__(self, hidden: int, heads: int):
        super().__init__()
        self.heads = heads
        self.read = nn.Linear(hidden, 3 * hidden)
        self.write = nn.Linear(hidden, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[samples, sequence, hidden]`` to the same shape."""
        query, key, value = self.read(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        written: torch.Tensor = self.write(mixed.transpose(1, 2).flatten(2))
        return written


class Transformer(nn.Module):
    """One pre-norm transformer block: attention, then two Linear around a GELU, both added to what came in."""

    def __init__(self, hidden: int, heads: int):
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(hidden), Attention(hidden, heads))
        self.think = nn.Sequential(
            nn.LayerNorm(hidden), nn.Linear(hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, hidden)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[samples, sequence, hidden]`` to the same shape."""
        x = x + self.attention(x)
        x = x + self.think(x)
        return x

    def parts(self, cut: Cut) -> list[PartModule]:
        """Attention with its heads split over ranks, then the perceptron with its hidden units split."""
        norm, attention = self.attention
        assert isinstance(attention, Attention)
        read, mix, write = attention_parts(attention.read, attention.write, attention.heads, cut)
        return [Pointwise(norm), read, mix, write, Add(0), Pointwise(self.think[0]), Think(self.think, cut), Add(5)]


class Output(nn.Sequential):
    """A LayerNorm, and a score for every letter."""

    def __init__(self, hidden: int, letters: int):
        super().__init__(nn.LayerNorm(hidden), nn.Linear(hidden, letters))

    def parts(self, cut: Cut) -> list[PartModule]:
        """The scores are split by letters."""
        norm, linear = self
        assert isinstance(linear, nn.Linear)
        return [Pointwise(norm), Columns(linear, cut)]


class LookUp(PartModule):
    """An Embedding of this rank's letters, and this rank's numbers of every place; the rest are zeros."""

    sums = True

    def __init__(self, embedding: Embedding, cut: Cut):
        super().__init__()
        (count, self.hidden), places = embedding.letter.shape, len(embedding.place)
        self.letters, self.columns = bounds(count, *cut.tensor), bounds(self.hidden, *cut.tensor)
        self.letter = share(embedding.letter[slice(*self.letters)], embedding.letter)
        self.place = share(embedding.place[:, slice(*self.columns)], embedding.place)
        self.units = ((count, self.hidden), (self.hidden, places))
        self.index = cut.context[0]

    def forward(self, letters: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """``[samples, tokens]`` to this rank's share of the sum, ``[samples, tokens, hidden]``."""
        first, last = self.letters
        mine = (letters >= first) & (letters < last)
        found = functional.embedding((letters - first).where(mine, 0), self.letter) * mine.unsqueeze(-1)
        begin = self.index * letters.shape[1]
        place = self.place[begin : begin + letters.shape[1]]
        return found + functional.pad(place, (self.columns[0], self.hidden - self.columns[1]))


class Think(PartModule):
    """Two Linear around a GELU, the hidden units split over ranks."""

    shares = True
    sums = True

    def __init__(self, think: nn.Sequential, cut: Cut):
        super().__init__()
        _, up, self.bend, down = think
        assert isinstance(up, nn.Linear) and isinstance(down, nn.Linear)
        units, self.outputs = slice(*bounds(up.out_features, *cut.tensor)), bounds(down.out_features, *cut.tensor)
        self.up, self.up_bias = share(up.weight[units], up.weight), share(up.bias[units], up.bias)
        self.down = share(down.weight[:, units], down.weight)
        self.down_bias = share(down.bias[slice(*self.outputs)], down.bias)
        self.units = ((up.out_features, up.in_features + 1 + down.out_features), (down.out_features, 1))

    def forward(self, x: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """``[…, hidden]`` to this rank's share of the sum, ``[…, hidden]``."""
        thought = self.bend(functional.linear(x, self.up, self.up_bias))
        return padded_bias(thought @ self.down.T, self.down_bias, self.outputs)
