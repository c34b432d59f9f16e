"""How is a cache filled with thousands of tokens in no time? Its saved state, with the few cells there are repeated.

What attention takes depends on how many cells are visible, not on what is in them.

Source: llama.cpp 0c1e570 src/llama-context.cpp, state_seq_set_data; src/llama-kv-cache.cpp, state_write,
state_write_meta, state_write_data; src/llama-kv-cache-iswa.cpp, state_write (all positions first, then windows).
"""

import ctypes
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from ggufphys.arch import rule_for
from ggufphys.arch.caches import RecurrentState, WindowKV
from ggufphys.hparams.hparams import HParams


class UnfillableError(Exception):
    """A state that is not of the known form: the cache must be filled by reading a prompt."""


def fill(context: Any, n_tokens: int, hparams: HParams) -> None:
    """Make the first sequence, which has a few tokens, one of `n_tokens`.

    Raises:
        UnfillableError: its state has another form, or was not taken back.
    """
    layers = rule_for(hparams.arch).layers(hparams)
    windows = {cache.n_swa for layer in layers for cache in layer if isinstance(cache, WindowKV)}
    if any(isinstance(cache, RecurrentState) for layer in layers for cache in layer) or len(windows) > 1:
        raise UnfillableError("a recurrent state, or windows of several lengths")
    api, pointer = context.api, context.pointer
    size = int(api.llama_state_seq_get_size(pointer, 0))
    old = (ctypes.c_uint8 * size)()
    api.llama_state_seq_get_data(pointer, old, size, 0)
    n_cells = (n_tokens, *(min(n_tokens, window) for window in windows))
    try:
        new = grown(bytes(old), n_tokens, n_cells)
    except struct.error as error:
        raise UnfillableError(f"a state that ends early ({error})") from None
    buffer = (ctypes.c_uint8 * len(new)).from_buffer_copy(new)
    if not api.llama_state_seq_set_data(pointer, buffer, len(new), 0):
        raise UnfillableError("llama.cpp did not take the state")


def grown(state: bytes, n_tokens: int, n_cells: Sequence[int]) -> bytes:
    """The state of a sequence of `n_tokens`, of whose last ones each cache keeps so many.

    Raises:
        UnfillableError: it has another form.
    """
    reader = _Reader(state)
    parts = [reader.take(8)]  # the magic number, the sequence
    for n in n_cells:
        parts += _grown_cache(reader, n_tokens, n)
    if reader.at != len(state):
        raise UnfillableError(f"{len(state) - reader.at} bytes behind the last cache")
    return b"".join(parts)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, n: int) -> bytes:
        self.at += n
        if self.at > len(self.data):
            raise UnfillableError("a state that ends early")
        return self.data[self.at - n : self.at]

    def number(self, kind: str) -> int:
        (value,) = struct.unpack(kind, self.take(struct.calcsize(kind)))
        return int(value)


def _grown_cache(reader: _Reader, n_tokens: int, n_new: int) -> Iterator[bytes]:
    n_stream = reader.number("<I")
    yield struct.pack("<I", n_stream)
    for _ in range(n_stream):
        n_old = reader.number("<I")
        if not n_old:
            yield struct.pack("<I", 0)
            continue
        yield struct.pack("<I", n_new)
        n_seq_ids = 0
        for _ in range(n_old):
            reader.take(4)
            n_seq_ids = reader.number("<I")
            reader.take(4 * n_seq_ids)
        yield b"".join(struct.pack("<iIi", pos, 1, 0) for pos in range(n_tokens - n_new, n_tokens))
        v_trans, n_layer = reader.number("<I"), reader.number("<I")
        if v_trans or n_seq_ids > 1:
            raise UnfillableError("values that are stored transposed")
        yield struct.pack("<II", v_trans, n_layer)
        for _ in range(2 * n_layer):
            yield reader.take(4)
            row = reader.number("<Q")
            yield struct.pack("<Q", row)
            cells = reader.take(row * n_old)
            yield (cells * -(-n_new // n_old))[: row * n_new]
