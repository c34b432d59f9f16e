"""What does an answer say that is written in messages to somebody? Thoughts, words and calls, by their recipients."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from server.api.conversation.calls import Calls
from server.api.conversation.incoming import CutOffError, Incoming, OtherwiseError, Reads, Wait, n_begun
from server.api.conversation.recipients import Recipients
from server.api.conversation.style import Style
from server.api.conversation.told import Told

Json = dict[str, Any]
_TAG: Final = re.compile(r"<[^<>]*>")


class Addressed:
    """One answer, as `Reading` reads others. `stage`: whether its thoughts, or its words, have begun.

    `tools`: schemas of parameters by function; a message to any other is words.
    """

    def __init__(
        self, to: Recipients, style: Style | None, *, stage: str, keeps_thoughts: bool, tools: Mapping[str, Any]
    ) -> None:
        self._out = Told()
        self._in = Incoming()
        self._to = to
        self._keeps_thoughts = keeps_thoughts
        self._style = style
        self._calls = Calls(style, tools, source=self._in, out=self._out) if style is not None else None
        self._headers = to.headers(tools if style is not None else ())
        self._next = {to.between + header: name for header, name in self._headers.items()}
        begun = _TAG.match(to.between)
        self._n_mark = begun.end() if begun else len(to.between)  # so much of what stands between is no word
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
            name = {"thinking": self._to.thoughts, "saying": self._to.words}.get(stage)
            if name is None:
                name = yield from self._first()
            while True:
                name = yield from self._message(name)
        except CutOffError:
            return

    def _first(self) -> Reads[str]:
        """Whom the first message is for; the user, where it has no header."""
        source, known = self._in, self._headers | {header.lstrip(): name for header, name in self._headers.items()}
        while True:
            header = next((header for header in known if source.text.startswith(header)), "")
            if header:
                source.text = source.text.removeprefix(header)
                return known[header]
            if source.is_over or not any(header.startswith(source.text) for header in known):
                return self._to.words
            yield

    def _message(self, name: str) -> Reads[str]:
        """Tell a message to somebody, and whom the next one is for."""
        if name == self._to.words:
            return (yield from self._said(self._out.say))
        if name == self._to.thoughts:
            if not self._keeps_thoughts:
                return (yield from self._said(self._out.think))
            self._out.say(self._to.header(name))
            following = yield from self._said(self._out.say)
            self._out.say(self._to.between)
            return following
        try:
            if self._style is not None and self._style.notation != "json" and self._calls is not None:
                yield from self._calls.call()
            else:
                self._out.call(name)
                yield from self._in.value(self._out.arguments, forget=True)
        except OtherwiseError:
            return (yield from self._said(self._out.say))
        self._in.done()
        return (yield from self._said(len))

    def _said(self, tell: Callable[[str], object]) -> Reads[str]:
        """Tell what is said up to the next header, which is passed."""
        source = self._in
        while True:
            found = {at: header for header in self._next if (at := source.text.find(header, source.at)) >= 0}
            begun = 0 if found else max(n_begun(source.text, header, source.at) for header in self._next)
            if source.is_over and begun < self._n_mark:
                begun = 0
            stop = min(found) if found else len(source.text) - begun
            tell(source.text[source.at : stop])
            source.at = stop
            if found:
                header = found[stop]
                source.at += len(header)
                source.done()
                return self._next[header]
            source.done()
            yield from source.more()
