"""The engine as endpoints have it: what is handed in is admitted by what is to be expected of it, and followed.

Headers say what a client can wait for: `X-Max-TTFT-Ms` until its first token, `X-Deadline-Ms` until the end. What the
server could not keep even if it had nothing else to do is refused for good (400), what it cannot keep now for a while
(429), with the figures. Where it turns out otherwise than expected, a request whose time passes before its turn or its
first token is ended then, with 429.
"""

import time
from dataclasses import replace
from typing import Final

from flask import g, has_request_context, request

from server.accounts.forecast import Forecast, Outlook
from server.accounts.requests_written import Tally
from server.engine.counters import Counters
from server.engine.errors import EngineError, QueueFullError
from server.engine.generation import Generation
from server.engine.media import Read
from server.engine.model_info import ModelInfo, Pooling
from server.engine.protocol import Engine, EngineStatus, IsOver, Vectors
from server.engine.request import ActiveAdapters, GenerationRequest
from server.journal import warn

TTFT_HEADER: Final = "X-Max-TTFT-Ms"
DEADLINE_HEADER: Final = "X-Deadline-Ms"


class DeadlineError(Exception):
    """A header's wish that cannot be kept; `retry_after_s` None: not even by an idle server."""

    def __init__(self, message: str, *, header: str, retry_after_s: float | None, predicted_ms: int) -> None:
        super().__init__(message)
        self.header = header
        self.retry_after_s = retry_after_s
        self.predicted_ms = predicted_ms


class AdmittingEngine:
    """An engine, admitting; implements `Engine`."""

    def __init__(self, engine: Engine, forecast: Forecast) -> None:
        self._engine = engine
        self.forecast = forecast
        self._told = False  # that requests wait
        self._scales: tuple[float, ...] | None = None

    @property
    def adapter_scales(self) -> tuple[float, ...]:
        """The scales of adapters for requests that ask for none, by number; as flags have it, until they are set."""
        adapters = self.info.adapters
        return tuple(adapter.scale for adapter in adapters) if self._scales is None else self._scales

    @adapter_scales.setter
    def adapter_scales(self, scales: tuple[float, ...]) -> None:
        self._scales = scales

    def _active(self) -> ActiveAdapters:
        return tuple((i, scale) for i, scale in enumerate(self.adapter_scales) if scale)

    def submit(self, asked: GenerationRequest) -> Generation:
        """Queue a request; see `Engine.submit`.

        Raises:
            DeadlineError: a header says that it is wanted sooner than it can be had.
        """
        if asked.adapters is None and self.info.adapters:
            asked = replace(asked, adapters=self._active())
        outlook = self.forecast.outlook(asked)
        ttft_s, deadline_s = _limit_s(TTFT_HEADER), _limit_s(DEADLINE_HEADER)
        _check(ttft_s, outlook.ttft_s, outlook, TTFT_HEADER, "the first token")
        _check(deadline_s, outlook.total_s, outlook, DEADLINE_HEADER, "the last token")
        limits_s = [limit_s for limit_s in (ttft_s, deadline_s) if limit_s is not None]
        if limits_s:
            came_at_s = g.get("began", time.perf_counter())  # the request, of which this may be a later prompt
            asked = replace(
                asked,
                begins_by_s=came_at_s + min(limits_s),
                ends_by_s=None if deadline_s is None else came_at_s + deadline_s,
            )
        try:
            generation = self._engine.submit(asked)
        except QueueFullError as error:
            place_s = self.forecast.place_s()
            raise QueueFullError(str(error), retry_after_s=place_s or error.retry_after_s) from error
        tally = g.get("tally") if has_request_context() else None
        self.forecast.follow(generation, tally or Tally())
        if outlook.wait_s != 0.0 and not self._told:
            self._told = True
            more = " (-np N runs N side by side)" if self.info.takes_slots else ""
            warn(f"{self.info.n_slots} of {self.info.n_slots} slots are busy: requests wait for one{more}")
        return generation

    # The rest is the engine's own.

    @property
    def status(self) -> EngineStatus:
        """Whether requests can be submitted."""
        return self._engine.status

    @property
    def complaint(self) -> str:
        """What is wrong though the status is READY; empty: nothing."""
        return self._engine.complaint

    @property
    def error(self) -> Exception | None:
        """Why the status is FAILED, or what the last worker died of."""
        return self._engine.error

    @property
    def info(self) -> ModelInfo:
        """The model."""
        return self._engine.info

    @property
    def counters(self) -> Counters:
        """What has been done."""
        return self._engine.counters

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> tuple[int, ...]:
        """Tokens of a text."""
        return self._engine.tokenize(text, add_special=add_special, parse_special=parse_special)

    def detokenize(self, tokens: tuple[int, ...]) -> str:
        """The text of tokens."""
        return self._engine.detokenize(tokens)

    def pieces(self, tokens: tuple[int, ...]) -> tuple[bytes, ...]:
        """The bytes of each token."""
        return self._engine.pieces(tokens)

    def read(self, file: bytes) -> Read:
        """The tokens that an image or sound is."""
        return self._engine.read(file)

    def embed(
        self,
        prompts: tuple[tuple[int, ...], ...],
        pooling: Pooling | None = None,
        adapters: ActiveAdapters | None = None,
        is_over: IsOver = lambda: False,
    ) -> tuple[Vectors, ...]:
        """Vectors of prompts; adapters None: those of requests that ask for none.

        Raises:
            DeadlineError: a header's time passed before they were there.
        """
        allowed_s, began = limit_s(), time.perf_counter()
        is_late = False

        def ends() -> bool:
            nonlocal is_late
            is_late = allowed_s is not None and time.perf_counter() - began > allowed_s
            return is_late or is_over()

        try:
            return self._engine.embed(prompts, pooling, self._active() if adapters is None else adapters, ends)
        except EngineError:
            if not is_late or allowed_s is None:
                raise
            header = TTFT_HEADER if allowed_s == _limit_s(TTFT_HEADER) else DEADLINE_HEADER
            message = f"the vectors were not there in {allowed_s * 1000:,.0f} ms, which is all that {header} allows"
            raise DeadlineError(message, header=header, retry_after_s=1.0, predicted_ms=0) from None

    def close(self) -> None:
        """End it."""
        self._engine.close()


def limit_s() -> float | None:
    """How long the request's client waits for anything, by its headers; None: they say nothing.

    Raises:
        ValueError: one is no time.
    """
    limits = [each for each in map(_limit_s, (TTFT_HEADER, DEADLINE_HEADER)) if each is not None]
    return min(limits, default=None)


def _limit_s(header: str) -> float | None:
    text = request.headers.get(header) if has_request_context() else None
    if text is None:
        return None
    try:
        limit_ms = float(text)
    except ValueError:
        limit_ms = -1.0
    if not 0 < limit_ms < float("inf"):
        raise ValueError(f"{header} is {text!r:.32}, expected milliseconds")
    return limit_ms / 1000


def _check(limit_s: float | None, expected_s: float | None, outlook: Outlook, header: str, what: str) -> None:
    if limit_s is None or expected_s is None or expected_s <= limit_s:
        return
    alone_s = expected_s - (outlook.wait_s or 0.0)
    message = f"{what} is expected in {expected_s * 1000:,.0f} ms, {header} allows {limit_s * 1000:,.0f}"
    later = f"; {outlook.wait_s or 0.0:.1f} s of that are for others" if alone_s <= limit_s else ", others or not"
    raise DeadlineError(
        message + later,
        header=header,
        retry_after_s=expected_s - limit_s if alone_s <= limit_s else None,
        predicted_ms=round(expected_s * 1000),
    )
