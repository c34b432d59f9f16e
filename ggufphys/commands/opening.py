"""The models a command line names, opened: paths, addresses, references to the Hub; with progress if it takes time."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TextIO

from ggufphys.gguf import GGUFFile
from ggufphys.gguf.locate import is_remote, open_model
from ggufphys.units import format_bytes

if TYPE_CHECKING:
    from ggufphys.gguf.known import KnownArrays

PATIENCE_S: Final = 1.0  # nobody needs to be told about less


@contextmanager
def opened(text: str, *, use_cache: bool = True, known: "KnownArrays | None" = None) -> Iterator[GGUFFile]:
    """The model while the block runs. Raises what `open_model` does."""
    if is_remote(text):
        with FetchProgress(sys.stderr) as progress:
            gguf = open_model(text, use_cache=use_cache, on_bytes=progress)
    else:
        gguf = open_model(text, known=known)
    with gguf:
        yield gguf


class FetchProgress:
    """Says on a terminal how many bytes have come, once that takes more than a second; wipes it away in the end."""

    def __init__(self, stream: TextIO) -> None:
        import threading  # what files that are here do without

        self._stream = stream if stream.isatty() else None
        self._start = time.monotonic()
        self._nbytes = 0
        self._shown = False
        self._lock = threading.Lock()  # shards are fetched by several threads

    def __call__(self, nbytes: int) -> None:
        """Take note of `nbytes` more."""
        with self._lock:
            self._nbytes += nbytes
            if self._stream is not None and time.monotonic() - self._start > PATIENCE_S:
                self._shown = True
                self._stream.write(f"\r\x1b[Kfetching the header: {format_bytes(self._nbytes)}")
                self._stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._shown and self._stream is not None:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
