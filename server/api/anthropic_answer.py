"""Anthropic's messages API, the answering side: blocks of content and the events that make them.

Source: llama.cpp 0c1e570 tools/server/server-task.cpp, to_json_anthropic and to_json_anthropic_stream; anthropic 2.14.
"""

import uuid
from collections.abc import Collection
from typing import Any, Final

from ggufphys.units import parse_json
from server.api.conversation.reading import Reader
from server.api.errors import ApiError
from server.api.replies import MARKS, Shape, form_of
from server.api.timings import timings
from server.engine.events import Event, Finished, Piece, Started
from server.engine.forms import Form

Json = dict[str, Any]

ERROR_TYPES: Final = {
    400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error", 413: "request_too_large",
    429: "rate_limit_error", 503: "overloaded_error",
}  # fmt: skip


class MessageAnswer(Shape):
    """A `Shape` of one answer: thoughts, words and calls are blocks, each opened, filled and closed in turn.

    `stop`: the strings that the client asked to stop at, which end a message otherwise than the model does.
    """

    named = True
    done = False

    def __init__(self, model: str, reading: Reader, *, n_prompt: int, stop: Collection[str]) -> None:
        self._reading = reading
        self._stop = stop
        self._n_prompt = n_prompt
        self._blocks: list[Json] = []
        self._open = False  # the last block is being filled
        self._said = ""  # of a call's arguments, so far
        self._finished: Finished | None = None
        self._head: Json = {"id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant", "model": model}

    def take(self, number: int, event: Event) -> list[Json]:
        """An event as they are streamed."""
        match event:
            case Started():
                used = self._usage(event.n_cached, 0)
                begun = {**self._head, "content": [], "stop_reason": None, "stop_sequence": None, "usage": used}
                return [{"type": "message_start", "message": begun}]
            case Piece():
                return self._add(self._reading.feed(event.text))
            case Finished():
                self._finished = event
                shown = [*self._add(self._reading.close()), *self._closed()]
                usage = self._usage(event.usage.n_cached, event.usage.n_generated)
                ended = {"type": "message_delta", "delta": self._end(event), "usage": usage}
                return [*shown, ended, {"type": "message_stop", "timings": timings(event)}]
            case _:
                return []

    def form(self, number: int, index: int) -> Form | None:
        """A delta of a text is the same but for it, where no call can end it."""
        if not self._reading.says_words or not self._is_open("text"):
            return None
        return form_of(self._delta("text_delta", "text", MARKS["text"]), named=True)

    def closing(self) -> list[Json]:
        """Nothing: the message has stopped."""
        return []

    def failed(self, error: ApiError) -> Json:
        """What went wrong, as an event."""
        return as_error(error.status, error.body())

    def document(self) -> Json:
        """The whole message."""
        assert self._finished is not None
        usage = self._usage(self._finished.usage.n_cached, self._finished.usage.n_generated)
        return {
            **self._head, "content": self._blocks, **self._end(self._finished), "usage": usage,
            "timings": timings(self._finished),
        }  # fmt: skip

    def _usage(self, n_cached: int, n_generated: int) -> Json:
        return {
            "input_tokens": self._n_prompt - n_cached, "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": n_cached, "output_tokens": n_generated,
        }  # fmt: skip

    def _end(self, event: Finished) -> Json:
        stopped = event.stop if event.stop in self._stop else None
        if event.reason != "stop":
            reason = "max_tokens"
        elif stopped:
            reason = "stop_sequence"
        else:
            reason = "tool_use" if self._reading.calls else "end_turn"
        return {"stop_reason": reason, "stop_sequence": stopped or None}

    def _add(self, deltas: list[Json]) -> list[Json]:
        shown: list[Json] = []
        for delta in deltas:
            if "reasoning_content" in delta:
                shown += self._fill("thinking", "thinking", delta["reasoning_content"])
            elif "tool_calls" in delta:
                for call in delta["tool_calls"]:
                    shown += self._call(call)
            elif delta.get("content") and (self._is_open("text") or delta["content"].strip() or not self._blocks):
                shown += self._fill("text", "text", delta["content"])  # blank lines behind calls are no words
        return shown

    def _is_open(self, kind: str) -> bool:
        return self._open and self._blocks[-1]["type"] == kind

    def _fill(self, kind: str, key: str, text: str) -> list[Json]:
        shown = [] if self._is_open(kind) else self._opened({"type": kind, key: ""})
        self._blocks[-1][key] += text
        return [*shown, self._delta(f"{kind}_delta", key, text)]

    def _call(self, call: Json) -> list[Json]:
        function, shown = call["function"], []
        if "name" in function:
            shown = self._opened({"type": "tool_use", "id": call["id"], "name": function["name"], "input": {}})
        said = function.get("arguments") or ""
        if said:
            self._said += said
            shown.append(self._delta("input_json_delta", "partial_json", said))
        return shown

    def _opened(self, block: Json) -> list[Json]:
        closed = self._closed()
        self._blocks.append(block)
        self._open, self._said = True, ""
        return [*closed, self._event("content_block_start", content_block=dict(block))]

    def _closed(self) -> list[Json]:
        """Close the block that is open. Thoughts are signed by nobody, which clients want to read."""
        if not self._open:
            return []
        self._open = False
        block, shown = self._blocks[-1], []
        if block["type"] == "tool_use":
            block["input"] = _object(self._said)
        elif block["type"] == "thinking":
            block["signature"] = ""
            shown = [self._delta("signature_delta", "signature", "")]
        return [*shown, self._event("content_block_stop")]

    def _delta(self, kind: str, key: str, value: str) -> Json:
        return self._event("content_block_delta", delta={"type": kind, key: value})

    def _event(self, name: str, **more: Any) -> Json:
        return {"type": name, "index": len(self._blocks) - 1, **more}


def as_error(status: int, body: Json) -> Json:
    """An error's document in Anthropic's shape; what else it says stays."""
    kind = ERROR_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {**body["error"], "type": kind}}


def _object(text: str) -> Json:
    """A call's arguments; of one that was cut off, none."""
    try:
        value = parse_json(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
