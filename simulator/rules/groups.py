"""Some parameters follow one rule, some another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from .. import checks
from .base import Rule
from .scaled import require_unscaled

if TYPE_CHECKING:
    import torch

    from .base import Parameters


@dataclass(frozen=True, repr=False)
class Groups(Rule):
    """A rule for every group of parameters, each with a memory of its own.

    ``rules`` is a dict from the number of a block, or from a pattern of names as in ``"*.bias"`` or ``"3.*"``, to a
    rule; the first that fits counts, and ``default`` is for what none fits. A name is the number of the block and the
    module's own, as in ``"3.weight"``.

    Raises ValueError when something is no rule, and, as a training begins, when a key fits no parameter.

        >>> from simulator.rules import LARS, SGD
        >>> Groups({0: SGD(0.01), "*.bias": SGD(0.2)}, default=LARS(1.0)).elementwise
        False
    """

    rules: Mapping[int | str, Rule] | tuple[tuple[int | str, Rule], ...]
    default: Rule

    def __post_init__(self) -> None:
        checks.kind("rules", self.rules, (Mapping, tuple), 'a dict such as {0: SGD(0.01), "*.bias": SGD(0.2)}')
        pairs = tuple(self.rules.items()) if isinstance(self.rules, Mapping) else self.rules
        object.__setattr__(self, "rules", pairs)  # a dict has no hash
        for key, rule in pairs:
            if not isinstance(key, str):
                checks.whole("block", key, of="Groups: a key is a block or a pattern of names")
            checks.kind(f"rules[{key!r}]", rule, Rule, "a rule, such as SGD(0.1)")
        checks.kind("default", self.default, Rule, "a rule, such as SGD(0.1)")
        require_unscaled(self, *self.inside)

    def __repr__(self) -> str:
        return f"Groups({dict(self.rules)!r}, default={self.default!r})"

    @property
    def inside(self) -> tuple[Rule, ...]:
        """See ``Rule.inside``."""
        return *(rule for _, rule in self._pairs), self.default

    @property
    def per_tensor(self) -> bool:
        """See ``Rule.per_tensor``."""
        return True

    def check(self, names: Sequence[str]) -> None:
        """See ``Rule.check``."""
        for key, _ in self._pairs:
            if not any(fnmatchcase(name, _pattern(key)) for name in names):
                raise ValueError(f"Groups: every key fits a parameter; got {key!r}; there are {', '.join(names)}")
        super().check(names)

    def group(self, name: str) -> int:
        """Which of the rules in ``inside`` a parameter follows."""
        fits = (number for number, (key, _) in enumerate(self._pairs) if fnmatchcase(name, _pattern(key)))
        return next(fits, len(self._pairs))

    def optimizer(self, parameters: Parameters) -> torch.optim.Optimizer:
        """See ``Rule.optimizer``. Raises ValueError for parameters without names."""
        from .together import Together

        named = [pair for pair in parameters if isinstance(pair, tuple)]
        if len(named) < len(parameters):
            raise ValueError(
                "Groups goes by the names of parameters; got tensors without; give pairs, as in [('0.weight', w)]"
            )
        return Together(named, [self.group(name) for name, _ in named], self.inside)

    def step(self, optimizer: torch.optim.Optimizer, staleness: int = 0, since: torch.Tensor | None = None) -> None:
        """See ``Rule.step``."""
        from .together import Together

        assert isinstance(optimizer, Together), f"Groups steps an optimizer of its own making; got {optimizer}"
        optimizer.step_each(staleness, since)

    @property
    def _pairs(self) -> tuple[tuple[int | str, Rule], ...]:
        assert isinstance(self.rules, tuple)
        return self.rules


def _pattern(key: int | str) -> str:
    return key if isinstance(key, str) else f"{key}.*"
