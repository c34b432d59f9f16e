"""HTTP/1.1 to one server with little work a byte: kept connections, and bodies handed on piece by piece as they come.

The parser is httptools' (llhttp). Nothing is asked for that would need more: no compression, no redirects, no cookies.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import httptools

Take = Callable[[bytes, float], None]  # a part of a good answer's body, and when it came
_LAST_STATUS_WITHOUT_MEANING: Final = 199


class ConnectError(OSError):
    """No connection could be made."""


class LostError(Exception):
    """The connection ended within an answer."""


class ForeignError(LostError):
    """The answer is no HTTP."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer's status, where it points to, and its body, unless that was handed on as it came."""

    status: int
    location: str
    body: bytes

    @property
    def is_good(self) -> bool:
        """Is it what was asked for?"""
        return _is_good(self.status)


def _is_good(status: int) -> bool:
    return 200 <= status < 300


class _Connection(asyncio.Protocol):
    """One connection, one exchange at a time."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.done: asyncio.Future[None] | None = None
        self.is_open = False
        self._begin(None)

    def _begin(self, take: Take | None) -> None:
        self.take = take
        self.status = 0
        self.began = False
        self.has_end = False  # by a length or by chunks, or else by the connection's end
        self.other: list[bytes] = []  # the body of another status
        self.location = ""
        self.now = 0.0

    async def exchange(self, request: bytes, take: Take | None) -> None:
        """Send a request and wait for the end of its answer."""
        self._begin(take)
        self.done = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        try:
            await self.done
        finally:
            if not self.done.done() or self.done.cancelled():  # a time-out: what still comes is nobody's
                self.transport.abort()
                self.is_open = False
            self.done = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """Parse what has come."""
        self.now = time.perf_counter()
        self.began = True
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(ForeignError(f"no HTTP: {error}"))
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """An answer without length ends so; any other is lost."""
        self.is_open = False
        is_whole = exc is None and self.status and not self.has_end
        self._end(None if is_whole else LostError(str(exc or "the server closed the connection")))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Does the header say where the body ends, or where to ask?"""
        name = name.lower()
        if name in (b"content-length", b"transfer-encoding"):
            self.has_end = True
        elif name == b"location":
            self.location = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The status is known."""
        self.status = self.parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        """Hand on a part of the body."""
        if self.take is not None and _is_good(self.status):
            self.take(body, self.now)
        else:
            self.other.append(body)

    def on_message_complete(self) -> None:
        """That was all, unless it only announced the answer."""
        if self.status <= _LAST_STATUS_WITHOUT_MEANING:
            self.status = 0
            return
        if not self.parser.should_keep_alive():
            self.is_open = False
            self.transport.close()
        self._end(None)

    def _end(self, error: Exception | None) -> None:
        if self.done is None or self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


class Http:
    """Requests to one server; as many connections as there are requests at once."""

    def __init__(self, base_url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(base_url)
        self.host = parts.hostname or ""
        self.ssl = ssl.create_default_context() if parts.scheme == "https" else None
        self.port = parts.port or (443 if self.ssl else 80)
        self.prefix = parts.path.rstrip("/")
        lines = {"Host": parts.netloc.rpartition("@")[2], "Accept": "*/*", **headers}
        self.lines = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._heads: dict[str, bytes] = {}
        self.idle: list[_Connection] = []

    async def close(self) -> None:
        """Close the connections."""
        for connection in self.idle:
            connection.transport.close()
        self.idle.clear()
        await asyncio.sleep(0)  # transports close in the loop's next turn

    async def get(self, path: str) -> tuple[int, bytes]:
        """Status and body. Raises ConnectError, LostError."""
        connection = await self._exchange(f"GET {self.prefix}/{path} HTTP/1.1\r\n{self.lines}\r\n".encode(), None)
        return connection.status, b"".join(connection.other)

    async def post(self, path: str, body: bytes, take: Take) -> Reply:
        """Send JSON; `take` gets the parts of a good answer's body.

        Raises:
            ConnectError: no connection.
            LostError: it broke; ForeignError: whoever answers does not speak HTTP.
        """
        head = self._heads.get(path)
        if head is None:
            text = f"POST {self.prefix}/{path} HTTP/1.1\r\n{self.lines}Content-Type: application/json\r\n"
            head = self._heads[path] = f"{text}Content-Length: ".encode()
        connection = await self._exchange(b"%b%d\r\n\r\n%b" % (head, len(body), body), take)
        return Reply(connection.status, connection.location, b"".join(connection.other))

    async def _exchange(self, request: bytes, take: Take | None) -> _Connection:
        while self.idle:
            connection = self.idle.pop()
            if not connection.is_open:
                continue
            try:
                await connection.exchange(request, take)
            except LostError:
                if connection.began:
                    raise
                continue  # the server had closed it meanwhile, and has not seen the request
            return self._kept(connection)
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                _Connection, self.host, self.port, ssl=self.ssl
            )
        except OSError as error:
            raise ConnectError(str(error)) from error
        await connection.exchange(request, take)
        return self._kept(connection)

    def _kept(self, connection: _Connection) -> _Connection:
        if connection.is_open:
            self.idle.append(connection)
        return connection
