"""Which texts may an answer be, where a request says so? Words in a format, or calls of tools; behind thoughts."""

import json
import re
from typing import Final

from server.api.conversation.recipients import Recipients
from server.api.gbnf import prefixed

_TAG: Final = re.compile(r"^<[^<>]*>")  # which ends the message in front

# Source: llama.cpp 0c1e570 common/parsers/gpt-oss.cpp, response_format.
ON_FINAL_CHANNEL: Final = (
    '("<|start|>assistant")? "<|channel|>final" (" "? "<|constrain|>"? [A-Za-z0-9_-]+)? "<|message|>" '
)


def answer_gbnf(
    words: str | None, calls: str | None, *, thoughts: tuple[str, ...] = (), in_front: tuple[str, str] = ("", "")
) -> str:
    """GBNF of answers that are one of two, each a GBNF with a `root`; at least one of them is there.

    `thoughts`: marks of which one may stand in front: what begins them, from where tokens are chosen freely up to their
    end, behind which the grammar goes on (`server/engine/loop/thoughts.py`); or what ends them, where there are none.
    `in_front`: of words, and of calls, in GBNF.
    """
    ways, rules = list[str](), list[str]()
    for name, text, front in (("words", words, in_front[0]), ("calls", calls, in_front[1])):
        if text is not None:
            if not thoughts and not front and None in (words, calls):
                return text
            ways.append(f"{front}{name}-root")
            rules.append(prefixed(text, f"{name}-"))
    marks = " | ".join(json.dumps(mark, ensure_ascii=False) for mark in thoughts)
    begun = rf"([ \t\r\n]* ({marks}) [ \t\r\n]*)? " if thoughts else ""
    return "\n".join((f"root ::= {begun}({' | '.join(ways)})", *rules))


def in_message(to: Recipients) -> tuple[str, str]:
    """What stands in front of words, and of calls, in a message to somebody, which may be another than the first."""
    start = json.dumps(_TAG.sub("", to.between, count=1), ensure_ascii=False)
    return f"{start}? {json.dumps(to.header(to.words), ensure_ascii=False)} ", f"{start}? "
