"""What does an answer's text say? Thoughts, words and calls of tools, told apart as the text comes."""

from collections.abc import Collection
from typing import Any, Final, Literal

from server.api.conversation.calls import Calls
from server.api.conversation.tools import Style

Json = dict[str, Any]
THINK: Final = ("<think>", "</think>")
Stage = Literal["undecided", "thinking", "after", "saying"]
"""Where in an answer we are: it may begin with thoughts, is within them, just behind them, or says something."""


class Reading:
    """One answer. `feed` gives deltas with `reasoning_content`, `content` or `tool_calls`; the properties hold all."""

    def __init__(self, *, style: Style | None, stage: Stage, names: Collection[str] = ()) -> None:
        self.reasoning = ""
        self._text = ""
        self._stage = stage
        self._held = ""
        self._calls = Calls(style, names) if style is not None else None

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
        begin, end = THINK
        if self._stage == "undecided":
            start = self._held.lstrip()
            if start.startswith(begin):
                self._stage, self._held = "thinking", start.removeprefix(begin)
            elif not begin.startswith(start):
                self._stage = "saying"
        deltas: list[Json] = []
        if self._stage == "thinking":
            thought, found, rest = self._held.partition(end)
            keep = 0 if found else next((n for n in range(len(end) - 1, 0, -1) if thought.endswith(end[:n])), 0)
            deltas = self._think(thought[: len(thought) - keep])
            self._held = rest if found else thought[len(thought) - keep :]
            self._stage = "after" if found else "thinking"
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
        if not self.reasoning:
            thought = thought.lstrip("\n")
        self.reasoning += thought
        return [{"reasoning_content": thought}] if thought else []

    def _say(self, text: str) -> list[Json]:
        if self._calls is not None:
            return self._calls.feed(text)
        self._text += text
        return [{"content": text}] if text else []
