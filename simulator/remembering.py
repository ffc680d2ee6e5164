"""Results that are remembered, where the arguments can be told apart."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, TypeVar

R = TypeVar("R")


class Key:
    """Arguments and their hash, which for models and strategies takes long and so is computed once."""

    __slots__ = ("arguments", "hash")

    def __init__(self, arguments: tuple[Any, ...]):
        self.arguments, self.hash = arguments, hash(arguments)

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and self.arguments == other.arguments


def remembered(most: int) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """A function that remembers its ``most`` last results.

    Of arguments without a hash, such as a strategy whose fields hold lists, nothing can be remembered: they are
    computed anew.

    >>> [remembered(4)(sum)(numbers) for numbers in ((1, 2), [1, 2])]
    [3, 3]
    """

    def decorate(function: Callable[..., R]) -> Callable[..., R]:
        known = lru_cache(maxsize=most)(lambda key: function(*key.arguments))

        @wraps(function)
        def call(*arguments: Any) -> R:
            try:
                key = Key(arguments)
            except TypeError:
                return function(*arguments)
            return known(key)

        return call

    return decorate
