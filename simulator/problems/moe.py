"""A tiny GPT whose perceptrons are mixtures of experts: every token goes to the experts that a gate chooses."""

from __future__ import annotations

from functools import partial
from math import ceil

import torch
from torch import nn
from torch.nn import functional

from ..block import EXPERT
from ..cutting import Cut
from ..problem import Problem
from ..rules import Adam
from ..values import bounds
from .attention import attention_parts
from .gpt import Windows, cross_entropy, held_back_loss, letters
from .knobs import require_counts
from .parts import Add, PartModule, Pointwise, share
from .transformer import Attention, Embedding, Output

TOKEN, COUNT = -2, -1
"""Columns of a row that the gate lays out, after ``EXPERT``: the token's number, and how many tokens there are."""
FACTS = 4
"""How many columns stand after the token itself: these, and before them the weight of the choice."""


def tiny_moe(
    layers: int = 2,
    hidden: int = 32,
    heads: int = 4,
    sequence: int = 32,
    experts: int = 4,
    top: int = 1,
    capacity: float | None = None,
    batch: int = 16,
    lr: float = 3e-3,
    dtype: str = "float32",
) -> Problem:
    """The tiny GPT with ``experts`` perceptrons in each layer, of which every token uses the ``top`` best.

    ``capacity``: an expert takes at most that many times its even share of the tokens that a rank sends on; the rest
    skip it (Fedus et al. 2022, arXiv:2101.03961). None: no token is dropped, and it does not matter who computes.

    Raises ValueError for knobs below 1, more ``top`` than experts, or ``heads`` that do not divide ``hidden``.
    """
    counts = dict(layers=layers, hidden=hidden, heads=heads, sequence=sequence, experts=experts, top=top, batch=batch)
    require_counts("tiny-moe", **counts)
    if hidden % heads:
        raise ValueError(f"tiny-moe: heads share hidden evenly; got hidden={hidden}, heads={heads}")
    if top > experts:
        raise ValueError(f"tiny-moe: a token uses at most all experts; got top={top} of {experts}")
    if capacity is not None and not capacity > 0:
        raise ValueError(f"tiny-moe: the capacity of an expert is positive; got capacity={capacity}")
    return Problem(
        blocks=partial(_blocks, layers, hidden, heads, sequence, experts, top, capacity),
        loss=cross_entropy,
        data=Windows(sequence, batch),
        evaluation=partial(held_back_loss, sequence),
        rule=Adam(lr),
        dtype=dtype,
        name="tiny-moe",
    )


class MoETransformer(nn.Module):
    """Attention, then experts; both added to what came in."""

    def __init__(self, hidden: int, heads: int, experts: int, top: int, capacity: float | None):
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(hidden), Attention(hidden, heads))
        self.norm = nn.LayerNorm(hidden)
        self.gate = nn.Linear(hidden, experts, bias=False)
        self.up = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(experts, 4 * hidden, hidden), a=5**0.5))
        self.down = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(experts, hidden, 4 * hidden), a=5**0.5))
        self.top, self.capacity = top, capacity

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[samples, tokens, hidden]`` to the same shape."""
        acts = [x]
        for part in self._chain():
            acts.append(part(acts[-1], None if part.adds is None else acts[part.adds]))
        return acts[-1]

    def _chain(self) -> list[PartModule]:
        """All parts, with the module's own parameters."""
        return [
            Pointwise(self.attention), Add(0),
            Pointwise(self.norm), Gate(self.gate, self.top, self.capacity), Dispatch(),
            Experts(self.up, self.down, 0, len(self.up)), Combine(4), Add(2),
        ]  # fmt: skip

    def parts(self, cut: Cut) -> list[PartModule]:
        """Attention in parts, as in any transformer; experts split over the axis "expert"."""
        norm, attention = self.attention
        assert isinstance(attention, Attention)
        first, last = bounds(len(self.up), *cut.expert)
        up, down = share(self.up[first:last], self.up), share(self.down[first:last], self.down)
        return [
            Pointwise(norm), *attention_parts(attention.read, attention.write, attention.heads, cut), Add(0),
            Pointwise(self.norm), Gate(self.gate, self.top, self.capacity), Dispatch(),
            Experts(up, down, first, len(self.up)), Combine(7), Add(5),
        ]  # fmt: skip


class Gate(PartModule):
    """Chooses the experts of every token, and lays out a row for each choice, sorted by expert.

    A row holds the token, the weight of the choice, the expert's number, the token's number, and how many there are.
    """

    routes = True

    def __init__(self, gate: nn.Linear, top: int, capacity: float | None):
        super().__init__()
        self.gate, self.top, self.capacity = gate, top, capacity

    def forward(self, x: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """``[…, hidden]`` to ``[choices, hidden + FACTS]``."""
        tokens = x.reshape(-1, x.shape[-1])
        weights, chosen = functional.softmax(self.gate(tokens), -1).topk(self.top, -1)
        experts, order = chosen.flatten().sort(stable=True)
        order = order[self._taken(experts)]
        token = order // self.top
        count = torch.full_like(token, len(tokens))
        facts = (weights.flatten()[order], chosen.flatten()[order], token, count)
        return torch.cat([tokens[token], *(fact.to(x.dtype).unsqueeze(1) for fact in facts)], 1)

    def _taken(self, experts: torch.Tensor) -> torch.Tensor:
        """Which choices are within the capacity of their expert, from choices sorted by expert."""
        if self.capacity is None:
            return torch.ones_like(experts, dtype=torch.bool)
        most = ceil(self.capacity * len(experts) / self.gate.out_features)
        begins = torch.searchsorted(experts, experts, side="left")
        return torch.arange(len(experts), device=experts.device) - begins < most


class Dispatch(PartModule):
    """Rows leave for their experts; without others to send them to, they stay."""

    def forward(self, x: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """The same rows, as a tensor of their own."""
        return x.clone()


class Experts(PartModule):
    """Some of the experts, each two matrices around a GELU; they compute the rows that name them, in any order."""

    experts = True

    def __init__(self, up: nn.Parameter, down: nn.Parameter, first: int, of: int):
        super().__init__()
        self.up, self.down, self.first = up, down, first
        self.units = ((of, up[0].numel() + down[0].numel()),)

    def forward(self, x: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """``[choices, hidden + FACTS]`` to ``[choices, hidden]``, each weighted as its row says."""
        rows, weight, expert = x[:, :-FACTS], x[:, -FACTS:][:, :1], x[:, EXPERT].round().long() - self.first
        found = torch.zeros_like(rows)
        for number, (up, down) in enumerate(zip(self.up, self.down)):
            mine = (expert == number).nonzero().squeeze(1)
            found = found.index_add(0, mine, functional.gelu(rows[mine] @ up.T) @ down.T)
        return found * weight


class Combine(PartModule):
    """Adds up, for every token, what its experts gave."""

    def __init__(self, adds: int):
        super().__init__()
        self.adds = adds

    def forward(self, x: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """``[choices, hidden]`` to ``[tokens, hidden]``; ``added`` are the rows as the gate laid them out."""
        assert added is not None
        token, count = added[:, TOKEN].round().long(), int(added[0, COUNT])
        return x.new_zeros(count, x.shape[1]).index_add(0, token, x)


def _blocks(
    layers: int, hidden: int, heads: int, sequence: int, experts: int, top: int, capacity: float | None
) -> list[nn.Module]:
    count = len(letters())
    middle = (MoETransformer(hidden, heads, experts, top, capacity) for _ in range(layers))
    return [Embedding(count, sequence, hidden), *middle, Output(hidden, count)]

