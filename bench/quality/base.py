"""What did the base expect? Its log-probabilities on disk, in llama-perplexity's own format, so that either reads both.

Of each judged position 16 bits a token of the vocabulary: multiples of a 65,535th of the range from 16 nats below the
likeliest token up to it.

Source: llama.cpp 0c1e570 tools/perplexity/perplexity.cpp, log_softmax, perplexity, kl_divergence.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from bench.quality.windows import Tokens, Windows
from ggufphys.errors import GGUFPhysError
from ggufphys.machine.output import whole_file
from ggufphys.units import format_bytes

U16 = npt.NDArray[np.uint16]
F64 = npt.NDArray[np.float64]
MAGIC: Final = b"_logits_"
HEAD: Final = 4
"""Numbers of 16 bits in front of a row: the step and the least log-probability, F32 both."""


class BaseFileError(GGUFPhysError):
    """The file of a base's log-probabilities is not one, or of another text or vocabulary; the message says which."""


def row_length(n_vocab: int) -> int:
    """Numbers of 16 bits that a row has."""
    return HEAD + n_vocab + n_vocab % 2


@dataclass(frozen=True, slots=True)
class Kept:
    """A base's rows, `(n_windows, n_judged, row_length)`, and -ln p of the text's tokens, `(n_windows, n_judged)`.

    A row says nothing of what lies more than 16 nats below the likeliest token, and the text's token may; so it stands
    behind the rows by itself, where llama-perplexity does not look. `nll` is None in a file that that one wrote.
    """

    rows: U16
    nll: F64 | None

    def flush(self) -> None:
        """Write to the disk."""
        for array in (self.rows, self.nll):
            if isinstance(array, np.memmap):
                array.flush()


def file_bytes(windows: Windows, n_vocab: int) -> int:
    """How long the file will be."""
    n_rows = windows.targets.size
    return _start(windows) + n_rows * (2 * row_length(n_vocab) + 8)


def _start(windows: Windows) -> int:
    return len(MAGIC) + 3 * 4 + windows.tokens.nbytes


@contextmanager
def written(path: Path, windows: Windows, n_vocab: int) -> Iterator[Kept]:
    """What is to be filled; the file is there when the block ends, or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    nbytes = file_bytes(windows, n_vocab)
    advice = f": it takes {format_bytes(nbytes)}; name a --base-file elsewhere, or give --chunks"
    with whole_file(path, makes_folder=True, advice=advice) as partial:
        with partial.open("wb") as file:
            file.write(MAGIC + np.array([windows.n_ctx, n_vocab, len(windows.tokens)], np.int32).tobytes())
            file.write(np.ascontiguousarray(windows.tokens).tobytes())
            file.flush()
            _reserve(file.fileno(), nbytes)
        kept = _mapped(partial, "r+", windows, n_vocab, has_nll=True)
        yield kept
        kept.flush()


def _reserve(file: int, nbytes: int) -> None:
    """Make a file so long, its blocks reserved: a disk that is full says so now, not by a signal while it is mapped."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, nbytes)
    else:
        os.truncate(file, nbytes)


def opened(path: Path, windows: Windows, n_vocab: int) -> Kept:
    """A file's rows, read as they are needed.

    Raises:
        BaseFileError: of another text, other windows or another vocabulary.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        magic, numbers = file.read(len(MAGIC)), np.frombuffer(file.read(12).ljust(12, b"\0"), np.int32)
        if magic != MAGIC:
            raise BaseFileError(f"{path}: no file of log-probabilities, expected one that starts with {MAGIC!r}")
        wanted = (windows.n_ctx, n_vocab, len(windows.tokens))
        for name, found, want in zip(("n_ctx", "n_vocab", "windows"), numbers.tolist(), wanted, strict=True):
            if found != want:
                raise BaseFileError(f"{path} is of {name} {found}, expected {want}: it was made for something else")
        tokens: Tokens = np.frombuffer(file.read(windows.tokens.nbytes).ljust(windows.tokens.nbytes, b"\0"), np.int32)
    if not np.array_equal(tokens, windows.tokens.reshape(-1)):
        raise BaseFileError(f"{path} is of another text or other tokens: remove it, or name another --base-file")
    expected = file_bytes(windows, n_vocab)
    size, bare = path.stat().st_size, expected - 8 * windows.targets.size
    if size not in (expected, bare):
        raise BaseFileError(f"{path} has {size:,} bytes, expected {expected:,}: it was cut off")
    return _mapped(path, "r", windows, n_vocab, has_nll=size == expected)


def _mapped(path: Path, mode: Literal["r", "r+"], windows: Windows, n_vocab: int, *, has_nll: bool) -> Kept:
    start, shape = _start(windows), windows.targets.shape
    rows: U16 = np.memmap(path, np.uint16, mode, start, (*shape, row_length(n_vocab)))
    nll: F64 | None = np.memmap(path, np.float64, mode, start + rows.nbytes, shape) if has_nll else None
    return Kept(rows, nll)
