"""Is a client that has ended its own side of the connection still there?

The same segment (FIN) comes from one that has said all and waits, and from one that has gone. TCP tells them apart when
something is sent: a socket that nobody holds any more answers with a reset. So while an answer is waited for, its first
bytes, which are the same whatever it will be, are sent ahead one by one.
"""

import socket
import time
from typing import Final

BEGINNING: Final = b"HTTP/1."  # of every answer, to requests of HTTP/1.0, too
FIRST_S: Final = 0.5  # between the first two bytes; then twice as long each time, so the last one goes after 31 s


class Presence:
    """What is known of such a client. Not for threads: its connection's lock is held."""

    def __init__(self, client: socket.socket) -> None:
        self.n_begun = 0  # bytes of the answer that have been sent
        self._socket = client
        self._gone = False
        self._next_at, self._pause_s = 0.0, FIRST_S

    def has_gone(self, *, is_sending: bool) -> bool:
        """Whether it is known to have gone; `is_sending`: the answer has begun, so that its own bytes tell."""
        try:
            # An error is told once.
            self._gone = self._gone or self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0
            now = time.monotonic()
            if not (self._gone or is_sending) and now >= self._next_at and self.n_begun < len(BEGINNING):
                self.n_begun += self._socket.send(BEGINNING[self.n_begun : self.n_begun + 1])
                self._next_at, self._pause_s = now + self._pause_s, self._pause_s * 2
        except BlockingIOError:  # it is there, and does not read
            pass
        except OSError:
            self._gone = True
        return self._gone
