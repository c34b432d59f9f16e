"""Finding out what a chat template understands, once, by rendering small conversations."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from server.api.conversation.capabilities import Around, Capabilities, Json, Thoughts, Turn
from server.api.conversation.learning import addressed, learned
from server.api.messages import parts_of

Render = Callable[[Sequence[Mapping[str, Any]], Mapping[str, Any]], str | None]
"""The text of messages with further names, None where the template fails or refuses."""

# Templates' words for whether earlier thoughts are shown to the model again, and what says that they are.
KEEPS: Final = {
    "preserve_thinking": True, "clear_thinking": False, "truncate_history_thinking": False, "drop_thinking": False,
}  # fmt: skip

NOTHING: Final[Mapping[str, Any]] = {}
_SAID = "needle in a haystack"
_MORE = "straw in a stable"
_HAY = {"type": "object", "properties": {"hay": {"type": "string", "description": "d"}}, "required": ["hay"]}
_TOOL = {"type": "function", "function": {"name": "pitchfork", "description": "d", "parameters": _HAY}}  # all of a tool
_BARE = {"type": "function", "function": {"name": "pitchfork", "description": "", "parameters": {}}}
_MARK_LAST = re.compile(r"(<[^<>]*>|\[[^\[\]]*\])\s*$")
_MARK_FIRST = re.compile(r"^\s*((<[^<>]*>|\[[^\[\]]*\])\s*)")
_PAIR = re.compile(r"([<\[](\w[^<>\[\]]*)[>\]])(\s*)([<\[]/\2[>\]]\s*)$")  # thoughts that are none
_BEGUN = re.compile(r"(<think>|\[THINK\])\s*$")
_WRITTEN_OUT = re.compile(r"""["']needle["']\s*:\s*1""")  # an object as JSON, or as Python shows it
_PART_WRITTEN_OUT = re.compile(r"""["'](text|thinking)["']\s*:""")  # parts as JSON, or as Python shows them


def with_a_tool(render: Render) -> Render:
    """Conversations with a tool at hand, for a template that is used for no others."""
    return lambda messages, variables: render(messages, {"tools": [_TOOL], **variables})


def probe(render: Render, source: str = "") -> Capabilities:
    """Find out. The source tells what no rendering does: whether calls may begin within thoughts."""
    plain = _shows(render, [_says("user", _SAID)])
    typed = not plain and _shows(render, [_says("user", _parts(_SAID))])

    def content(text: str) -> Any:
        return _parts(text) if typed else text

    question, empty, words = _says("user", content("question")), content(""), content("words")
    thoughts = _thoughts(render, question, words)
    around, several = _around_thoughts(render, question, thoughts, content), _shows_two_calls(render, question, empty)
    turn = _turn(render, question, content(_SAID))

    def thinking(answer: Json) -> Json:
        return _thinking(answer, thoughts) if thoughts else answer

    to_functions = addressed(render, question, content, asks=turn.asks, thinks=thinking, source=source)
    return Capabilities(
        typed=typed,
        parts=frozenset() if typed else frozenset(_roles_with_parts(render, question)),
        system=_shows(render, [_says("system", content(_SAID)), question]),
        developer=_knows_developers(render, question, content(_SAID)),
        tools="pitchfork" in (render([question], {"tools": [_TOOL]}) or ""),
        bare_tools=render([question], {"tools": [_BARE]}) is not None,
        object_arguments=_wants_objects(render, question, empty),
        text_arguments=_wants_text(render, question, empty),
        several_calls=several,
        thoughts=thoughts,
        calls_or_words=thoughts == "thinking" and not _takes_calls_with_words(render, question, words),
        responses=_wants_responses(render, question, words),
        around=around,
        turn=turn,
        calls=to_functions or learned(render, question, content, several=several, thoughts=around.marks, source=source),
        channels="<|channel|>" in source and "<|message|>" in source,
    )


def _says(role: str, content: Any, **more: Any) -> Json:
    return {"role": role, "content": content, **more}


def _parts(*texts: str) -> list[Json]:
    return [{"type": "text", "text": text} for text in texts]


def _calls(content: Any, *arguments: Any, **more: Any) -> Json:
    """An answer that calls a function once with each of these."""
    calls = [
        {"id": _id(i), "type": "function", "function": {"name": "f", "arguments": each}}
        for i, each in enumerate(arguments)
    ]
    return _says("assistant", content, tool_calls=calls, **more)


def _result(content: Any, i: int = 0) -> Json:
    return _says("tool", content, tool_call_id=_id(i), name="f")


def _id(i: int) -> str:
    return f"call0000{i}"


def _shows(render: Render, messages: Sequence[Json]) -> bool:
    return _SAID in (render(messages, NOTHING) or "")


def _knows_developers(render: Render, question: Json, said: Any) -> bool:
    """Is the developer's message shown as theirs, by a template that does not show any word as a role?"""
    as_developer, as_other = (render([_says(role, said), question], {}) for role in ("developer", "somebody"))
    if as_developer is None or _SAID not in as_developer or "developer" not in as_developer:
        return False
    return as_other is None or as_other.replace("somebody", "developer") != as_developer


class _Watched(list[Json]):
    """An array without parts that tells whether anybody looked for some."""

    looked_at = False

    def __iter__(self) -> Iterator[Json]:
        self.looked_at = True
        return super().__iter__()

    def __getitem__(self, key: Any) -> Any:
        self.looked_at |= not isinstance(key, slice)  # a slice is all of it
        return super().__getitem__(key)


def _roles_with_parts(render: Render, question: Json) -> Iterator[str]:
    """Whose contents may be arrays of parts: all of them are shown, and nothing of how they were given.

    llama.cpp asks of the user's alone, whether an empty array is looked into, and hands on others' to be shown as they
    are given, in part, or to fail.

    Source: llama.cpp 0c1e570 common/jinja/caps.cpp, caps_get (typed content).
    """
    watched = _Watched()
    render([_says("user", watched)], {})
    if not watched.looked_at:
        return
    two = _parts(_SAID, _MORE)
    tried = {
        "user": [_says("user", two)],
        "system": [_says("system", two), question],
        "assistant": [question, _says("assistant", two), question],
        "tool": [question, _calls("", {"n": 1}), _result(two)],
    }
    for role, messages in tried.items():
        text = render(messages, {}) or ""
        if _SAID in text and _MORE in text and not _PART_WRITTEN_OUT.search(text):
            yield role


def _thoughts(render: Render, question: Json, words: Any) -> Thoughts:
    """Where an answer's thoughts are looked for: the last answer's, or those of a call that came to something."""
    forms: dict[Thoughts, Json] = {
        "reasoning_content": {"reasoning_content": _SAID},
        "thinking": {"thinking": _SAID},
        "block": {"content": [{"type": "thinking", "thinking": _SAID}, *_parts("words")]},
    }
    for form, thought in forms.items():
        answer = {**_says("assistant", words), **thought}
        call = {**_calls("", {"n": 1}), **thought}
        for messages in ([question, answer], [question, call, _result("r")]):
            text = render(messages, KEEPS) or ""
            if _SAID in text and not _PART_WRITTEN_OUT.search(text):
                return form
    return ""


def _around_thoughts(render: Render, question: Json, thoughts: Thoughts, content: Callable[[str], Any]) -> Around:
    """What stands in front of an answer's thoughts and behind them, as far as the template shows it.

    Around those of the last answer, or of a call; else around none: what it writes in front of words by itself, or has
    begun where it asks for an answer, or begins and ends where it is told not to think.

    Source: llama.cpp 0c1e570 common/chat-diff-analyzer.cpp, analyze_reasoning.
    """
    thinking = {**KEEPS, "enable_thinking": True}
    closed = {**thinking, "add_generation_prompt": False}
    asking = render([question], thinking) or ""
    answer = _says("assistant", content(_SAID))
    if thoughts:
        call = _calls("", {"n": 1})
        for messages in ([question, _thinking(answer, thoughts)], [question, _thinking(call, thoughts), _result("r")]):
            front, _, rest = (render(messages, closed) or "").partition(_MORE)
            between, said, _ = rest.partition(_SAID)
            behind = _MARK_FIRST.search(rest)
            start = _led(front, asking)
            if start and (said or behind):
                return Around(start, between if said else behind[1] if behind else "")
    written, _, _ = (render([question, answer], closed) or "").partition(_SAID)
    told_not_to = render([question], {**thinking, "enable_thinking": False}) or ""
    if pair := _PAIR.search(written):
        half = len(pair[3]) // 2
        return Around(pair[1] + pair[3][:half], pair[3][half:] + pair[4])
    if pair := _PAIR.search(told_not_to):
        return Around(pair[1], pair[4].strip())
    if begun := _BEGUN.search(asking):
        return Around(begun[1], f"{begun[1][0]}/{begun[1][1:]}")
    return Around()


def _turn(render: Render, question: Json, words: Any) -> Turn:
    """How a turn is asked for, and how one ends: told apart by conversations that ask for none."""
    thinking = {"enable_thinking": True}
    closed = {**thinking, "add_generation_prompt": False}
    asking, alone = render([question], thinking), render([question], closed)
    answered = render([question, _says("assistant", words)], closed)
    if not asking or not alone or not answered or not asking.startswith(alone):
        return Turn()
    return Turn(asking.removeprefix(alone), answered.rpartition(_SAID)[2])


def _thinking(answer: Json, thoughts: Thoughts) -> Json:
    """The answer with thoughts where they are looked for."""
    if thoughts == "block":
        return {**answer, "content": [{"type": "thinking", "thinking": _MORE}, *parts_of(answer["content"])]}
    return {**answer, thoughts: _MORE}


def _led(front: str, asking: str) -> str:
    """What leads to thoughts: a mark, and what stands between it and where an answer is asked for."""
    mark = _MARK_LAST.search(front)
    led = front[len(asking) :] if front.startswith(asking) else ""
    if mark is not None and len(led.strip()) <= len(mark[0].strip()):
        return mark[0]
    return led if mark is not None or _MARK_FIRST.match(led) else ""


def _takes_calls_with_words(render: Render, question: Json, words: Any) -> bool:
    return render([question, _calls(words, {"n": 1}, thinking=_SAID), _result("r")], KEEPS) is not None


def _wants_responses(render: Render, question: Json, words: Any) -> bool:
    """Is what came of a call shown in the message that made it, and else not, or as any word for a role is?"""
    call = _calls(words, {"n": 1})
    if not _shows(render, [question, {**call, "tool_responses": [{"name": "f", "response": _SAID}]}]):
        return False
    as_tool, as_other = (render([question, call, {**_result(_SAID), "role": r}], {}) for r in ("tool", "somebody"))
    return as_tool is None or _SAID not in as_tool or (as_other or "").replace("somebody", "tool") == as_tool


def _wants_objects(render: Render, question: Json, empty: Any) -> bool:
    """Are a call's arguments shown when they come as an object, and else quoted, not at all, or not in the model's way?

    A template that takes both may write names and values in words of its own, which it cannot take from a text.
    """
    as_object = _with_calls(render, question, empty, {"needle": 1})
    if "needle" not in as_object:
        return False
    as_string = _with_calls(render, question, empty, '{"needle": 1}')
    return '{"needle": 1}' not in as_string or not _WRITTEN_OUT.search(as_object)


def _wants_text(render: Render, question: Json, empty: Any) -> bool:
    """Are a call's arguments shown when they come as JSON's text alone?"""
    as_object, as_text = (_with_calls(render, question, empty, each) for each in ({"needle": 1}, '{"needle": 1}'))
    return "needle" in as_text and "needle" not in as_object


def _shows_two_calls(render: Render, question: Json, empty: Any) -> bool:
    """Are both of two calls shown, whose arguments are an object or its JSON?"""
    both = ({"needle": 1}, {"haystack": 1})
    as_objects = _with_calls(render, question, empty, *both)
    shown = as_objects or _with_calls(render, question, empty, *map(json.dumps, both))
    return "needle" in shown and "haystack" in shown


def _with_calls(render: Render, question: Json, empty: Any, *arguments: Any) -> str:
    """A conversation with calls of these arguments, and their results; nothing where the template refuses it."""
    results = [_result(empty or "r", i) for i in range(len(arguments))]
    return render([question, _calls(empty, *arguments), *results], {}) or ""
