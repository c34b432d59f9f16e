"""How much may one client ask for? Requests a minute and at a time, by API key, or by address without keys."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from server.access.refusals import Refusal

FORGET_S: Final = 120.0  # a client that was idle so long has all of its allowance again
RETRY_S: Final = 1.0  # where nothing is known of how long requests take


@dataclass(slots=True)
class _Client:
    """What is left of an allowance, as of when, and what is under way."""

    left: float
    at_s: float
    n_running: int = 0


class TooManyError(Exception):
    """A client is over its limit for another `retry_after_s`."""

    def __init__(self, message: str, *, reason: Refusal, retry_after_s: float) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_s = retry_after_s


class Limits:
    """A bucket of `per_minute` requests for each client, filled evenly; at most `at_once` under way. 0: no limit."""

    def __init__(self, *, per_minute: int = 0, at_once: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._at_once = at_once
        self._clock = clock
        self._lock = threading.Lock()
        self._clients: dict[str, _Client] = {}

    def take(self, client: str, expected_s: float = RETRY_S) -> Callable[[], None]:
        """Let a request of the client's begin; what it gives is to be called when that is over, once or more.

        `expected_s` is when one of those under way is likely to end.

        Raises:
            TooManyError: the client has too many, or had.
        """
        if not self._per_minute and not self._at_once:
            return lambda: None
        with self._lock:
            now = self._clock()
            self._forget(now)
            state = self._clients.setdefault(client, _Client(float(self._per_minute), now))
            state.left = min(float(self._per_minute), state.left + (now - state.at_s) * self._per_minute / 60)
            state.at_s = now
            if self._at_once and state.n_running >= self._at_once:
                raise TooManyError(
                    f"{state.n_running} requests of this client are under way, which is as many as may",
                    reason=Refusal.CLIENT_CONCURRENCY, retry_after_s=expected_s,
                )  # fmt: skip
            if self._per_minute and state.left < 1:
                raise TooManyError(
                    f"this client has sent {self._per_minute} requests in a minute, which is as many as may",
                    reason=Refusal.CLIENT_RATE, retry_after_s=(1 - state.left) * 60 / self._per_minute,
                )  # fmt: skip
            state.left -= 1
            state.n_running += 1
        calls = [state]

        def done() -> None:
            with self._lock:
                if calls:
                    calls.pop().n_running -= 1

        return done

    def _forget(self, now: float) -> None:
        if len(self._clients) > 1000:  # addresses can be many
            idle = [name for name, c in self._clients.items() if not c.n_running and now - c.at_s > FORGET_S]
            for name in idle:
                del self._clients[name]
