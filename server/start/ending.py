"""What is looked at while a server runs, and how does it end? Of one model, or of several."""

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from server.access.keys import reload_keys
from server.engine.worker.crash import FileStamp
from server.journal import warn
from server.net.http import HttpServer
from server.service import Service
from server.start.signals import Signals

LOOK_EVERY_S: Final = 2.0  # at model files
WAKE_S: Final = 0.25  # how often the main thread looks up: on Windows a wait without end would not see Ctrl-C
TELL_S: Final = 2.0  # for telling clients that their answers are cut off


class Closing(Protocol):
    """What is asked of an engine."""

    def close(self) -> None:
        """Fail what is under way; a second call does nothing."""


def serve_until_signal(
    args: argparse.Namespace,
    signals: Signals,
    http: HttpServer,
    services: Sequence[Service],
    engines: Sequence[Closing],
    *,
    stamps: Callable[[], Iterable[FileStamp]],
    check: Callable[[], None] = lambda: None,
) -> None:
    """Wait for a signal, then end as `drain` does.

    Meanwhile look at the files that are in use (`stamps`), read keys again when they may be new, and `check`, which
    raises where one of the models can't be served any more; what the others have under way is finished first.
    """
    watch = Watch()
    while not signals.received.wait(WAKE_S):
        watch.look(stamps())
        if signals.hung_up.is_set():
            signals.hung_up.clear()
            if args.api_key_file is not None:
                reload_keys([service.keys for service in services], args.api_key, args.api_key_file)
        try:
            check()
        except Exception:
            drain(services, http, args.drain_timeout, engines)
            raise
    drain(services, http, args.drain_timeout, engines)


class Watch:
    """Looks at model files that are in use, now and then; one that is overwritten in place is told, once."""

    def __init__(self) -> None:
        self._told: set[FileStamp] = set()
        self._looked_at = time.monotonic()

    def look(self, stamps: Iterable[FileStamp]) -> None:
        """Tell of those that have changed."""
        if time.monotonic() - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = time.monotonic()
        for stamp in stamps:
            if stamp not in self._told and stamp.changed_in_place:
                self._told.add(stamp)
                warn(
                    f"warning: {stamp.path} has been overwritten in place while it is in use: answers may be wrong, or "
                    "the engine's process die (SIGBUS); replace a model by renaming a new file over it, then restart"
                )


def drain(services: Sequence[Service], http: HttpServer, timeout_s: float, engines: Sequence[Closing]) -> None:
    """Refuse what is new, and wait for what is under way, of all of them `timeout_s` at most.

    What is cut off then is told so, as long as that takes: `engines` are closed first.
    """

    def n_left() -> int:
        return sum(service.in_flight.count for service in services)

    for service in services:
        service.draining.set()
    if n_left():
        warn(f"finishing {n_left()} request(s), at most {timeout_s} s; again to quit at once")

    def wait(seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for service in services:
            service.in_flight.wait_for_none(max(0.0, deadline - time.monotonic()))

    wait(timeout_s)
    if n_left():
        warn(f"{n_left()} request(s) did not finish in {timeout_s} s and are cut off")
        for engine in engines:
            engine.close()
        wait(TELL_S)
    http.flush()
