"""What a large answer took is given back to the system: malloc would keep it for the next, and nothing would say why.

Once glibc has freed a large block it takes later ones from its heap, where what still lives above holds the rest.
"""

import ctypes
import threading
from contextlib import suppress
from typing import Any, Final

from server.engine.frames import Embedded, Step

LARGE_BYTES: Final = 1 << 20  # of vectors: less is not worth a walk over the heap


class Heap:
    """Of this process. `note` what is sent; `tidy` now and then, when it has been."""

    def __init__(self) -> None:
        self._is_untidy = threading.Event()

    def note(self, step: Step) -> None:
        """A step is sent."""
        for report in step.reports:
            if type(report) is Embedded and sum(len(row) for rows in report.rows for row in rows) > LARGE_BYTES:
                self._is_untidy.set()

    def tidy(self) -> None:
        """Give back what is free, if much may be; where malloc is not glibc's, nothing is done."""
        if self._is_untidy.is_set():
            self._is_untidy.clear()
            with suppress(OSError, AttributeError, TypeError):
                libc: Any = ctypes.CDLL(None)
                libc.malloc_trim(0)
