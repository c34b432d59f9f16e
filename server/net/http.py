"""How does the application reach the network? waitress, run in a thread, stopped from another.

waitress because it is the one pure-Python server that tells an application that a silent client has gone
(`waitress.client_disconnected`, with channel_request_lookahead), on every platform, in one process.
"""

import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from waitress.server import create_server
from waitress.wasyncore import dispatcher

from server.journal import warn
from server.net import channels
from server.net.accepting import AtLimit
from server.net.addresses import bound
from server.net.dispatching import LastFirst

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

SPARE_THREADS: Final = 16  # for /health and refusals while every place in the queue holds a thread
OTHER_FILES: Final = 256  # that the process has open beside its connections
MOST_CONNECTIONS: Final = 16384
NEVER: Final = 1 << 40  # bytes
STOP_TIMEOUT_S: Final = 5
POLL_S: Final = 0.01


class HttpServer:
    """A listening server. Connections are answered from `start` on.

    `host`: an address, a Unix socket's path, or several of these by commas (`addresses.py`).
    """

    def __init__(self, app: "WSGIApplication", *, host: str, port: int, max_streams: int, max_body_bytes: int) -> None:
        """Bind; raises OSError when an address is in use or not this machine's."""
        self._listeners = bound(host, port)
        self.urls = tuple(each.url for each in self._listeners)
        self.port = next((each.port for each in self._listeners if each.port), 0)
        self._connections: dict[int, Any] = {}  # of all listeners, so that one thread looks after them
        kept: dict[str, Any] = {} if _has_folder() else {"inbuf_overflow": max_body_bytes + 1, "outbuf_overflow": NEVER}
        threads = LastFirst(max_streams + SPARE_THREADS)
        try:
            self._servers: list[Any] = [
                create_server(
                    app,
                    map=self._connections,
                    sockets=[listener.socket],
                    _dispatcher=threads,
                    channel_request_lookahead=1,
                    asyncore_use_poll=True,
                    max_request_body_size=max_body_bytes + 1,  # refused by the Content-Length, before a byte is read
                    connection_limit=connection_limit(),
                    ident="ggufphys",
                    **kept,
                )
                for listener in self._listeners
            ]
        except BaseException:
            threads.shutdown(timeout=STOP_TIMEOUT_S)
            self._release()
            raise
        for server in self._servers:
            channels.use(server)
            AtLimit(server)
        self._thread = threading.Thread(target=self._servers[0].run, name="http", daemon=True)

    @property
    def url(self) -> str:
        """Where it listens, first of all."""
        return self.urls[0]

    def start(self) -> None:
        """Answer connections, in a thread."""
        self._thread.start()

    def flush(self) -> None:
        """Wait until answers that are complete are sent, too: the last bytes follow when the application is done."""
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while self._thread.is_alive() and self._is_sending() and time.monotonic() < deadline:
            time.sleep(POLL_S)

    def _is_sending(self) -> bool:
        return any(channel.requests or channel.total_outbufs_len for channel in self._channels())

    def _channels(self) -> list[Any]:
        return [channel for server in self._servers for channel in list(server.active_channels.values())]

    def stop(self) -> None:
        """Close the listening socket and every connection, and wait for the threads.

        What wakes the server's thread is closed last: threads that end an answer write there.
        """
        self._do(self._close)
        self._servers[0].task_dispatcher.shutdown(timeout=STOP_TIMEOUT_S)
        self._do(self._close_triggers)
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT_S)

    def _do(self, call: Callable[[], object]) -> None:
        """Call it in the server's own thread, which owns the sockets, or here when that is not there."""
        if self._thread.is_alive():
            with suppress(OSError):  # it may be awake, and have closed what wakes it before this has written there
                self._servers[0].trigger.pull_trigger(call)
        else:
            call()

    def _close(self) -> None:
        for channel in self._channels():
            channel.handle_close()
        for server in self._servers:
            dispatcher.close(server)  # without what wakes it
        self._release()

    def _release(self) -> None:
        for listener in self._listeners:
            listener.close()

    def _close_triggers(self) -> None:
        for server in self._servers:
            server.trigger.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def listening(app: "WSGIApplication", *, host: str, port: int, max_streams: int, max_body_bytes: int) -> HttpServer:
    """A server at an address. Raises ValueError: it cannot listen there; the message says why, and what to do."""
    try:
        return HttpServer(app, host=host, port=port, max_streams=max_streams, max_body_bytes=max_body_bytes)
    except OSError as error:
        raise ValueError(
            f"cannot listen on {error}; choose another with --host and --port (0: any free port)"
        ) from error


def _has_folder() -> bool:
    """Whether long bodies and answers can lie in temporary files, as waitress has it; else memory holds them."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:  # a container's root that is read-only, with nothing at /tmp
        warn("note: there is no folder for temporary files (TMPDIR), so memory holds long requests while they come")
        return False
    return True


def connection_limit() -> int:
    """As many connections as the process may have files for; the soft limit is raised as far as that needs."""
    try:
        import resource  # POSIX alone
    except ImportError:
        return 512 - SPARE_THREADS  # what Windows's C library has files for
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_CONNECTIONS + OTHER_FILES
    wanted = most if hard == resource.RLIM_INFINITY else min(hard, most)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return max(SPARE_THREADS, min(MOST_CONNECTIONS, (most if soft == resource.RLIM_INFINITY else soft) - OTHER_FILES))
