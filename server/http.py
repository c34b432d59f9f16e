"""How does the application reach the network? waitress, run in a thread, stopped from another.

waitress because it is the one pure-Python server that tells an application that a silent client has gone
(`waitress.client_disconnected`, with channel_request_lookahead), on every platform, in one process.
"""

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from waitress.server import create_server
from waitress.wasyncore import dispatcher

from server import channels
from server.dispatching import LastFirst

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

SPARE_THREADS: Final = 16  # for /health and refusals while every place in the queue holds a thread
OTHER_FILES: Final = 256  # that the process has open beside its connections
MOST_CONNECTIONS: Final = 16384
STOP_TIMEOUT_S: Final = 5
POLL_S: Final = 0.01


class HttpServer:
    """A listening server. Connections are answered from `start` on."""

    def __init__(self, app: "WSGIApplication", *, host: str, port: int, max_streams: int, max_body_bytes: int) -> None:
        """Bind; raises OSError when the address is in use or not this machine's."""
        listener = _bind(host, port)
        self.host = host
        self.port = int(listener.getsockname()[1])
        threads = LastFirst()
        threads.set_thread_count(max_streams + SPARE_THREADS)
        try:
            self._server: Any = create_server(
                app,
                sockets=[listener],
                _dispatcher=threads,
                channel_request_lookahead=1,
                asyncore_use_poll=True,
                max_request_body_size=max_body_bytes + 1,  # refused by the Content-Length, before a byte is read
                connection_limit=connection_limit(),
                ident="ggufphys",
            )
            channels.use(self._server)
        except BaseException:
            threads.shutdown(timeout=STOP_TIMEOUT_S)
            listener.close()
            raise
        self._thread = threading.Thread(target=self._server.run, name="http", daemon=True)

    @property
    def url(self) -> str:
        """Where it listens; an address that means every interface is named by this machine's own."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def start(self) -> None:
        """Answer connections, in a thread."""
        self._thread.start()

    def flush(self) -> None:
        """Wait until answers that are complete are sent, too: the last bytes follow when the application is done."""
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while self._thread.is_alive() and self._is_sending() and time.monotonic() < deadline:
            time.sleep(POLL_S)

    def _is_sending(self) -> bool:
        channels = list(self._server.active_channels.values())
        return any(channel.requests or channel.total_outbufs_len for channel in channels)

    def stop(self) -> None:
        """Close the listening socket and every connection, and wait for the threads.

        What wakes the server's thread is closed last: threads that end an answer write there.
        """
        self._do(self._close)
        self._server.task_dispatcher.shutdown(timeout=STOP_TIMEOUT_S)
        self._do(self._server.trigger.close)
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT_S)

    def _do(self, call: Callable[[], object]) -> None:
        """Call it in the server's own thread, which owns the sockets, or here when that is not there."""
        if self._thread.is_alive():
            with suppress(OSError):  # it may be awake, and have closed what wakes it before this has written there
                self._server.trigger.pull_trigger(call)
        else:
            call()

    def _close(self) -> None:
        for channel in list(self._server.active_channels.values()):
            channel.handle_close()
        dispatcher.close(self._server)  # without what wakes it

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
            f"cannot listen on {host}:{port}: {error.strerror or error}; "
            "choose another with --host and --port (0: any free port)"
        ) from error


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


def _bind(host: str, port: int) -> socket.socket:
    """A socket bound to the address. Ours, not waitress's, which starts its threads before it finds a port in use."""
    flags = socket.AI_PASSIVE
    family, kind, protocol, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=flags)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere this would let two servers share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except BaseException:
        listener.close()
        raise
    return listener
