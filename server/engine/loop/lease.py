"""Who still uses it? Lets a resource be freed while other threads may be about to call into it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from server.engine.errors import NotReadyError


class Lease:
    """Users borrow, the owner revokes: `revoke` returns when the last user is done, and later ones are refused."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._users = 0
        self._revoked = False

    @contextmanager
    def borrow(self) -> Iterator[None]:
        """Hold the resource for the length of a `with`.

        Raises:
            NotReadyError: it has been revoked.
        """
        with self._changed:
            if self._revoked:
                raise NotReadyError("the engine is shutting down")
            self._users += 1
        try:
            yield
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()

    def revoke(self) -> None:
        """Refuse new users and wait for those there are."""
        with self._changed:
            self._revoked = True
            self._changed.wait_for(lambda: self._users == 0)
