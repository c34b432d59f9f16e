"""One request to an OpenAI-compatible server, timed as its answer comes in."""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import aiohttp

from bench.load.prompts import Request

Endpoint = Literal["chat/completions", "completions"]
DONE: Final = b"[DONE]"


@dataclass(slots=True, kw_only=True)
class Answer:
    """What became of a request. Times are seconds on the client's clock; `pieces` when each piece of content came.

    `error` is empty, or the kind: `connect`, `timeout`, `http 503`, `refused` (an error inside the stream), `truncated`
    (the stream ended before it said so), `malformed`.
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
    """Requests to one server, by one connection pool."""

    def __init__(
        self, base_url: str, *, model: str, endpoint: Endpoint, extra: Mapping[str, Any], api_key: str, timeout_s: float
    ) -> None:
        self.base_url = base_url
        self.model = model
        self.endpoint = endpoint
        self.extra = extra
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self.session = aiohttp.ClientSession(
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self.session.close()

    async def first_model(self) -> str:
        """The first model that the server lists; empty if it lists none."""
        try:
            async with self.session.get(f"{self.base_url}/models") as response:
                models = (await response.json(content_type=None)).get("data") or [{}]
                return str(models[0].get("id", ""))
        except (aiohttp.ClientConnectorError, TimeoutError):
            raise
        except (aiohttp.ClientError, ValueError, AttributeError):
            return ""

    def body(self, request: Request) -> dict[str, Any]:
        """The request as JSON."""
        asked: dict[str, Any] = (
            {"messages": [{"role": "user", "content": request.prompt}]}
            if self.endpoint == "chat/completions"
            else {"prompt": request.prompt}
        )
        return {
            **asked, "model": self.model, "max_tokens": request.n_predict, "stream": True,
            "stream_options": {"include_usage": True}, **self.extra,
        }  # fmt: skip

    async def send(self, request: Request) -> Answer:
        """Send it and read the answer to its end; what goes wrong is in the answer, not raised."""
        answer = Answer(
            sent_s=time.perf_counter(), n_prompt_wanted=request.n_prompt, n_predict_wanted=request.n_predict
        )
        try:
            url = f"{self.base_url}/{self.endpoint}"
            async with self.session.post(url, json=self.body(request)) as response:
                if response.status != 200:
                    answer.error = f"http {response.status}"
                    answer.detail = (await response.text())[:200]
                else:
                    await _read(response, answer)
        except asyncio.CancelledError:
            raise
        except aiohttp.ClientConnectorError as error:
            answer.error, answer.detail = "connect", str(error)
        except TimeoutError:
            answer.error = "timeout"
        except aiohttp.ClientError as error:
            answer.error, answer.detail = "truncated", str(error) or type(error).__name__
        except ValueError as error:
            answer.error, answer.detail = "malformed", str(error)[:200]
        answer.done_s = time.perf_counter()
        return answer


async def _read(response: aiohttp.ClientResponse, answer: Answer) -> None:
    """Read server-sent events until they end, noting when content came."""
    rest, finished = b"", False
    async for data in response.content.iter_any():
        now = time.perf_counter()
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            event = line[5:].strip()
            if event == DONE:
                finished = True
            elif event:
                _take(json.loads(event), answer, now)
    if not answer.error and not (finished or answer.finish):
        answer.error = "truncated"


def _take(event: dict[str, Any], answer: Answer, now: float) -> None:
    if "error" in event:
        answer.error, answer.detail = "refused", str(event["error"])[:200]
        return
    usage = event.get("usage")
    if usage:
        answer.n_prompt, answer.n_predict = usage.get("prompt_tokens"), usage.get("completion_tokens")
    for choice in event.get("choices") or ():
        delta = choice.get("delta") or {}
        if choice.get("text") or delta.get("content") or delta.get("reasoning_content"):
            answer.pieces.append(now)
        if choice.get("finish_reason"):
            answer.finish = choice["finish_reason"]
