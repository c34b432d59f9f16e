"""How does a template write calls of tools? Told from what it makes of calls whose names and arguments are known.

Source: llama.cpp 0c1e570 common/chat-diff-analyzer.cpp, analyze_tools (which learns by comparing renderings, too).
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from string import ascii_lowercase
from typing import Any, Final, NamedTuple

from server.api.conversation.recipients import Shown, learned_recipients
from server.api.conversation.style import QUOTE, Mark, Notation, Style, Tags

Json = dict[str, Any]
Render = Callable[[Sequence[Mapping[str, Any]], Mapping[str, Any]], str | None]


class _Known(NamedTuple):
    """A call: its id, its name, a string under a key, a number under another, which comes behind it in any order."""

    id: str
    name: str
    key: str
    value: str
    other: str
    number: int


_FIRST: Final = _Known("call00001", "pitchfork", "hay", "needle", "oats", 7394)
_SECOND: Final = _Known("call00002", "wheelbarrow", "chaff", "thimble", "grain", 5182)
_WORDS: Final = "words"
_HOLE: Final = "\0"
_ANOTHER = re.compile(r"""call0000[12]|(?<=["':])[012](?=["'<])""")  # in each call: ids, and calls that are counted
_TAG = re.compile(r"<[^<>]*>")
_TAG_BEGUN = re.compile(r"(<[^<>]*|\[/?[A-Z_]+)$")
_TAG_RESTS = re.compile(r"[^<>\[\]]*[>\]]")
_PYTHON = re.compile(r"\s*=\s*['\"]")
_CALLS_IN_THOUGHTS: Final = ("<function=", "DSML", "<role>ASSISTANT</role>")
"""Models that begin calls while they think. Source: llama.cpp 0c1e570 common/parsers: qwen3-coder.cpp, deepseek.cpp,
ling3.cpp."""


@dataclass(frozen=True, slots=True)
class _Written:
    """One call in a text: what stands between its name and its arguments, where it ends, how arguments are written."""

    named: str
    end: int
    notation: Notation
    tags: Tags | None = None


def learned(
    render: Render, question: Json, content: Callable[[str], Any], *, several: bool,
    thoughts: tuple[str, str] | None = None, source: str = "",
) -> Style | None:  # fmt: skip
    """The style of the calls that a template writes; None where it shows none, or they are in no style that is known.

    `render` gets messages and further names; `content` makes contents of words; `several`: two calls of one answer are
    shown; `thoughts`: what stands around them, which may stand in front of a call.
    """
    variables = {"tools": [_tool(_FIRST), _tool(_SECOND)], "enable_thinking": False, "add_generation_prompt": False}

    def calling(*calls: Json) -> str | None:
        return render([question, {"role": "assistant", "content": content(""), "tool_calls": calls}], variables)

    words = render([question, {"role": "assistant", "content": content(_WORDS)}], variables) or ""
    for as_text in (False, True):
        first, second = (_call(each, as_text=as_text) for each in (_FIRST, _SECOND))
        text = calling(first, second) if several else calling(first)
        if text is None or _FIRST.name not in text:
            continue
        known = (_FIRST, _SECOND) if several and _SECOND.name in text else (_FIRST,)
        style = _style(_ANOTHER.sub(_HOLE, _thoughtless(_alone(text, words), thoughts)), known, source)
        if style is not None:
            return style
    return None


def addressed(
    render: Render, question: Json, content: Callable[[str], Any], *, asks: str, thinks: Callable[[Json], Json],
    source: str = "",
) -> Style | None:  # fmt: skip
    """The style of calls that are messages to functions, by which answers of words are read, too; None: they are not.

    `asks`: what an answer is asked for with; `thinks` gives an answer thoughts.
    """
    variables = {"tools": [_tool(_FIRST), _tool(_SECOND)], "enable_thinking": False, "add_generation_prompt": False}
    front = (render([question], variables) or "") + asks

    def behind(answer: Json) -> str | None:
        text = render([question, answer], variables)
        return text.removeprefix(front) if text is not None and text.startswith(front) else None

    words = {"role": "assistant", "content": content(_WORDS)}
    said = behind(words)
    for as_text in (False, True) if said else ():
        calls = [_call(each, as_text=as_text) for each in (_FIRST, _SECOND)]
        call, both = (
            behind({"role": "assistant", "content": content(""), "tool_calls": calls[:n]}) for n in (1, 2)
        )  # fmt: skip
        found = learned_recipients(
            Shown(
                words=said, thoughts=behind(thinks(words)), call=call, calls=both, said=_WORDS,
                ends=(said or "").rpartition(_WORDS)[2], name=_FIRST.name, second=_SECOND.name,
            )
        )  # fmt: skip
        if found is None:
            continue
        written = _written(found[1], 0, _FIRST)
        if written is not None and written.notation == "json" and not written.named.strip():
            return Style(open=("",), named=("",), close=("",), between=found[0].between, to=found[0])
        style = _style(found[1], (_FIRST,), source) if _FIRST.name in found[1] else None
        if style is not None and not style.whole:
            return replace(style, between=found[0].between, to=found[0])
    return None


def _tool(of: _Known) -> Json:
    properties = {of.key: {"type": "string", "description": "d"}, of.other: {"type": "integer", "description": "d"}}
    parameters = {"type": "object", "properties": properties, "required": [of.key, of.other]}
    return {"type": "function", "function": {"name": of.name, "description": "d", "parameters": parameters}}


def _call(of: _Known, *, as_text: bool) -> Json:
    arguments = {of.key: of.value, of.other: of.number}
    given = json.dumps(arguments) if as_text else arguments
    return {"id": of.id, "type": "function", "function": {"name": of.name, "arguments": given}}


def _alone(text: str, words: str) -> str:
    """What a template writes of calls, without what it writes around an answer of words, too."""
    before, _, behind = words.rpartition(_WORDS)
    n_front = n_alike(text, before)
    if begun := _TAG_BEGUN.search(text[:n_front]):  # a tag that only begins alike
        n_front = begun.start()
    text = text[n_front:]
    return text[: len(text) - len(_common_end(text, behind))]


def _thoughtless(text: str, marks: tuple[str, str] | None) -> str:
    for mark in marks or ():
        text = text.lstrip().removeprefix(mark)
    return text


def _style(text: str, known: Sequence[_Known], source: str) -> Style | None:
    """The style of one call, or two."""
    gaps, named, at = list[str](), list[_Written](), 0
    for of in known:
        start = text.find(of.name, at)
        written = _written(text, start + len(of.name), of)
        if start < 0 or written is None:
            return None
        gaps.append(text[at:start])
        named.append(written)
        at = written.end
    last, first = text[at:], gaps[0]
    if len(known) == 1:
        open_, section, close, between = first, ("", ""), last.rstrip(), "\n"
    else:
        open_ = _common_end(first, gaps[1]).lstrip()
        middle = gaps[1][: len(gaps[1]) - len(open_)]
        close = _common_begin(middle, last).rstrip()
        between, begin = middle[len(close) :], first[: len(first) - len(open_)]
        end = last[len(close) :]
        section = (begin, _first_mark(begin.strip(), end)) if begin.strip() else ("", "")
    style = Style(
        open=_split(open_.lstrip()), named=_mark(named[0].named, named[-1].named), close=_split(close),
        section=(section[0].lstrip(), section[1].rstrip()), between=between,
        whole=named[0].notation == "json" and "{" in open_, notation=named[0].notation, tags=named[0].tags,
        ends_thoughts=any(sign in source for sign in _CALLS_IN_THOUGHTS),
    )  # fmt: skip
    return style if style.whole or style.begin else None  # a bare name is no mark


def _first_mark(begin: str, text: str) -> str:
    """The text up to what closes the begin, as tags close, or to its first tag."""
    front, bracket, name = begin.rpartition("<")
    closes = f"{front}{bracket}/{name}"
    if bracket and closes in text:
        return text[: text.index(closes) + len(closes)]
    tag = _TAG.search(text)
    return text[: tag.end()] if tag else text


def _written(text: str, at: int, of: _Known) -> _Written | None:
    """The arguments behind a name that ends at a place."""
    key = text.find(of.key, at)
    value, other = text.find(of.value, key), text.find(of.other, key)
    number = text.find(str(of.number), other)
    if min(key, value, other, number) < 0:
        return None
    brace = text.find("{", at, key)
    try:
        found, end = json.JSONDecoder().raw_decode(text, brace if brace >= 0 else key)
        if found == {of.key: of.value, of.other: of.number}:
            return _Written(text[at:brace], end, "json")
    except ValueError:
        pass
    end = number + len(str(of.number))
    to_value, to_other = text[key + len(of.key) : value], text[value + len(of.value) : other]
    if QUOTE in to_value and brace >= 0:
        return _Written(text[at:brace], end + 1, "gemma")
    if _PYTHON.fullmatch(to_value):
        return _Written(text[at:key], end, "python")
    if of.key in to_other:
        return _in_own_tags(text, at, of)
    front = _common_end(text[at:key], to_other)
    front = front[front.find("<") :].lstrip() if "<" in front else ""
    behind = _common_begin(to_other[: len(to_other) - len(front)], text[end:]).rstrip()
    if not front or not behind:
        return None
    tags = Tags(front, _mark(to_value, text[other + len(of.other) : number]), behind)
    return _Written(text[at : key - len(front)], end + len(behind), "tagged", tags)


def _in_own_tags(text: str, at: int, of: _Known) -> _Written | None:
    """Arguments in tags of their keys, which end as they begin, but for a slash."""
    key = text.find(of.key, at)
    value, number = text.find(of.value, key), text.find(str(of.number), key) + len(str(of.number))
    end, _, rest = text[value + len(of.value) :].partition(of.key)
    front, between = end.removesuffix("/"), rest[: rest.find(of.other)]
    closes = between.removesuffix(front)
    last = f"{end}{of.other}{closes}"
    if front == end or not closes or closes == between or not text.startswith(last, number):
        return None
    if text[at:key] == text[at:key].removesuffix(front):
        return None
    tags = Tags(front, (text[key + len(of.key) : value],), end, closes)
    return _Written(text[at : key - len(front)], number + len(last), "tagged", tags)


def _mark(a: str, b: str) -> Mark:
    """What two calls have alike, a hole where they differ."""
    if a == b:
        return _split(a)
    begin, end = a[: n_alike(a, b)], a[len(a) - n_alike(a[::-1], b[::-1]) :]
    return begin.rstrip(ascii_lowercase), end.lstrip(ascii_lowercase)


def _split(text: str) -> Mark:
    return tuple(text.split(_HOLE))


def _common_end(a: str, b: str) -> str:
    """How two texts end alike, from the beginning of a tag on."""
    end = a[len(a) - n_alike(a[::-1], b[::-1]) :]
    while any(_TAG_BEGUN.search(text[: len(text) - len(end)]) for text in (a, b)) and (rest := _TAG_RESTS.match(end)):
        end = end[rest.end() :]
    return end


def _common_begin(a: str, b: str) -> str:
    """How two texts begin alike, up to the end of a tag."""
    begin = a[: n_alike(a, b)]
    if len(begin) < max(len(a), len(b)) and (begun := _TAG_BEGUN.search(begin)):
        return begin[: begun.start()]
    return begin


def n_alike(a: str, b: str) -> int:
    """How many characters two texts begin alike with."""
    if b.startswith(a):
        return len(a)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))
