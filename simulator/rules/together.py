"""The optimizer behind ``Groups``: several that look like one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .base import Rule
from .lending import parameters_of


class Together(torch.optim.Optimizer):
    """One optimizer per rule that has parameters; groups and state are theirs, so that one checkpoint holds all.

    ``named``: the parameters with their names; ``member``: for each, which of ``rules`` it follows.
    """

    def __init__(self, named: list[tuple[str, torch.Tensor]], member: Sequence[int], rules: Sequence[Rule]):
        super().__init__(named, {})
        self.parts: list[tuple[Rule, torch.optim.Optimizer]] = []
        for number, rule in enumerate(rules):
            places = [place for place, of in enumerate(member) if of == number]
            if places:
                self.parts.append((rule, rule.optimizer([named[place] for place in places])))
                _place(self.parts[-1][1], places)
        self.param_groups = [group for _, part in self.parts for group in part.param_groups]
        self._share()

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Apply one update, each part by its rule."""
        self.step_each(0, None)

    def step_each(self, staleness: int, since: torch.Tensor | None) -> None:
        """Apply one update; ``since`` as in ``Rule.step``, laid out like the parameters that were given."""
        past: dict[torch.Tensor, torch.Tensor] = {}
        if since is not None:
            every = parameters_of(self)
            past = dict(zip(every, since.reshape(-1).split([one.numel() for one in every]), strict=True))
        for rule, part in self.parts:
            own = [past[one].reshape(-1) for one in parameters_of(part)] if past else []
            rule.step(part, staleness, torch.cat(own) if own else None)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state of all parts."""
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """Let all parts work on this one's groups and write into its state."""
        start = 0
        for _, part in self.parts:
            end = start + len(part.param_groups)
            part.param_groups, part.state, start = self.param_groups[start:end], self.state, end
            if isinstance(part, Together):
                part._share()


def _place(part: torch.optim.Optimizer, places: Sequence[int]) -> None:
    """Note in the groups of a part where their parameters stand among those of all."""
    start = 0
    for group in part.param_groups:
        inner = group.get("positions", range(start, start + len(group["params"])))
        start += len(group["params"])
        group["positions"] = [places[position] for position in inner]
