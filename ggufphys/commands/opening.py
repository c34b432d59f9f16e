"""The models a command line names, opened: paths, addresses, references to the Hub; with progress if it takes time."""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self, TextIO

from ggufphys.gguf import GGUFFile
from ggufphys.gguf.known import KnownArrays
from ggufphys.gguf.locate import is_remote, open_model
from ggufphys.units import format_bytes

PATIENCE_S: Final = 1.0  # nobody needs to be told about less
_HELP: Final = (
    "a GGUF file (of a split model any shard), https://..., hf:owner/repo[@revision][:file], or ollama:name[:tag]"
)


def add_model_arguments(parser: argparse.ArgumentParser, *, several: bool = False, required: bool = True) -> None:
    """MODEL as `args.model`, or with `several` MODEL... as `args.models`, and what `opened` needs to know.

    llama.cpp's flags for the model do, too: -m, -mu and -hf.
    """
    name = "models" if several else "model"
    group = parser.add_mutually_exclusive_group(required=required)
    group.add_argument(
        name, nargs="*" if several else "?", default=argparse.SUPPRESS, metavar="MODEL",
        help=f"{_HELP}; or folders and patterns of files; none: the models of this machine" if several else _HELP,
    )  # fmt: skip
    nargs = 1 if several else None
    for flags, make, text in (
        (("-m", "--model"), str, "the same, as llama.cpp has it"),
        (("-mu", "--model-url"), str, "the same, of an address"),
        (("-hf", "-hfr", "--hf-repo"), "hf:{}".format, "the same as hf:MODEL"),
    ):
        group.add_argument(
            *flags, dest=name, nargs=nargs, type=make, default=argparse.SUPPRESS, metavar="MODEL", help=text
        )
    parser.add_argument("--force", action="store_true", help="predict for a file that llama.cpp would not load, too")
    parser.add_argument(
        "--no-cache", dest="use_cache", action="store_false", help="fetch the header of a remote file again"
    )


@contextmanager
def opened(text: str, *, use_cache: bool = True, known: KnownArrays | None = None) -> Iterator[GGUFFile]:
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
