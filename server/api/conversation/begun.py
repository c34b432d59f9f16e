"""Where does an answer that is begun go on? Behind what asks for it and its thoughts, as the template has them."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

from server.api.conversation.capabilities import Around, Json
from server.api.conversation.learning import n_alike
from server.api.conversation.reading import THINK
from server.api.messages import text_of
from server.template.chat_template import ChatTemplateError

_WORDS: Final = "words of an answer that is begun"  # stand in a rendering where the answer's own would
PARTED: Final = "\n\n"  # stands between parts of what is begun; common/chat.h, common_chat_msg::render_content


class Writes(Protocol):
    """A template, and all names of a conversation but its messages."""

    def __call__(self, messages: Sequence[Mapping[str, Any]], **more: Any) -> str:
        """What it writes of messages, with further names.

        Raises:
            ChatTemplateError: it refuses them, or fails.
        """


def begun(writes: Writes, messages: Sequence[Json], answer: Json, around: Around) -> str:
    """The text up to where the answer goes on: what asks for an answer, its thoughts (none, if it has none), its words.

    As llama-server has it, an answer in a template with thoughts has some, if empty ones, but for what llama-server
    would write twice, or the template otherwise: thoughts that are over where it is told not to think, and what it
    ends without having begun (GLM 4.7). Where what was begun are thoughts alone, it goes on within them. Where a
    template writes a channel in front of words, they stand behind it.

    Source: llama.cpp 0c1e570 common/chat-auto-parser-generator.cpp, peg_generator::generate_parser; common/chat.cpp,
    common_chat_template_generation_prompt_impl; common/parsers.
    """
    words, thoughts = text_of(answer["content"], PARTED), answer.get("reasoning_content") or ""
    begin, end = around.marks or THINK
    alone = asking = writes(messages)
    with suppress(ChatTemplateError):
        alone = writes(messages, add_generation_prompt=False)
    if alone == asking and (mark := next((m for m in (begin, end) if alone.rstrip().endswith(m)), "")):
        alone = alone[: alone.rindex(mark)]  # one that asks for answers whether it is to or not
    asks = asking[n_alike(alone, asking) :]
    if any(mark in words for mark in (begin, end)):
        return alone + _thoughts_over(asks, begin) + words  # it has its own
    if not around.start:
        return _in_channel(writes, messages, alone + asks) + words
    if not thoughts:
        if asks.rstrip().endswith(end):
            return alone + asks + words  # it is told not to think
        lead = _in_channel(writes, messages, alone)[len(alone) :]
        if end in lead and begin not in lead:
            return alone + lead + words  # the template ends thoughts that there are none of
    front, begun, blanks = asks.rpartition(begin)
    if not begun or blanks.strip():
        front, blanks = asks.partition(begin if begun else end)[0], ""
    front = alone + front + max(around.start, f"{begin}{blanks}" if thoughts else "", key=len) + thoughts
    return front if thoughts and not words else front + around.between + words


def _thoughts_over(text: str, begin: str) -> str:
    """The text without thoughts that it begins at its end."""
    return text[: text.rindex(begin)] if text.rstrip().endswith(begin) else text


def _in_channel(writes: Writes, messages: Sequence[Json], front: str) -> str:
    """The front, and what the template writes between it and an answer's words, if that is more than blanks.

    An answer may also change what stands before it: Mistral's templates put the system's message into the last one, if
    that is a user's. Then it is begun where it is asked for.
    """
    written = ""
    with suppress(ChatTemplateError):
        written = writes([*messages, {"role": "assistant", "content": _WORDS}], add_generation_prompt=False)
    head, found, _ = written.rpartition(_WORDS)
    return head if found and head.startswith(front) and head[len(front) :].strip() else front
