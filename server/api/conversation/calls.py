"""Where in an answer's text are tool calls? Read as the text comes, in OpenAI's pieces.

Content is handed on at once, except what may be the beginning of a call. A call's name is told when it is complete, its
arguments as they come, as JSON whatever the model writes them in.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from ggufphys.units import parse_json
from server.api.conversation.arguments import gemma, python, tagged
from server.api.conversation.incoming import BLANK, CutOffError, Incoming, OtherwiseError, Reads, Wait, n_begun
from server.api.conversation.style import Mark, Style
from server.api.conversation.told import Told

Json = dict[str, Any]
_BETWEEN: Final = BLANK + ",;"
_NAMES: Final = ("name", "tool_name")
_ARGUMENTS: Final = ("arguments", "parameters")
_BESIDE: Final = ("type", "id", "function", "tool_call_id")  # what else there may be in a call's object
_MOST_NAME: Final = 256  # characters of a function's name, or of an id
_FENCE: Final = "```"
_NO_NAME: Final = "<>{}\n\r"
_OBJECT: Final = re.compile(r"\n[ \t]*\{")
_HEAD: Final = re.compile(r'\{\s*"name"\s*:\s*"(?P<name>(?:[^"\\]|\\.)*)(?P<closed>"?)(?P<rest>.*)', re.DOTALL)


class Calls:
    """A reader of one answer. `feed` gives deltas; `content` and `calls` hold all that came.

    `tools`: schemas of parameters by function. Where nothing marks a call, it is told from an answer by their names.
    """

    def __init__(
        self, style: Style, tools: Mapping[str, Any] | None = None, *, forced: bool = False,
        source: Incoming | None = None, out: Told | None = None,
    ) -> None:  # fmt: skip
        """`forced`: there are no words. `source` and `out` are those of another reader, which asks for a `call`."""
        self._out = out or Told()
        self._style = style
        self._tools = tools or {}
        self._in = source or Incoming()
        self._forced = forced
        self._is_marked = bool(style.begin)  # what comes is told from words by more than its names
        self._says = False  # something has been said since the last call
        self._reading = self._answer()

    @property
    def content(self) -> str:
        """The words."""
        return self._out.content

    @property
    def calls(self) -> list[Json]:
        """The calls, in OpenAI's shape."""
        return self._out.calls

    def feed(self, text: str) -> list[Json]:
        """What a piece of text adds: deltas with `content` or `tool_calls`."""
        self._in.text += text
        next(self._reading, None)
        return self._out.taken()

    def close(self) -> list[Json]:
        """No more text comes: what was held back is content, but for a call that was cut off before its arguments."""
        self._in.is_over = True
        return self.feed("")

    def _answer(self) -> Wait:
        try:
            while (yield from self._words()):
                n_before = len(self.calls)
                try:
                    self._is_marked = not self._is_bare and bool(self._style.begin)
                    if self._is_bare:
                        yield from self._unmarked()
                    else:
                        yield from self._section()
                except OtherwiseError:  # what looked like the beginning of a call is words
                    if len(self.calls) > n_before:
                        self._in.done()
                    else:
                        self._say(1)
        except CutOffError:
            if not self._is_marked and not self.calls and not self._cut_off():
                self._say(len(self._in.text))

    def _words(self) -> Reads[bool]:
        """Say words, up to where a call may begin; False where the answer is over."""
        begins = self._style.begins
        while True:
            rest = self._in.text
            if not self._says:  # blanks around calls are no content
                rest = rest.lstrip(_BETWEEN if self.calls and not begins else BLANK)
            found = self._begun(rest)
            if found == 0:
                self._in.text = rest
                return True
            if found > 0:
                self._say(len(self._in.text) - len(rest) + found)
                return True
            if self._in.is_over:
                is_begun = self._forced and any(begin.startswith(rest) for begin in begins)
                self._say(len(self._in.text) if (rest or not self.calls) and not is_begun else 0)
                return False
            kept = max((n_begun(rest, begin) for begin in begins), default=0)
            if len(rest) > kept:
                if self.calls:
                    self._in.text = rest
                self._say(len(self._in.text) - kept)
            yield

    def _begun(self, rest: str) -> int:
        """Where a call may begin; -1: nowhere yet."""
        if self._may_be_bare(rest):
            return 0
        begins = self._style.begins
        return _first(rest, begins) if begins else self._bare(rest)

    def _may_be_bare(self, rest: str) -> bool:
        """May an answer be a call without the marks that should stand around it? Smaller models forget these."""
        return self._style.whole and bool(self._tools) and not self.content and rest.startswith(("{", "`"))

    @property
    def _is_bare(self) -> bool:
        return bool(self._style.begin) and self._may_be_bare(self._in.text)

    def _unmarked(self) -> Wait:
        """A call that its names alone tell from words, in Markdown's fence or without."""
        fenced = (yield from self._in.literal(f"{_FENCE}json")) or (yield from self._in.literal(_FENCE))
        yield from self._object()
        self._in.done()
        if fenced:
            yield from self._in.literal(_FENCE)
            self._in.done()

    def _bare(self, rest: str) -> int:
        """Where an object may be a call, with nothing that says so: at the beginning of a line."""
        if not self.content and rest.startswith("["):
            return 0
        found = _OBJECT.search(rest if self._says and not self.content.endswith("\n") else f"\n{rest}")
        return found.end() - 1 - (not self._says or self.content.endswith("\n")) if found else -1

    def _say(self, n: int) -> None:
        said, self._in.text, self._in.at = self._in.text[:n], self._in.text[n:], 0
        self._says |= bool(said)
        self._out.say(said)

    def _section(self) -> Wait:
        """Calls, and what stands around all of them."""
        style, source = self._style, self._in
        begin, end = style.section
        has_section = bool(begin) and (yield from source.literal(begin.rstrip("[" + BLANK) if style.whole else begin))
        is_listed = style.whole and (has_section or not begin) and (yield from source.literal("["))
        if not has_section and not is_listed:
            yield from self.call()
            source.done()
            return
        end = end.strip().removeprefix("]").strip() if style.whole else end.strip()
        n_before = len(self.calls)
        while True:
            try:
                yield from self.call()
            except OtherwiseError:
                if len(self.calls) == n_before:
                    raise
                return
            source.done()
            yield from source.skip(_BETWEEN)
            is_closed = is_listed and (yield from source.literal("]"))
            if (yield from source.literal(end)) if end else is_closed:
                source.done()
                return

    def call(self) -> Wait:
        """Pass a call, and tell of it.

        Raises:
            OtherwiseError: there is none.
        """
        style, source = self._style, self._in
        if style.whole:
            yield from source.expect(style.front)
            yield from self._object()
            yield from source.literal(style.close[-1].rpartition("}")[2])
            return
        if not (yield from self._opened(style.open)):
            raise OtherwiseError
        stops = tuple(filter(None, (text.strip() for text in style.behind_names)))
        name = yield from source.until(stops, _MOST_NAME, _NO_NAME)
        self._begin(name.strip())
        yield from self._named(style.named)
        match style.notation:
            case "tagged" if style.tags is not None:
                yield from tagged(source, style.tags, self._tools.get(self._name), self._out.arguments)
            case "gemma":
                yield from gemma(source, self._out.arguments)
            case "python":
                yield from python(source, self._tools.get(self._name), self._out.arguments)
            case _:
                yield from source.value(self._out.arguments, forget=True)
        yield from source.literal(style.close[0])

    @property
    def _name(self) -> str:
        return str(self.calls[-1]["function"]["name"])

    def _opened(self, mark: Mark) -> Reads[bool]:
        """Pass what stands in front of a name; its last word will do."""
        source = self._in
        if not (yield from source.literal(mark[0])):
            return len(mark) == 1 and bool(self._style.short) and (yield from source.literal(self._style.short))
        for text in mark[1:]:
            yield from source.until((text.strip(),), _MOST_NAME, _NO_NAME)
            yield from source.expect(text)
        return True

    def _named(self, mark: Mark) -> Wait:
        """Pass what stands between a name and arguments; ids may be left out."""
        source = self._in
        for i, text in enumerate(mark):
            if i and not (yield from source.literal(text)):
                yield from source.until((text.strip(),), _MOST_NAME)
                yield from source.literal(text)
            elif not i:
                yield from source.literal(text)

    def _object(self) -> Wait:
        """A call as one object: its name under one key, its arguments under another; or these under the name."""
        source, name, arguments, is_told = self._in, "", "", False
        n_before = len(self.calls)
        yield from source.expect("{")
        while not (yield from source.literal("}")):
            yield from source.literal(",")
            key = _read((yield from self._value()))
            yield from source.expect(":")
            yield from source.skip()
            if self._style.is_by_name and not name:
                name, is_told = str(key), True
                self._begin(name)
                yield from self._json()
            elif key == "function" and source.text.startswith("{", source.at):
                yield from self._object()
                is_told = True
            elif key in _ARGUMENTS and name and not is_told:
                if len(self.calls) == n_before:
                    self._begin(name)
                yield from self._json()
                is_told = True
            elif key not in (*_NAMES, *_ARGUMENTS, *_BESIDE) and not self._is_marked:
                raise OtherwiseError
            else:
                value = yield from self._value()
                if key in _ARGUMENTS:
                    arguments = value
                elif key in _NAMES or key == "function":
                    name = str(_read(value))
                    if self._is_marked:
                        self._begin(name)
        if len(self.calls) == n_before:
            self._begin(name)
        if not is_told:
            self._out.arguments(arguments or "{}")

    def _json(self) -> Wait:
        """Arguments as JSON, told as they come; as a string of it, when it has come."""
        yield from self._in.skip()
        if self._in.text[self._in.at : self._in.at + 1] == '"':
            self._out.arguments(str(_read((yield from self._value()))))
        else:
            yield from self._in.value(self._out.arguments, forget=True)

    def _value(self) -> Reads[str]:
        said = list[str]()
        yield from self._in.value(said.append)
        return "".join(said)

    def _cut_off(self) -> bool:
        """Where nothing marks calls: is what is held a call of a function that ends in front of its arguments?

        Source: llama.cpp 0c1e570 common/chat-peg-parser.cpp, common_chat_peg_mapper (a call is told from its name on).
        """
        found = _HEAD.match(self._in.text)
        if found is None or not found["closed"]:
            return False
        rest, name = "".join(found["rest"].split()), str(_read(f'"{found["name"]}"'))
        if name not in self._tools or not any(f',"{key}":'.startswith(rest) for key in _ARGUMENTS):
            return False
        self._begin(name)
        return True

    def _begin(self, name: str) -> None:
        """Begin a call: its name is told.

        Raises:
            OtherwiseError: it has none, or nothing says that it is a call.
        """
        if not name or (not self._is_marked and self._tools and name not in self._tools):
            raise OtherwiseError
        self._out.call(name)
        self._says = False


def _first(text: str, begins: tuple[str, ...]) -> int:
    return min((at for begin in begins if (at := text.find(begin)) >= 0), default=-1)


def _read(text: str) -> Any:
    """Raises OtherwiseError where it is no JSON."""
    try:
        return parse_json(text)
    except ValueError:
        raise OtherwiseError from None
