"""One request to an OpenAI-compatible server, timed as its answer comes in."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from bench.load.address import Endpoint
from bench.load.http import ConnectError, ForeignError, Http, LostError, Reply
from bench.load.prompts import Request

DONE: Final = b"[DONE]"
SAID: Final = 200  # of what a server says, so much is kept
BESIDE_CONTENT: Final = (
    "reasoning_content",
    "reasoning",
    "tool_calls",
)  # generated, too: what it thinks, what it calls
_NOTHING: Final[Mapping[str, Any]] = {}


@dataclass(slots=True, kw_only=True)
class Answer:
    """What became of a request. Times are seconds on the client's clock; `pieces` when each piece of content came.

    `error` is empty, or the kind: `connect`, `timeout`, `http 503`, `refused` (an error inside the stream), `truncated`
    (the stream ended before it said so), `not streamed` (another body in its place), `malformed`.
    """

    sent_s: float
    n_prompt_wanted: int
    n_predict_wanted: int
    done_s: float = 0.0
    pieces: list[float] = field(default_factory=list)
    n_prompt: int | None = None
    n_predict: int | None = None
    finish: str = ""
    error: str = ""
    detail: str = ""

    @property
    def ok(self) -> bool:
        """Did all of it arrive?"""
        return not self.error

    @property
    def n_tokens(self) -> int:
        """Tokens generated: by the server's count, or else the pieces that came."""
        return self.n_predict if self.n_predict is not None else len(self.pieces)

    @property
    def ttft_s(self) -> float | None:
        """Time to the first piece of content."""
        return self.pieces[0] - self.sent_s if self.pieces else None

    @property
    def e2e_s(self) -> float:
        """Time to the end of the answer."""
        return self.done_s - self.sent_s

    @property
    def tpot_s(self) -> float | None:
        """Time per output token behind the first, as vLLM defines it: (end to end - TTFT) / (tokens - 1)."""
        ttft_s = self.ttft_s
        if ttft_s is None or self.n_tokens < 2:
            return None
        return (self.e2e_s - ttft_s) / (self.n_tokens - 1)

    @property
    def gaps_s(self) -> list[float]:
        """Time between two pieces."""
        return [b - a for a, b in zip(self.pieces, self.pieces[1:], strict=False)]


class Client:
    """Requests to one server."""

    def __init__(
        self, base_url: str, *, model: str, endpoint: Endpoint, extra: Mapping[str, Any], api_key: str, timeout_s: float
    ) -> None:
        self.base_url = base_url
        self.model = model
        self.endpoint = endpoint
        self.extra = extra
        self.timeout_s = timeout_s
        self.asks_usage = True
        self.http = Http(base_url, {"Authorization": f"Bearer {api_key}"} if api_key else {})

    async def close(self) -> None:
        """Close the connections."""
        await self.http.close()

    async def first_model(self) -> str:
        """The first model that the server lists; empty if it lists none.

        Raises:
            ConnectError: nothing answers there; TimeoutError: not in time.
        """
        try:
            async with asyncio.timeout(self.timeout_s):
                _, body = await self.http.get("models")
            return str(orjson.loads(body)["data"][0]["id"] or "")
        except (LostError, ValueError, LookupError, TypeError):  # no such list: the server may have one model alone
            return ""

    def body(self, request: Request) -> dict[str, Any]:
        """The request as JSON; what `extra` has as null is left out."""
        asked: dict[str, Any] = (
            {"messages": [{"role": "user", "content": request.prompt}]}
            if self.endpoint == "chat/completions"
            else {"prompt": request.prompt}
        )
        usage = {"stream_options": {"include_usage": True}} if self.asks_usage else {}
        fields = {
            **asked, "model": self.model, "max_tokens": request.n_predict, "stream": True, **usage, **self.extra,
        }  # fmt: skip
        return {name: value for name, value in fields.items() if value is not None}

    async def send(self, request: Request) -> Answer:
        """Send it and read the answer to its end; what goes wrong is in the answer, not raised."""
        body = orjson.dumps(self.body(request))
        answer = Answer(
            sent_s=time.perf_counter(), n_prompt_wanted=request.n_prompt, n_predict_wanted=request.n_predict
        )
        events = Events(answer)
        try:
            async with asyncio.timeout(self.timeout_s):
                reply = await self.http.post(self.endpoint, body, events.take)
            if reply.is_good:
                events.end()
            else:
                answer.error, answer.detail = f"http {reply.status}", _said(reply)
        except ConnectError as error:
            answer.error, answer.detail = "connect", str(error)
        except TimeoutError:
            answer.error, answer.detail = "timeout", f"no end within {self.timeout_s:g} s"
        except ForeignError as error:
            answer.error, answer.detail = "malformed", str(error)
        except LostError as error:
            if not events.finished:
                answer.error, answer.detail = "truncated", str(error)
        answer.done_s = time.perf_counter()
        return answer


