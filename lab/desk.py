"""Messages of one name that a rank takes from itself as well as from others."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Condition, Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .transport import Arrived


class Desk:
    """Where letters lie until they are taken: a rank's own are put here, a thread fetches those of others.

    gloo sends nothing from a rank to itself, and who waits in it for the others cannot be told anything else meanwhile.
    A fetch that has begun is not called off: a rank takes from anybody only while another rank will still write.
    """

    def __init__(self, fetch: Callable[[], Arrived], mine: int):
        self.fetch, self.mine = fetch, mine
        self.letters: deque[Arrived | BaseException] = deque()
        self.changed, self.fetching = Condition(), False

    def put(self, letter: Arrived | BaseException, fetched: bool = False) -> None:
        """Lay down a letter, or an error that whoever waits here shall raise."""
        with self.changed:
            self.letters.append(letter)
            self.fetching = self.fetching and not fetched
            self.changed.notify_all()

    def take(self, source: int | None) -> Arrived:
        """Wait for the first letter of a rank; None: of any."""
        with self.changed:
            while True:
                for letter in self.letters:
                    if isinstance(letter, BaseException):
                        raise letter
                    if source in (None, letter.source):
                        self.letters.remove(letter)
                        return letter
                if source != self.mine and not self.fetching:
                    self.fetching = True
                    Thread(target=self._fetch, daemon=True).start()
                self.changed.wait()

    def _fetch(self) -> None:
        try:
            self.put(self.fetch(), fetched=True)
        except BaseException as error:
            self.put(error, fetched=True)
