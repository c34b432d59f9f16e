"""Which words of an answer are thoughts, while its tokens are chosen? They are free of its grammar, and may be bounded.

Source: llama.cpp 0c1e570 common/reasoning-budget.cpp (when the end is forced), common/sampling.cpp,
grammar_should_apply.
"""

import codecs
from collections.abc import Callable, Sequence
from typing import Literal

from server.engine.runner import Chooser, Odds
from server.engine.sampling import Thoughts


class ThoughtfulChooser:
    """Chooses by `free` within thoughts and by `then` else; implements `Chooser`. They may be one."""

    def __init__(self, thoughts: Thoughts, free: Chooser, then: Chooser, piece: Callable[[int], bytes]) -> None:
        self._thoughts = thoughts
        self._begin, self._end = thoughts.marks
        self._free = free
        self._then = then
        self._piece = piece
        self._stage: Literal["undecided", "thinking", "over"] = "undecided"
        self._text = b""  # the answer's beginning, or the end of what was thought
        self._n_thought = 0
        self._due: list[int] = []
        self._odds: Odds = ()
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        if thoughts.begun:
            self._think()

    def remember(self, tokens: Sequence[int]) -> None:
        """Let the penalties see tokens."""
        for chooser in self._choosers:
            chooser.remember(tokens)

    def sample(self, row: int) -> int | None:
        """Choose a token, or say the next that is due."""
        if self._due:
            token = self._due.pop(0)
            self.remember((token,))
            self._odds = ((token, 1.0),)
        else:
            chooser = self._free if self._stage == "thinking" else self._then
            found = chooser.sample(row)
            if found is None:
                return None
            token, self._odds = found, chooser.odds()
            if self._stage == "thinking" and self._free is not self._then:
                self._then.remember((token,))
        self._see(self._piece(token))
        return token

    def odds(self) -> Odds:
        """The odds of the chooser that chose; a token that is due is certain."""
        return self._odds

    def close(self) -> None:
        """Free them."""
        for chooser in self._choosers:
            chooser.close()

    @property
    def _choosers(self) -> tuple[Chooser, ...]:
        return (self._then,) if self._free is self._then else (self._free, self._then)

    def _think(self) -> None:
        self._stage, self._text = "thinking", b""
        if self._thoughts.budget == 0:
            self._due = list(self._thoughts.closing)

    def _see(self, piece: bytes) -> None:
        if self._stage == "undecided":
            self._text += piece
            start = self._text.lstrip()
            if start.startswith(self._begin):
                self._think()
            elif not self._begin.startswith(start):
                self._stage = "over"
        elif self._stage == "thinking":
            self._n_thought += 1
            self._characters.decode(piece)
            seen = self._text + piece
            self._text = seen[1 - len(self._end) :]
            if self._end in seen:
                self._stage, self._due = "over", []
            elif self._is_spent() and not self._due:
                self._due = list(self._thoughts.closing)

    def _is_spent(self) -> bool:
        """Whether they may have no more tokens, and the last one is no part of a character."""
        budget = self._thoughts.budget
        return budget is not None and self._n_thought >= budget and not self._characters.getstate()[0]