class Events:
    """Server-sent events as they come: notes when content came, what was counted, how it ended."""

    __slots__ = ("answer", "finished", "head", "is_stream", "rest")

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.head = b""  # how the body begins
        self.rest = b""
        self.is_stream = False
        self.finished = False

    def take(self, data: bytes, now: float) -> None:
        """A part of the body, wherever it is cut."""
        if not self.head:
            self.head = data[:SAID]
        *lines, self.rest = (self.rest + data if self.rest else data).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._event(line[5:], now)
            elif line.startswith(b"error:"):
                self._refused(line[6:].decode(errors="replace"))

    def end(self) -> None:
        """The body is over: did the answer say so itself?"""
        answer, rest = self.answer, self.rest
        if rest and not answer.error:
            self.take(b"\n", time.perf_counter())  # a last line without an end is one
            if self.answer.error == "malformed":
                answer.error = ""  # it was cut off
        if answer.n_predict == 0 and answer.pieces:
            answer.n_predict = None  # a field that nobody filled
        if self.finished or answer.error or answer.finish:
            return
        answer.error = "truncated" if self.is_stream else "not streamed"
        answer.detail = rest[:SAID].decode(errors="replace") if self.is_stream else self._body()

    def _body(self) -> str:
        return f"expected server-sent events, found {self.head.decode(errors='replace')!r}" if self.head else "no body"

    def _event(self, text: bytes, now: float) -> None:
        self.is_stream = True
        try:
            self._read(orjson.loads(text), now)
        except (ValueError, AttributeError, TypeError) as error:
            if text.strip() == DONE:
                self.finished = True
            elif text.strip() and not self.answer.error:
                self.answer.error, self.answer.detail = "malformed", f"{error}: {text[:100]!r}"

    def _read(self, event: dict[str, Any], now: float) -> None:
        answer = self.answer
        if event.get("error"):
            self._refused(str(event["error"]))
            return
        if isinstance(usage := event.get("usage"), dict):
            answer.n_prompt = _count(usage.get("prompt_tokens")) or answer.n_prompt
            n_predict = _count(usage.get("completion_tokens"))
            answer.n_predict = answer.n_predict if n_predict is None else n_predict
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or _NOTHING
            if delta.get("content") or choice.get("text") or any(delta.get(name) for name in BESIDE_CONTENT):
                answer.pieces.append(now)
            if choice.get("finish_reason"):
                answer.finish = str(choice["finish_reason"])

    def _refused(self, what: str) -> None:
        self.answer.error, self.answer.detail = "refused", what.strip()[:SAID]


def _count(tokens: object) -> int | None:
    """A count as it should be; None for what is none."""
    return int(tokens) if isinstance(tokens, int | float) and tokens >= 0 else None


def _said(reply: Reply) -> str:
    """What stands in an answer of another status: where it points to, or how its body begins."""
    return f"it points to {reply.location}" if reply.location else reply.body.decode(errors="replace")[:SAID]
