"""What does an answer's text say? Thoughts, words and calls of tools, told apart as the text comes."""

from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol

from server.api.conversation.calls import Calls
from server.api.conversation.incoming import n_begun
from server.api.conversation.style import Style

Json = dict[str, Any]
Marks = tuple[str, str]
THINK: Final[Marks] = "<think>", "</think>"
Stage = Literal["undecided", "thinking", "after", "saying"]
"""Where in an answer we are: it may begin with thoughts, is within them, just behind them, or says something."""


class Reader(Protocol):
    """Of one answer. `feed` gives deltas with `reasoning_content`, `content` or `tool_calls`; the others hold all."""

    @property
    def reasoning(self) -> str:
        """The thoughts."""

    @property
    def content(self) -> str:
        """The words."""

    @property
    def calls(self) -> list[Json]:
        """The calls, in OpenAI's shape."""

    @property
    def says_words(self) -> bool:
        """Whether nothing but words can follow."""

    def feed(self, text: str) -> list[Json]:
        """What a piece of text adds."""

    def close(self) -> list[Json]:
        """No more text comes: what was held back."""


class Reading:
    """One answer, thoughts between marks in front of words and calls."""

    def __init__(
        self, *, style: Style | None, stage: Stage, tools: Mapping[str, Any] | None = None, marks: Marks = THINK,
        forced: bool = False,
    ) -> None:  # fmt: skip
        """`marks` stand around thoughts; `forced`: what is no thought is calls."""
        self._reasoning = ""
        self._text = ""
        self._stage = stage
        self._held = ""
        self._begin, self._ends = marks[0], (marks[1], *(style.begins if style and style.ends_thoughts else ()))
        self._calls = Calls(style, tools, forced=forced) if style is not None else None

    @property
    def reasoning(self) -> str:
        """The thoughts."""
        return self._reasoning

    @property
    def content(self) -> str:
        """The words."""
        return self._text if self._calls is None else self._calls.content

    @property
    def calls(self) -> list[Json]:
        """The calls, in OpenAI's shape."""
        return [] if self._calls is None else self._calls.calls

    @property
    def says_words(self) -> bool:
        """Whether nothing but words can follow."""
        return self._stage == "saying" and self._calls is None

    def feed(self, text: str) -> list[Json]:
        """What a piece of text adds."""
        self._held += text
        begin = self._begin
        if self._stage == "undecided":
            start = self._held.lstrip()
            if start.startswith(begin):
                self._stage, self._held = "thinking", start.removeprefix(begin)
            elif start.startswith(self._ends[0]):  # there are none (MiniMax M3)
                self._stage, self._held = "after", start.removeprefix(self._ends[0])
            elif not begin.startswith(start) and not self._ends[0].startswith(start):
                self._stage = "saying"
        deltas: list[Json] = []
        if self._stage == "thinking":
            at = min((at for end in self._ends if (at := self._held.find(end)) >= 0), default=-1)
            if at >= 0:
                deltas = self._think(self._held[:at])
                self._held, self._stage = self._held[at:].removeprefix(self._ends[0]), "after"
            else:
                at = len(self._held) - max(n_begun(self._held, end) for end in self._ends)
                deltas = self._think(self._held[:at])
                self._held = self._held[at:]
        if self._stage == "after":  # blank lines between thoughts and words belong to neither
            self._held = self._held.lstrip("\n")
            self._stage = "saying" if self._held else "after"
        if self._stage == "saying":
            said, self._held = self._held, ""
            deltas += self._say(said)
        return deltas

    def close(self) -> list[Json]:
        """No more text comes: what was held back."""
        held, self._held = self._held, ""
        deltas = self._think(held) if self._stage == "thinking" else self._say(held)
        return deltas + (self._calls.close() if self._calls is not None else [])

    def _think(self, thought: str) -> list[Json]:
        if not self._reasoning:
            thought = thought.lstrip("\n")
        self._reasoning += thought
        return [{"reasoning_content": thought}] if thought else []

    def _say(self, text: str) -> list[Json]:
        if self._calls is not None:
            return self._calls.feed(text)
        self._text += text
        return [{"content": text}] if text else []
