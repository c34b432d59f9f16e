"""What if a connection cannot be accepted, because the process or the machine has no room for another file?

The connection stays in the kernel's queue, so waitress would try at once again, with a traceback each time.
"""

import errno
import os
import time
from collections.abc import Callable
from typing import Any, Final

from server.journal import warn

SHORT_OF: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
PAUSE_S: Final = 1.0  # until it is tried again; the rounds of waitress's loop are as long
TELL_S: Final = 60.0  # at most once in so long


class AtLimit:
    """Lets a waitress server wait for a moment where it cannot accept, and says why."""

    def __init__(self, server: Any) -> None:
        self._accept: Callable[[], Any] = server.accept
        self._readable: Callable[[], Any] = server.readable
        self._paused_until = self._silent_until = 0.0
        server.accept, server.readable = self.accept, self.readable

    def readable(self) -> bool:
        """Whether a connection may be accepted now."""
        return bool(self._readable()) and time.monotonic() >= self._paused_until

    def accept(self) -> Any:
        """A connection and its address; None: there is none, or no room for it yet."""
        try:
            return self._accept()
        except OSError as error:
            if error.errno not in SHORT_OF:
                raise
            now = time.monotonic()
            self._paused_until = now + PAUSE_S
            if now >= self._silent_until:
                self._silent_until = now + TELL_S
                warn(
                    f"warning: no connection can be accepted now: {os.strerror(error.errno)}; clients wait until "
                    "others have gone; allow more files (ulimit -n, LimitNOFILE=)"
                )
            return None
