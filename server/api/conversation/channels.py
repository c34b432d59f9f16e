"""What does an answer say that is written in messages on channels (gpt-oss)? Thoughts, words and calls, by headers.

`<|channel|>analysis<|message|>` thoughts `<|end|><|start|>assistant<|channel|>final<|message|>` words; a call is a
message to `functions.` and its name, in either part of the header; what is said to other programs is passed.

Source: llama.cpp 0c1e570 common/parsers/gpt-oss.cpp, common_chat_params_init_gpt_oss.
"""

import re
from collections.abc import Callable
from typing import Any, Final

from server.api.conversation.incoming import CutOffError, Incoming, OtherwiseError, Wait, n_begun
from server.api.conversation.told import Told

Json = dict[str, Any]
START, CHANNEL, CONSTRAIN, MESSAGE, END = "<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", "<|end|>"
MARKS: Final = (START, CHANNEL, CONSTRAIN, MESSAGE, END)
THOUGHTS: Final = (f"{CHANNEL}analysis{MESSAGE}", END)
_ENDS: Final = (END, START, "<|call|>", "<|return|>")
_BEGINS: Final = (START, CHANNEL, " to=")
_FUNCTION: Final = re.compile(r"\bto=functions\.(?P<name>\S+?)(?=<|\s|$)")
_MOST_HEADER: Final = 500  # characters


class Channels:
    """One answer, as `Reading` reads others. `stage`: whether its thoughts, or its words, have begun."""

    def __init__(self, *, stage: str, keeps_thoughts: bool, reads_calls: bool) -> None:
        self._out = Told()
        self._keeps_thoughts = keeps_thoughts
        self._reads_calls = reads_calls
        self._in = Incoming()
        self._reading = self._answer(stage)

    @property
    def reasoning(self) -> str:
        """The thoughts."""
        return self._out.reasoning

    @property
    def content(self) -> str:
        """The words."""
        return self._out.content

    @property
    def calls(self) -> list[Json]:
        """The calls, in OpenAI's shape."""
        return self._out.calls

    @property
    def says_words(self) -> bool:
        """Whether nothing but words can follow: another message may."""
        return False

    def feed(self, text: str) -> list[Json]:
        """What a piece of text adds."""
        self._in.text += text
        next(self._reading, None)
        return self._out.taken()

    def close(self) -> list[Json]:
        """No more text comes."""
        self._in.is_over = True
        return self.feed("")

    def _answer(self, stage: str) -> Wait:
        try:
            if stage == "thinking":
                yield from self._thoughts("")
            elif stage == "saying":
                yield from self._told(self._out.say)
            while True:
                yield from self._message()
                self._in.done()
        except CutOffError:
            return

    def _message(self) -> Wait:
        source = self._in
        while not source.text:
            yield from source.more()
        yield from source.literal(f"{START}assistant")
        while any(begin.startswith(source.text[source.at :]) for begin in _BEGINS):
            yield from source.more()
        header = ""
        if source.text.startswith(_BEGINS, source.at):
            try:
                header = yield from source.until((MESSAGE,), _MOST_HEADER)
                yield from source.expect(MESSAGE)
            except OtherwiseError:
                header = ""
        called = _FUNCTION.search(header)
        if called and self._reads_calls:
            self._out.call(called["name"])
            yield from source.value(self._out.arguments, forget=True)
            yield from self._told()
        elif "to=" in header and "to=assistant" not in header:
            yield from self._told()
        elif header.rpartition(CHANNEL)[2].startswith("analysis"):
            yield from self._thoughts(header + MESSAGE)
        else:
            yield from self._told(self._out.say)

    def _thoughts(self, front: str) -> Wait:
        if not self._keeps_thoughts:
            yield from self._told(self._out.think)
            return
        self._out.say(front)
        yield from self._told(self._out.say)
        self._out.say(END)

    def _told(self, tell: Callable[[str], object] = len) -> Wait:
        """Tell a message up to its end, which is passed."""
        source = self._in
        while True:
            ends = {end: at for end in _ENDS if (at := source.text.find(end, source.at)) >= 0}
            begun = 0 if ends else max(n_begun(source.text, end, source.at) for end in _ENDS)
            stop = min(ends.values()) if ends else len(source.text) - (0 if source.is_over else begun)
            tell(source.text[source.at : stop])
            source.at = stop
            if ends:
                end = min(ends, key=lambda end: ends[end])
                source.at += 0 if end == START else len(end)
                return
            source.done()
            yield from source.more()
