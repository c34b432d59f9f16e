"""OpenAI's responses API, the answering side: items of output and the events that make them, as openai 2.54 has it."""

import time
import uuid
from collections.abc import Callable
from typing import Any

from server.api.conversation.reading import Reader
from server.api.errors import ApiError
from server.api.logprobs import chat_token
from server.api.replies import MARKS, Shape, form_of
from server.api.schema import Fields
from server.api.timings import timings
from server.engine.events import Event, Finished, Piece, Started, TokenInfo, Written
from server.engine.forms import Form

Json = dict[str, Any]


class ResponseAnswer(Shape):
    """A `Shape` of one answer: thoughts, words and calls are items, each opened, filled and closed in turn."""

    named = True
    done = False

    def __init__(
        self, model: str, asked: Fields, reading: Reader, *, logprobs: bool, n_thought: Callable[[str], int]
    ) -> None:
        """`n_thought`: tells how many tokens thoughts have."""
        self._n_thought = n_thought
        self._asked = asked
        self._reading = reading
        self._logprobs = logprobs
        self._tokens: list[TokenInfo] = []
        self._items: list[Json] = []
        self._open = False  # the last item is being filled
        self._sequence = 0
        self._finished: Finished | None = None
        self._head: Json = {
            "id": f"resp_{uuid.uuid4().hex}", "object": "response", "created_at": int(time.time()), "model": model,
        }  # fmt: skip

    def take(self, number: int, event: Event) -> list[Json]:
        """An event as they are streamed."""
        match event:
            case Started():
                response = self._response("in_progress")
                return [self._event(name, response=response) for name in ("response.created", "response.in_progress")]
            case Piece():
                self._tokens += event.tokens
                return self._add(self._reading.feed(event.text), event.tokens)
            case Written():
                self._sequence += len(event.times_s)
                self._items[-1]["content"][0]["text"] += event.text
                return []
            case Finished():
                self._finished = event
                shown = self._add(self._reading.close(), ())
                if not self._items:  # there is always something that was said
                    shown += self._opened("message")
                shown += self._closed()
                name = f"response.{self._status()}"
                return [*shown, self._event(name, response=self.document(), timings=timings(event))]
            case _:
                return []

    def form(self, number: int, index: int) -> Form | None:
        """A delta of a text is the same but for it and its number, where no call can end it."""
        is_open = self._open and self._items[-1]["type"] == "message"
        if self._logprobs or not is_open or not self._reading.says_words:
            return None
        n_before = self._sequence
        delta = self._part("response.output_text.delta", delta=MARKS["text"], logprobs=[])
        self._sequence = n_before  # it is no event of its own
        return form_of({**delta, "sequence_number": MARKS["n_events"]}, named=True, n_before=n_before)

    def closing(self) -> list[Json]:
        """Nothing: the last event has all."""
        return []

    def failed(self, error: ApiError) -> Json:
        """What went wrong, as an event."""
        failure = {"code": "server_error", "message": error.message}
        return self._event("response.failed", response={**self._response("failed"), "error": failure})

    def document(self) -> Json:
        """The whole response."""
        assert self._finished is not None
        usage, status = self._finished.usage, self._status()
        found = self._response(status)
        found |= {
            "completed_at": int(time.time()) if status == "completed" else None,
            "incomplete_details": None if status == "completed" else {"reason": "max_output_tokens"},
            "usage": {
                "input_tokens": usage.n_prompt,
                "input_tokens_details": {"cached_tokens": usage.n_cached, "cache_write_tokens": 0},
                "output_tokens": usage.n_generated,
                "output_tokens_details": {"reasoning_tokens": self._n_thought(self._reading.reasoning)},
                "total_tokens": usage.n_prompt + usage.n_generated,
            },
        }
        return found

    def _status(self) -> str:
        return "completed" if self._finished is not None and self._finished.reason == "stop" else "incomplete"

    def _response(self, status: str) -> Json:
        asked = self._asked
        return {
            **self._head,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": asked.get("instructions"),
            "metadata": asked.get("metadata") or {},
            "output": list(self._items),
            "parallel_tool_calls": bool(asked.get("parallel_tool_calls")),
            "temperature": asked.get("temperature"),
            "tool_choice": asked.get("tool_choice") or "auto",
            "tools": asked.get("tools") or [],
            "top_p": asked.get("top_p"),
            "max_output_tokens": asked.get("max_output_tokens"),
            "text": asked.get("text") or {"format": {"type": "text"}},
            "usage": None,
        }

    def _event(self, name: str, **more: Any) -> Json:
        self._sequence += 1
        return {"type": name, "sequence_number": self._sequence - 1, **more}

    def _add(self, deltas: list[Json], tokens: tuple[TokenInfo, ...]) -> list[Json]:
        shown: list[Json] = []
        for delta in deltas:
            if "reasoning_content" in delta:
                shown += self._into("reasoning")
                self._items[-1]["content"][0]["text"] += delta["reasoning_content"]
                shown.append(self._part("response.reasoning_text.delta", delta=delta["reasoning_content"]))
            elif "tool_calls" in delta:
                for call in delta["tool_calls"]:
                    shown += self._call(call)
            elif delta.get("content"):
                if not self._open and not delta["content"].strip() and self._items:
                    continue  # blank lines behind calls
                shown += self._into("message")
                part = self._items[-1]["content"][0]
                scores = list(map(chat_token, tokens)) if self._logprobs else []
                part["text"] += delta["content"]
                part["logprobs"] += scores
                shown.append(self._part("response.output_text.delta", delta=delta["content"], logprobs=scores))
        return shown

    def _call(self, call: Json) -> list[Json]:
        function, shown = call["function"], []
        if "name" in function:
            shown = self._closed()
            self._items.append({
                "type": "function_call", "id": f"fc_{uuid.uuid4().hex}", "call_id": call["id"],
                "name": function["name"], "arguments": "", "status": "in_progress",
            })  # fmt: skip
            self._open = True
            shown.append(self._item("response.output_item.added"))
        said = function.get("arguments") or ""
        if said:
            self._items[-1]["arguments"] += said
            shown.append(self._part("response.function_call_arguments.delta", index=False, delta=said))
        return shown

    def _into(self, kind: str) -> list[Json]:
        """Open an item of a kind, unless the last one is of it and open."""
        if self._open and self._items[-1]["type"] == kind:
            return []
        return [*self._closed(), *self._opened(kind)]

    def _opened(self, kind: str) -> list[Json]:
        name = "msg" if kind == "message" else "rs"
        item: Json = {"type": kind, "id": f"{name}_{uuid.uuid4().hex}", "status": "in_progress", "content": []}
        more: Json = {"role": "assistant"} if kind == "message" else {"summary": []}
        item |= more
        self._items.append(item)
        self._open = True
        shown = [self._item("response.output_item.added")]
        part = {"type": "reasoning_text", "text": ""} if kind == "reasoning" else _text_part()
        item["content"] = [part]
        return [*shown, self._part("response.content_part.added", part=_copied(part))]

    def _closed(self) -> list[Json]:
        """Close the item that is open."""
        if not self._open:
            return []
        self._open = False
        item = self._items[-1]
        cut = self._finished is not None and self._finished.reason != "stop"
        item["status"] = "incomplete" if cut else "completed"
        if item["type"] == "function_call":
            done = self._part(
                "response.function_call_arguments.done", index=False, name=item["name"], arguments=item["arguments"]
            )
            return [done, self._item("response.output_item.done")]
        part = item["content"][0]
        if item["type"] == "reasoning":
            done = self._part("response.reasoning_text.done", text=part["text"])
        else:
            done = self._part("response.output_text.done", text=part["text"], logprobs=part["logprobs"])
        ended = self._part("response.content_part.done", part=_copied(part))
        return [done, ended, self._item("response.output_item.done")]

    def _item(self, name: str) -> Json:
        item = self._items[-1]
        shown = {**item, "content": [_copied(part) for part in item["content"]]} if "content" in item else dict(item)
        return self._event(name, output_index=len(self._items) - 1, item=shown)

    def _part(self, event: str, *, index: bool = True, **more: Any) -> Json:
        where = {"content_index": 0} if index else {}
        found = self._event(event, item_id=self._items[-1]["id"], output_index=len(self._items) - 1)
        return {**found, **where, **more}


def _text_part() -> Json:
    return {"type": "output_text", "text": "", "annotations": [], "logprobs": []}


def _copied(part: Json) -> Json:
    """A part as it is now: it goes on growing."""
    return {name: list(value) if isinstance(value, list) else value for name, value in part.items()}
