"""An engine that says what a test tells it to, without llama.cpp: a token is a character of the prompt."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from server.engine.counters import Counters
from server.engine.errors import NotReadyError
from server.engine.events import Event, Finished, FinishReason, Piece, Started, Timings, Usage
from server.engine.generation import Generation
from server.engine.media import BLIND, Read, Span, placeholders
from server.engine.model_info import ModelInfo, Pooling
from server.engine.protocol import EngineStatus, IsOver, Vectors
from server.engine.request import ActiveAdapters, GenerationRequest


def finished(reason: FinishReason = "stop", *, n_prompt: int = 3, n_cached: int = 1, n_generated: int = 2) -> Finished:
    """The last event, with figures that a test can recognise."""
    usage = Usage(n_prompt=n_prompt, n_cached=n_cached, n_generated=n_generated)
    return Finished(reason=reason, usage=usage, timings=Timings(queue_s=0.5, prompt_s=2.0, decode_s=0.25))


ANSWER: tuple[Event, ...] = (Started(), Piece(text="Hello"), Piece(text=" wörld"), finished())

INFO = ModelInfo(
    name="fake",
    n_ctx_seq=100,
    n_ctx_train=200,
    n_vocab=1000,
    n_embd=8,
    n_params=12,
    model_bytes=34,
    chat_template="{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}",
    bos_text="<s>",
    eos_text="</s>",
    adds_bos=True,
)


class FakeEngine:
    """Implements `Engine`: publishes `events` for every request, or raises `refusal`."""

    def __init__(
        self,
        events: Sequence[Event] = ANSWER,
        *,
        status: EngineStatus = EngineStatus.READY,
        refusal: Exception | None = None,
        info: ModelInfo = INFO,
    ) -> None:
        self.events = tuple(events)
        self.status = status
        self.refusal = refusal
        self.error: Exception | None = None
        self._info = info
        self.requests: list[GenerationRequest] = []
        self.replicates = True  # every answer to a request gets the same events
        self.generations: list[Generation] = []

    @property
    def info(self) -> ModelInfo:
        if self.status is not EngineStatus.READY:
            raise NotReadyError("not ready")
        return self._info

    counters = Counters()
    complaint = ""

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> tuple[int, ...]:
        text.encode()
        return tuple(min(ord(character), self._info.n_vocab - 1) for character in text)

    def detokenize(self, tokens: tuple[int, ...]) -> str:
        return "".join(map(chr, tokens))

    def pieces(self, tokens: tuple[int, ...]) -> tuple[bytes, ...]:
        return tuple(chr(token).encode() for token in tokens)

    def read(self, file: bytes) -> Read:
        """An image is four tokens, between two of text."""
        if not self._info.sees:
            raise ValueError(BLIND)
        span = Span(start=1, n_tokens=4, n_pos=4, file=file)
        return Read(tokens=(ord("["), *placeholders(file, 0, 4), ord("]")), spans=(span,))

    def embed(
        self,
        prompts: tuple[tuple[int, ...], ...],
        pooling: Pooling | None = None,
        adapters: ActiveAdapters = (),
        is_over: IsOver = lambda: False,
    ) -> tuple[Vectors, ...]:
        return tuple(((float(len(prompt)), 0.0),) for prompt in prompts)

    def submit(self, request: GenerationRequest) -> Generation:
        if self.refusal is not None:
            raise self.refusal
        generation = Generation(request)
        self.requests.append(request)
        self.generations.append(generation)
        for event in self.events:
            if isinstance(event, Piece | Finished) and self.replicates:
                for index in range(request.n):
                    generation.publish(replace(event, index=index))
            else:
                generation.publish(event)
        return generation

    def close(self) -> None:
        self.status = EngineStatus.CLOSED


def sse_data(body: bytes) -> list[Any]:
    """The data of each event of a stream, in order; comments are skipped. Fails on anything that is not SSE."""
    import json

    events = []
    for block in body.decode().removesuffix("\n\n").split("\n\n"):
        if block.startswith(":"):
            continue
        field, _, data = block.partition(": ")
        assert field == "data"
        assert "\n" not in data
        events.append(data if data == "[DONE]" else json.loads(data))
    return events


def named_events(body: bytes) -> list[dict[str, Any]]:
    """The events of a stream that has the type of each as its name too, as Anthropic's and responses' have it."""
    import json

    events = []
    for block in body.decode().removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events
