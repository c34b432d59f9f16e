"""The connection that an answer goes out by, for who writes there without waitress's task: the engine, while it may."""

import os
from collections.abc import Callable
from typing import Any, Self

from waitress.task import WSGITask

from server.engine.forms import Form
from server.engine.ways import Way, chunk
from server.net.channels import Channel


class Door:
    """A streamed answer's connection, from when its head has been written."""

    def __init__(self, task: Any) -> None:
        self._task = task
        self._channel: Any = task.channel
        self._chunked = bool(task.chunked_response)

    @classmethod
    def of(cls, write: object) -> Self | None:
        """By the server's `write` of PEP 3333; None for another server's, or of a length that is told."""
        task: Any = getattr(write, "__self__", None)
        if not isinstance(task, WSGITask) or not isinstance(task.channel, Channel) or task.content_length is not None:
            return None
        return cls(task)

    def way(self, form: Callable[[], Form | None]) -> Way:
        """The way of texts in this form."""
        return Way(form, self._chunked, self._dup)

    def framed(self, data: bytes) -> bytes:
        """Data as it is sent there."""
        return chunk(data) if self._chunked else data

    def write(self, data: bytes) -> None:
        """Send what is framed already. Raises ClientDisconnected."""
        self._channel.write_soon(data)

    def end(self) -> None:
        """Close the connection behind this answer, whoever asked for it to stay open."""
        self._task.close_on_finish = True

    def _dup(self) -> int:
        """The socket, for the caller to close; -1 while something waits to be sent, or when the client has gone.

        waitress closes the socket after it has had this lock, so until then the number is not another connection's.
        """
        channel = self._channel
        with channel.outbuf_lock:
            if not channel.connected or channel.total_outbufs_len:
                return -1
            try:
                return os.dup(channel.socket.fileno())
            except OSError:
                return -1
