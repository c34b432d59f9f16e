"""A server that answers as it is told to, token by token, in a thread of its own."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass(slots=True)
class Behaviour:
    """How the stub answers: after a wait, with pauses between tokens; some requests otherwise.

    `truncate` ends the stream after that many tokens without a word; `refuse_every` answers each so manieth with 503;
    the first `loading` with llama-server's 503; a body with the field `unknown` is answered with 422; an answer has
    `most_tokens` at most, whatever is asked for.
    """

    wait_s: float = 0.0
    pause_s: float = 0.0
    truncate: int | None = None
    refuse_every: int = 0
    loading: int = 0
    usage: bool = True
    unknown: str = ""
    most_tokens: int = 1 << 20
    template_tokens: int = 0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[str]:
    """The address of a stub that behaves so."""
    loop = asyncio.new_event_loop()
    app = web.Application()

    async def chat(request: web.Request) -> web.StreamResponse:
        return await _answer(request, behaviour, chat=True)

    async def completion(request: web.Request) -> web.StreamResponse:
        return await _answer(request, behaviour, chat=False)

    app.router.add_get("/v1/models", _models)
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_post("/v1/completions", completion)
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    loop.run_until_complete(runner.setup())
    site = web.TCPSite(runner, "127.0.0.1", 0)
    loop.run_until_complete(site.start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _models(request: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": [{"id": "stub"}]})


async def _answer(request: web.Request, behaviour: Behaviour, *, chat: bool) -> web.StreamResponse:
    body = await request.json()
    behaviour.bodies.append(body)
    if len(behaviour.bodies) <= behaviour.loading:
        error = {"message": "Loading model", "type": "unavailable_error", "code": 503}
        return web.json_response({"error": error}, status=503)
    if behaviour.refuse_every and len(behaviour.bodies) % behaviour.refuse_every == 0:
        return web.json_response({"error": {"message": "busy"}}, status=503)
    if behaviour.unknown in body:
        return web.json_response({"detail": f"extra field {behaviour.unknown}"}, status=422)
    behaviour.in_flight += 1
    behaviour.most_in_flight = max(behaviour.most_in_flight, behaviour.in_flight)
    try:
        return await _stream(request, behaviour, body, chat=chat)
    finally:
        behaviour.in_flight -= 1


async def _stream(
    request: web.Request, behaviour: Behaviour, body: dict[str, Any], *, chat: bool
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    text = body["messages"][0]["content"] if chat else body["prompt"]
    await asyncio.sleep(behaviour.wait_s)
    n_predict = min(body.get("max_tokens", 1 << 20), behaviour.most_tokens)
    for i in range(n_predict):
        if behaviour.truncate == i:
            return response
        if behaviour.pause_s:
            await asyncio.sleep(behaviour.pause_s)
        choice = {"delta": {"content": "a"}} if chat else {"text": "a"}
        await response.write(_event({"choices": [{"index": 0, **choice}]}))
    await response.write(_event({"choices": [{"index": 0, "delta": {}, "text": "", "finish_reason": "length"}]}))
    if behaviour.usage:
        n_prompt = 2 * len(text.split()) + behaviour.template_tokens
        usage = {"prompt_tokens": n_prompt, "completion_tokens": n_predict}
        await response.write(_event({"choices": [], "usage": usage}))
    await response.write(b"data: [DONE]\n\n")
    return response


def _event(value: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()
