"""Log-probabilities as clients want them: chat's objects, and the older completions' parallel lists."""

import codecs
import math
from collections.abc import Iterable
from typing import Any, Final

from server.engine.events import TokenInfo

Json = dict[str, Any]
LOWEST: Final = -9999.0  # JSON has no minus infinity; what OpenAI sends for tokens that cannot be


def chat_logprobs(tokens: Iterable[TokenInfo], *, drawn: bool = False) -> Json:
    """OpenAI's shape for chat: an object a token, with llama-server's `id` beside."""
    return {"content": [chat_token(token, drawn=drawn) for token in tokens], "refusal": None}


def chat_token(token: TokenInfo, *, drawn: bool = False) -> Json:
    """One token with those that were likely in its place; `drawn`: probabilities that it was drawn by, as such.

    Source: llama.cpp 0c1e570 tools/server/server-task.cpp, completion_token_output::probs_vector_to_json.
    """
    return {
        **_entry(token.token, token.piece, token.logprob, drawn=drawn),
        "top_probs" if drawn else "top_logprobs": [_entry(*each, drawn=drawn) for each in token.top],
    }


def _entry(token: int, piece: bytes, logprob: float | None, *, drawn: bool) -> Json:
    likely = {"prob": 0.0 if logprob is None else math.exp(logprob)} if drawn else {"logprob": _number(logprob)}
    return {"id": token, "token": piece.decode(errors="replace"), "bytes": list(piece), **likely}


class LegacyLogprobs:
    """Completions' shape: lists side by side, with where in the text each token begins.

    Offsets count characters; a token that ends within a character begins where that character does.
    """

    def __init__(self) -> None:
        self.offset = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def lists(self, tokens: Iterable[TokenInfo], *, shown: bool = True) -> Json:
        """The next tokens. Those that are not `shown` (a prompt's BOS) take no room in the text."""
        found: Json = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for token in tokens:
            found["tokens"].append(_name(token.piece))
            found["token_logprobs"].append(None if token.logprob is None else _number(token.logprob))
            found["top_logprobs"].append(
                None if token.logprob is None else {_name(piece): _number(value) for _, piece, value in token.top}
            )
            found["text_offset"].append(self.offset)
            if shown:
                self.offset += len(self._decoder.decode(token.piece))
        return found


def joined(parts: Iterable[Json]) -> Json:
    """Lists one behind the other."""
    found: Json = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for part in parts:
        for key, values in found.items():
            values += part[key]
    return found


def _name(piece: bytes) -> str:
    """A token's text; bytes that are no text by themselves as OpenAI spells them, so that no two are alike."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


def _number(logprob: float | None) -> float:
    return LOWEST if logprob is None or logprob < LOWEST else logprob
