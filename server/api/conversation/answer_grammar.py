"""Which texts may an answer be, where a request says so? Words in a format, or calls of tools; behind thoughts."""

import json
from typing import Final

from server.api.gbnf import prefixed

# Source: llama.cpp 0c1e570 common/parsers/gpt-oss.cpp, response_format.
_FINAL: Final = '("<|start|>assistant")? "<|channel|>final" (" "? "<|constrain|>"? [A-Za-z0-9_-]+)? "<|message|>" '


def answer_gbnf(words: str | None, calls: str | None, *, thoughts: str = "", channels: bool = False) -> str:
    """GBNF of answers that are one of two, each a GBNF with a `root`; at least one of them is there.

    `thoughts`: a mark that may stand in front; who chooses tokens does so freely from there to the end of thoughts, and
    goes on with the grammar behind them (`server/engine/thoughts.py`). `channels`: words stand in the final channel.
    """
    if calls is None and not thoughts and not channels and words is not None:
        return words
    if words is None and not thoughts and calls is not None:
        return calls
    ways, rules = list[str](), list[str]()
    for name, text, front in (("words", words, _FINAL if channels else ""), ("calls", calls, "")):
        if text is not None:
            ways.append(f"{front}{name}-root")
            rules.append(prefixed(text, f"{name}-"))
    begun = rf"({json.dumps(thoughts, ensure_ascii=False)} [ \t\r\n]*)? " if thoughts else ""
    return "\n".join((f"root ::= {begun}({' | '.join(ways)})", *rules))
