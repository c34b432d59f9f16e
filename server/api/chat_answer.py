"""OpenAI's chat.completion of one answer."""

from typing import Any

from ggufphys.units import parse_json
from server.api.conversation.reading import Reader
from server.api.logprobs import chat_logprobs
from server.engine.events import Finished, Piece, PromptScores, TokenInfo

Json = dict[str, Any]


class ChatAnswer:
    """A `Choice`. The role comes with the first text: alone it would look like a first token."""

    def __init__(
        self, index: int, reading: Reader, *, logprobs: bool, drawn: bool = False, with_tokens: bool = False,
        echoed: str = "",
    ) -> None:  # fmt: skip
        self.index = index
        self._echoed = echoed
        self._reading = reading
        self._logprobs = logprobs
        self._drawn = drawn
        self._with_tokens = with_tokens
        self._tokens: list[TokenInfo] = []
        self._first = True

    @property
    def reasoning(self) -> str:
        """The thoughts that came."""
        return self._reading.reasoning

    def opening(self) -> list[Json]:
        """What the conversation has begun of it, where that is shown."""
        return [self._chunk({"content": self._echoed})] if self._echoed else []

    def empty(self) -> Json:
        """No text yet."""
        return self._chunk({"content": None})

    def scores(self, event: PromptScores) -> None:
        """A conversation has none."""

    def piece(self, event: Piece) -> list[Json]:
        """A piece of text, as reasoning, content and calls."""
        self._tokens += event.tokens
        deltas = self._reading.feed(event.text)
        shows_tokens = self._logprobs or self._with_tokens
        if not deltas and not (shows_tokens and event.tokens):
            return []
        chunks = [self._chunk(delta) for delta in deltas or [{"content": ""}]]
        if self._logprobs:
            chunks[0]["logprobs"] = chat_logprobs(event.tokens, drawn=self._drawn)
        if self._with_tokens:
            chunks[0]["tokens"] = [each.token for each in event.tokens]
        return chunks

    def plain(self, text: str) -> Json | None:
        """Words, when nothing else can come and the role has been said."""
        if self._first or self._logprobs or self._with_tokens or not self._reading.says_words:
            return None
        return self._chunk({"content": text})

    def last(self, event: Finished) -> list[Json]:
        """What was held back, and why it ended."""
        chunks = [self._chunk(delta) for delta in self._reading.close()]
        delta: Json = {"role": "assistant", "content": ""} if self._first else {}
        return [*chunks, {"index": self.index, "delta": delta, "logprobs": None, "finish_reason": self._reason(event)}]

    def whole(self, event: Finished) -> Json:
        """The whole message."""
        calls, content = self._reading.calls, self._echoed + self._reading.content
        said = content if content or not calls else None
        message: Json = {"role": "assistant", "content": said, "refusal": None}  # OpenAI's models say why not, there
        if self._reading.reasoning:
            message["reasoning_content"] = self._reading.reasoning
        if calls:
            message["tool_calls"] = calls
        tokens = {"tokens": [each.token for each in self._tokens]} if self._with_tokens else {}
        return {
            "index": self.index,
            "message": message,
            "logprobs": chat_logprobs(self._tokens, drawn=self._drawn) if self._logprobs else None,
            "finish_reason": self._reason(event),
            **tokens,
        }

    def _reason(self, event: Finished) -> str:
        """Why it ended; a stop string within a call's arguments leaves no call that was made."""
        calls = self._reading.calls
        is_cut = bool(calls and event.stop) and not _is_json(calls[-1]["function"]["arguments"])
        return "tool_calls" if calls and event.reason == "stop" and not is_cut else event.reason

    def _chunk(self, delta: Json) -> Json:
        if self._first:
            delta = {"role": "assistant", "content": None, **delta}
            self._first = False
        return {"index": self.index, "delta": delta, "logprobs": None, "finish_reason": None}


def _is_json(text: str) -> bool:
    try:
        parse_json(text)
    except ValueError:
        return False
    return True
