"""When does a connection end? Not behind a stream; and who is refused while sending gets the answer, not a reset.

Nor where the client has ended its own side, which may be all that it has to say, or be its end: `presence.py` asks.

waitress closes behind each chunked answer, so that a client with a pool of connections makes a new one for each stream,
though the last chunk says where it ends.

waitress answers 413 by the Content-Length and closes; the client, still sending, then sees a reset in place of the
answer. So what still comes is read and dropped for a while, as nginx does (lingering_close), and nothing of it is kept.
"""

import json
import socket
import tempfile
import time
from contextlib import suppress
from functools import cache
from typing import Any, Final

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.task import ErrorTask, WSGITask
from waitress.utilities import InternalServerError

from server.journal import warn
from server.net.presence import Presence

TLS: Final = b"\x16\x03"  # how a handshake begins, and no HTTP
LINGER_S: Final = 30.0  # for a body that comes slowly; the connection is closed then
CODES: Final = {413: "request_too_large", 431: "request_header_too_large"}


@cache
def _tell_of_tls() -> None:
    """Tell of https, once in a process."""
    warn("note: a client has asked for https:// here, which a proxy in front may do; this server speaks http://")


class _Parser(HTTPRequestParser):
    """Takes what follows a refused request's headers for a part of it, not for another request.

    A long body lies in a temporary file; where that cannot be written the client is told.
    """

    def received(self, data: bytes) -> int:
        n = 0
        try:
            n = super().received(data)
        except OSError as error:  # a full disk
            where = f"{tempfile.gettempdir()} cannot take the body of a request: {error.strerror}"
            warn(f"warning: {where}")
            self.error = InternalServerError(where)
            self.completed = True
        if self.error is None:
            return n
        self.expect_continue = False  # who asks before he sends is answered at once, too, and not told to go on
        return len(data)


class _Answer(WSGITask):
    """Lets the connection live on behind a chunked answer. One that breaks off closes it, as waitress has it."""

    def set_close_on_finish(self) -> None:
        """Not for being chunked alone; behind a HEAD, waitress's last chunk would be taken for the next answer."""
        request: Any = self.request
        wants_close = request.command == "HEAD" or "close" in request.headers.get("CONNECTION", "").lower()
        ends_by_itself = self.chunked_response or (self.version == "1.1" and not self.has_body)  # 204, to a browser
        if wants_close or self.wrote_header or not ends_by_itself:
            super().set_close_on_finish()


class _Refusal(ErrorTask):
    """waitress's own refusals (too large, malformed) in OpenAI's shape."""

    def execute(self) -> None:
        """Say what was wrong, and close."""
        request: Any = self.request
        error = request.error
        message = f"{error.reason}: {error.body}"
        kind = "server_error" if error.code == 500 else "invalid_request_error"
        document = {"error": {
            "message": message, "type": kind, "param": None, "code": CODES.get(error.code),
        }}  # fmt: skip
        body = json.dumps(document).encode()
        self.status = f"{error.code} {error.reason}"
        self.response_headers = [("Content-Type", "application/json")]
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class Channel(HTTPChannel):
    """waitress's channel, open behind a stream, lingering behind a refusal, and for who has said all that he has to.

    A client may end its own side and wait for the answer, as `nc -N` does behind a script's request. It gets the
    answers to all that it has sent, then the connection ends; if it has gone altogether, that shows (`presence.py`).
    """

    parser_class = _Parser
    task_class = _Answer
    error_task_class = _Refusal
    _refused = False
    _linger_until = 0.0
    heard_all = False  # the client's side has ended, with requests of its own under way
    _presence: Presence | None = None  # of a client that has said all, from when somebody asks
    _is_sending = False  # the answer that is under way has begun

    def check_client_disconnected(self) -> bool:  # type: ignore[override]  # the stubs have it return nothing
        """Also where a client that has said all is found to have gone."""
        if not self.connected or not self.heard_all:
            return not self.connected
        channel: Any = self
        with channel.outbuf_lock:
            if self._presence is None:
                self._presence = Presence(channel.socket)
            return self._presence.has_gone(is_sending=self._is_sending)

    def service(self) -> None:
        """Answer a request."""
        self._is_sending = False
        super().service()

    def write_soon(self, data: bytes) -> int:
        """Send at once where nothing waits before it; waitress would copy it into a buffer and out again."""
        n_sent = 0
        channel: Any = self
        with channel.outbuf_lock, suppress(OSError):  # what went wrong shows when the rest is written
            if not self._is_sending and self._presence is not None:
                n_sent = self._presence.n_begun  # the client has these already
                self._presence = None
            self._is_sending = True
            if self.connected and not self.total_outbufs_len:
                n_sent += channel.socket.send(data[n_sent:])
                self.last_activity = time.time()
        if n_sent < len(data):
            super().write_soon(data[n_sent:])
        return len(data)

    def readable(self) -> bool:
        """Also while lingering; called each time round, so that the end of it is seen here."""
        if not self._linger_until:
            return not self.heard_all and bool(super().readable())
        if time.monotonic() > self._linger_until:
            self.will_close = True
            return False
        return True

    def received(self, data: bytes) -> bool:
        """Parse what has come, unless it belongs to what was refused.

        Who speaks TLS would wait for an answer as long as we for the end of a line: the connection ends at once.
        """
        if self._refused:
            return False
        if self.request is None and data.startswith(TLS):
            _tell_of_tls()
            self.will_close = True
            return False
        more = bool(super().received(data))
        self._refused = any(request.error is not None for request in self.requests)
        return more

    def handle_read(self) -> None:
        """Read; while lingering, to drop it."""
        if not self._linger_until:
            self.heard_all = bool(self.requests) and self._has_ended()
            if not self.heard_all:
                super().handle_read()
            return
        try:
            data = self.recv(self.adj.recv_bytes)
        except OSError:
            data = b""
        if not data:
            self.handle_close()

    def _has_ended(self) -> bool:
        channel: Any = self
        try:
            return not channel.socket.recv(1, socket.MSG_PEEK)
        except OSError:
            return False

    def writable(self) -> bool:
        """Also to close behind the last answer to a client whose side has ended."""
        return bool(super().writable()) or (self.heard_all and not self.requests)

    def handle_write(self) -> None:
        """Write; behind a refusal, begin to linger instead of closing."""
        if self.heard_all and not self.requests:
            self.close_when_flushed = True
        if self._refused and self.close_when_flushed and not self._linger_until:
            channel: Any = self  # the stubs leave out what is private
            channel._flush_exception(channel._flush_some)
            if not self.total_outbufs_len and not self.will_close:
                self.close_when_flushed = False
                self._linger_until = time.monotonic() + LINGER_S
                with suppress(OSError):
                    channel.socket.shutdown(socket.SHUT_WR)
                return
        super().handle_write()


def use(server: Any) -> None:
    """Let a waitress server's connections be such."""
    server.channel_class = Channel
