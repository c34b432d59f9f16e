"""What passes between a client and a server, and when? A relay that looks at each exchange on its way.

Whatever a client says of a request can be set beside it: both are of the same request, at the same pace of the server.
"""

import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit

from bench.load.client import Answer, Events

AT_ONCE: Final = 1 << 16
METHODS: Final = (b"POST ", b"GET ", b"OPTIONS ")  # a request begins so, and JSON does not


class Exchange:
    """A request and its answer: `sent_s` when the request began to come in, pieces of content when they went out."""

    def __init__(self, sent_s: float) -> None:
        self.answer = Answer(sent_s=sent_s, n_prompt_wanted=0, n_predict_wanted=0)
        self._events = Events(self.answer)

    def take(self, data: bytes, now: float) -> None:
        """A part of the answer; lines of events are found between those of chunked bodies."""
        self._events.take(data, now)


@contextmanager
def relayed(url: str) -> Iterator[tuple[str, list[Exchange]]]:
    """An address that leads to a server, and its exchanges in the order in which they began, as they are."""
    parts = urlsplit(url)
    server, exchanges = (parts.hostname or "", parts.port or 80), list[Exchange]()
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listening:
        thread = threading.Thread(target=_listen, args=(listening, server, exchanges), daemon=True)
        thread.start()
        try:
            yield parts._replace(netloc=f"127.0.0.1:{listening.getsockname()[1]}").geturl(), exchanges
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def _listen(listening: socket.socket, server: tuple[str, int], exchanges: list[Exchange]) -> None:
    while True:
        try:
            client, _ = listening.accept()
        except OSError:  # it was shut
            return
        threading.Thread(target=_carry, args=(client, server, exchanges), daemon=True).start()


def _carry(client: socket.socket, address: tuple[str, int], exchanges: list[Exchange]) -> None:
    """Both directions of a connection, until either side ends it."""
    exchange: Exchange | None = None
    with client, socket.create_connection(address) as server:
        for side in (client, server):
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            for side in select.select((client, server), (), ())[0]:
                try:
                    data = side.recv(AT_ONCE)
                    now = time.perf_counter()
                    if data:
                        (server if side is client else client).sendall(data)
                except OSError:
                    data = b""
                if not data:
                    return
                if side is client:
                    if data.startswith(METHODS):
                        exchange = Exchange(now)
                        exchanges.append(exchange)
                elif exchange is not None:
                    exchange.take(data, now)
