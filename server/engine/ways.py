"""How an answer's text gets to its client without the HTTP side: what the two processes tell each other of it.

The HTTP side names the way (`Way`), the readers offer it to the worker (`Offer`) with the client's socket, and the
worker goes it if no token has come meanwhile (`direct`). Unix alone: elsewhere, sockets are not handed on.
"""

import marshal
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple, cast

from server.engine.forms import Form

MOST_BYTES: Final = 1 << 15  # of a message: a kernel keeps a few of them at least


class Way(NamedTuple):
    """How texts are sent, and where.

    `form`: of the next events, by all that has been shown; None while they have none. `chunked`: in chunks, as HTTP/1.1
    has them. `dup`: a descriptor of the client's socket, for the caller to close; -1 while something waits before, or
    when the client has gone.
    """

    form: Callable[[], Form | None]
    chunked: bool
    dup: Callable[[], int]


class Offer(NamedTuple):
    """To the worker: go on behind so many tokens of a request's only answer, of which all text has been sent."""

    id: int
    n_tokens: int
    form: Form
    chunked: bool
    stop: tuple[str, ...]


class Aside(NamedTuple):
    """To the worker: send this, too, if the way is yours."""

    id: int
    data: bytes


def chunk(data: bytes) -> bytes:
    """Data as a chunk of HTTP/1.1's chunked encoding."""
    return b"%X\r\n%b\r\n" % (len(data), data)


class Passage:
    """One end of what such messages pass through, whole, each with a socket or without."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    @classmethod
    def pair(cls) -> "tuple[Passage, socket.socket] | None":
        """Both ends, the second one for a child; None where the system has none."""
        if not hasattr(socket, "send_fds") or not hasattr(socket, "SOCK_SEQPACKET"):
            return None
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:  # macOS
            return None
        ours.setblocking(False)
        return cls(ours), theirs

    def send(self, message: Offer | Aside, fileno: int = -1) -> bool:
        """Hand it over at once; whether it could be: the other end may be gone, or busy, or the message too large."""
        fields: tuple[Any, ...] = tuple(tuple(each) if isinstance(each, Form) else each for each in message)
        data = marshal.dumps(fields)
        with suppress(OSError, ValueError):
            if len(data) <= MOST_BYTES:
                if fileno < 0:
                    self._end.send(data)
                else:
                    socket.send_fds(self._end, [data], [fileno])
                return True
        return False

    def receive(self) -> tuple[Offer | Aside, int]:
        """The next message, with a socket of its own or -1. Raises EOFError when the other end is closed."""
        data, filenos, _, _ = socket.recv_fds(self._end, MOST_BYTES, 1)
        if not data:
            raise EOFError
        fields = marshal.loads(data)
        fileno = filenos[0] if filenos else -1
        if len(fields) == len(Aside._fields):
            return Aside(*cast("tuple[int, bytes]", fields)), fileno
        offer = Offer(*cast("tuple[int, int, Form, bool, tuple[str, ...]]", fields))
        return offer._replace(form=Form(*offer.form)), fileno

    def close(self) -> None:
        """Close this end."""
        self._end.close()
