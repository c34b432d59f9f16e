"""Which of several models may be loaded? Footprints stay within a budget, and whoever waits gets his turn.

A request whose model has no room waits for those of the others to end: the longest unused model goes that nobody uses,
and the models that are waited for come one after the other, each for all requests that wait for it. So that none
starves behind one that is always in use, new requests stand behind a model that was waited for long enough.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from server.api.errors import ApiError
from server.journal import warn

POLL_S: Final = 0.25  # at clients that go away; what else changes is told
RETRY_S: Final = 5.0
WAIT_S: Final = 30.0  # for room; proxies give up after a minute
HOLD_S: Final = 2.0  # that a model waits before new requests to others stand behind it
N_WAITING_MAX: Final = 64


class Model(Protocol):
    """What comes and goes."""

    name: str
    process_bytes: int
    used_at: float

    @property
    def in_use(self) -> Callable[[], int]:
        """Requests under way, with those that wait."""
        ...

    def load(self) -> None:
        """Start it, and wait until it can be used. Raises ApiError where it cannot."""
        ...

    def sleep(self) -> None:
        """End it."""
        ...


@dataclass(slots=True, eq=False)
class _Turn:
    """A model that is waited for, by `n` requests."""

    model: Model
    since: float
    n: int = 0
    error: Exception | None = None


class Room:
    """What is loaded at a time: at most so many bytes by prediction, and so many models.

    Args:
        budget_bytes: what the loaded may have together.
        n_max: how many may be loaded.
        n_waiting_max: how many requests may wait for a model; more are refused.
        wait_s: how long each may.
        hold_s: how long a model waits before new requests to others stand behind it.
    """

    def __init__(
        self,
        budget_bytes: int,
        n_max: int,
        *,
        n_waiting_max: int = N_WAITING_MAX,
        wait_s: float = WAIT_S,
        hold_s: float = HOLD_S,
    ) -> None:
        self._budget_bytes = budget_bytes
        self._n_max = n_max
        self._n_waiting_max = n_waiting_max
        self._wait_s = wait_s
        self._hold_s = hold_s
        self._changed = threading.Condition()
        self._loaded: list[Model] = []
        self._queue: list[_Turn] = []  # a turn for each model that is waited for, the oldest first
        self._is_moving = False  # one load at a time: they share the disk

    def enter(self, model: Model, is_over: Callable[[], bool] = lambda: False) -> None:
        """Let a request to a model in, the model loaded; it is in use from the request's arrival to its end.

        Raises:
            ApiError: 503: there was no room for too long, or `is_over` said not to wait, or it could not be loaded.
        """
        with self._changed:
            model.used_at = time.monotonic()
            if self._passes(model, None):
                return
            turn = self._join(model)
        until = time.monotonic() + self._wait_s
        try:
            while not self._step(turn):
                if is_over() or time.monotonic() > until:
                    raise self._no_room(model)
        finally:
            with self._changed:
                turn.n -= 1
                if not turn.n:
                    self._queue.remove(turn)
                self._changed.notify_all()

    def look_again(self) -> None:
        """A request has ended, so there may be room for those that wait."""
        with self._changed:
            self._changed.notify_all()

    def _passes(self, model: Model, turn: _Turn | None) -> bool:
        """Whether a request may go on: its model is there, and nobody has waited for too long before it came."""
        if model not in self._loaded:
            return False
        first = next((each for each in self._queue if each.error is None), None)
        return first in (None, turn) or time.monotonic() - first.since < self._hold_s

    def _join(self, model: Model) -> _Turn:
        turn = next((each for each in self._queue if each.model is model and each.error is None), None)
        if turn is None:
            turn = _Turn(model, time.monotonic())
            self._queue.append(turn)
        elif turn.n >= self._n_waiting_max:
            raise self._no_room(model)
        turn.n += 1
        return turn

    def _step(self, turn: _Turn) -> bool:
        """Wait for a while, or load the model whose turn it is; whether the request may go on.

        Raises whatever the model could not be loaded for.
        """
        with self._changed:
            if turn.error is not None:
                raise turn.error
            if self._passes(turn.model, turn):
                return True
            leaving = self._leaving(turn)
            if leaving is None:
                self._changed.wait(POLL_S)
                return False
            self._is_moving = True
            self._loaded = [each for each in self._loaded if each not in leaving]
        try:
            for each in leaving:
                warn(f"{each.name} makes room for {turn.model.name}")
                each.sleep()
            turn.model.load()
        except Exception as error:  # whatever it is, all who wait for the model must learn of it
            turn.error = error
        with self._changed:
            if turn.error is None:
                self._loaded.append(turn.model)
            self._is_moving = False
            self._changed.notify_all()
        return turn.error is None

    def _leaving(self, turn: _Turn) -> list[Model] | None:
        """Who has to go before a model whose turn it is can come, the longest unused first; None: not now."""
        if self._is_moving or turn is not self._queue[0] or turn.model in self._loaded:
            return None
        waiting = {id(each.model): each.n for each in self._queue}
        idle = [each for each in self._loaded if each.in_use() <= waiting.get(id(each), 0)]
        idle.sort(key=lambda each: each.used_at, reverse=True)
        staying, leaving = list(self._loaded), list[Model]()
        while staying and not self._has_room(turn.model, staying):
            if not idle:
                return None
            leaving.append(idle.pop())
            staying.remove(leaving[-1])
        return leaving

    def _has_room(self, model: Model, staying: list[Model]) -> bool:
        nbytes = model.process_bytes + sum(each.process_bytes for each in staying)
        return nbytes <= self._budget_bytes and len(staying) < self._n_max

    def _no_room(self, model: Model) -> ApiError:
        return ApiError(
            503, f"no room for {model.name}: {', '.join(each.name for each in self._loaded)} are in use",
            kind="unavailable_error", code="no_room", retry_after_s=RETRY_S,
        )  # fmt: skip
