"""Whose texts are embedded next? Those of several requests go into one pass, as far as it has room for them.

Lists take turns, so that a short one does not wait for a long one. For the loop's thread.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from server.engine.frames import Embed, Embedded

FULL: Final = 512
"""Tokens of a pass that nothing is gained by having more: they fill the matrix products, and each token is compared
with those of other texts, too, if only to be told apart. It is llama.cpp's own physical batch."""


@dataclass(slots=True, eq=False)
class Asked:
    """A request's texts, and the rows of those that are done."""

    command: Embed
    rows: list[tuple[bytes, ...]] = field(default_factory=list)
    n_taken: int = 0

    @property
    def next(self) -> tuple[int, ...] | None:
        """The text that comes next; None: all are taken."""
        prompts = self.command.prompts
        return prompts[self.n_taken] if self.n_taken < len(prompts) else None


@dataclass(slots=True)
class Pass:
    """Texts that are embedded together, and whose they are."""

    owners: tuple[Asked, ...]
    prompts: tuple[tuple[int, ...], ...]
    n_left: int = field(init=False)  # tokens that are still to be read

    def __post_init__(self) -> None:
        self.n_left = sum(map(len, self.prompts))


class Texts:
    """Requests whose texts wait, or are being embedded.

    Args:
        n_texts: how many a pass has room for.
        n_tokens: how many tokens they may have together, no more than a batch; a longer text is alone.
    """

    def __init__(self, n_texts: int, n_tokens: int) -> None:
        self._n_texts = n_texts
        self._n_tokens = n_tokens
        self._all: deque[Asked] = deque()

    def __len__(self) -> int:
        return len(self._all)

    def add(self, command: Embed) -> None:
        """Take a request."""
        self._all.append(Asked(command))

    def take(self) -> Pass:
        """The texts of the next pass; the first is the longest waiting list's, however long it is."""
        alike = (self._all[0].command.pooling, self._all[0].command.adapters)
        open_lists = [each for each in self._all if (each.command.pooling, each.command.adapters) == alike]
        owners, prompts, n_left = list[Asked](), list[tuple[int, ...]](), self._n_tokens
        while open_lists and len(prompts) < self._n_texts:
            for asked in list(open_lists):
                text = asked.next
                if text is None or (prompts and len(text) > n_left) or len(prompts) == self._n_texts:
                    open_lists.remove(asked)
                    continue
                asked.n_taken += 1
                n_left -= len(text)
                owners.append(asked)
                prompts.append(text)
        self._all.rotate(-1)
        return Pass(tuple(owners), tuple(prompts))

    def wait_for(self, taken: Pass) -> bool:
        """Whether anybody waits for these texts."""
        return any(asked in self._all for asked in taken.owners)

    def done(self, taken: Pass, rows: list[list[bytes]]) -> list[Embedded]:
        """Note vectors; the requests that are over with them."""
        for asked, found in zip(taken.owners, rows, strict=True):
            asked.rows.append(tuple(found))
        over = [asked for asked in self._all if len(asked.rows) == len(asked.command.prompts)]
        for asked in over:
            self._all.remove(asked)
        return [Embedded(asked.command.id, tuple(asked.rows)) for asked in over]

    def fail(self, taken: Pass) -> list[int]:
        """Give up the requests whose texts these are; their numbers."""
        failed = [asked for asked in self._all if asked in taken.owners]
        for asked in failed:
            self._all.remove(asked)
        return [asked.command.id for asked in failed]

    def cancel(self, id: int) -> None:
        """Nobody waits for a request's vectors; those of a pass under way are not looked at."""
        for asked in self._all:
            if asked.command.id == id:
                self._all.remove(asked)
                return
