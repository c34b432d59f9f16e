"""Images and sounds to embeddings and into memory: llama.cpp's libmtmd, called where it cannot abort.

Source: llama.cpp 0c1e570 tools/mtmd/mtmd.h, mtmd-helper.h; tools/server/server-context.cpp, process_mtmd_chunk.
"""

import ctypes
import os
import threading
from collections import OrderedDict
from types import ModuleType
from typing import Any, Final

from server.engine.errors import EngineError
from server.engine.llama.handles import Context, Model
from server.engine.llama.library import load_media_library
from server.engine.llama.log import LOG
from server.engine.media import Encoder, Read, Span, joined, placeholders

N_KEPT: Final = 8  # files whose pieces are kept, so that they are not cut again when their turn comes
MARKER: Final = b"<media>"


class Pieces:
    """What a file is cut into (`mtmd_input_chunks *`): text and pieces to encode, in turn. Freed when nobody has it."""

    def __init__(self, api: ModuleType, pointer: int) -> None:
        self._api, self._pointer = api, pointer
        self.all = [api.mtmd_input_chunks_get(pointer, i) for i in range(api.mtmd_input_chunks_size(pointer))]
        self.media = [
            each for each in self.all if api.mtmd_input_chunk_get_type(each) != api.MTMD_INPUT_CHUNK_TYPE_TEXT
        ]

    def __del__(self) -> None:
        self._api.mtmd_input_chunks_free(self._pointer)


class Encoding:
    """An encoder beside a model and its context. `read` may be called from any thread, `evaluate` from the loop's.

    Raises:
        EngineError: llama.cpp could not load it; the message quotes its log.
    """

    def __init__(self, encoder: Encoder, model: Model, context: Context) -> None:
        self._api = api = load_media_library()
        native = api.mtmd_context_params_default()
        native.use_gpu, native.print_timings = encoder.offload, False  # warmed up, so that its buffer is there
        native.n_threads, native.media_marker = context.n_threads, MARKER
        native.flash_attn_type = (
            model.api.LLAMA_FLASH_ATTN_TYPE_ENABLED if context.params.flash_attn
            else model.api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )  # fmt: skip
        native.image_min_tokens = encoder.image_min_tokens or native.image_min_tokens
        native.image_max_tokens = encoder.image_max_tokens or native.image_max_tokens
        mark = LOG.mark
        self._pointer: Any = api.mtmd_init_from_file(os.fsencode(encoder.path), model.pointer, native)
        if not self._pointer:
            raise EngineError(f"{encoder.path}: llama.cpp could not load the encoder; {LOG.quote(mark)}")
        self._context = context
        self.sees = bool(api.mtmd_support_vision(self._pointer))
        self.hears = bool(api.mtmd_support_audio(self._pointer))
        self.is_encoding = False
        self._kept: OrderedDict[bytes, Pieces] = OrderedDict()
        self._lock = threading.Lock()  # over what is kept
        self._encoded: tuple[bytes, int] | None = None  # whose embeddings are there

    def read(self, file: bytes) -> Read:
        """The tokens of a file's pieces and of the text around them.

        Raises:
            ValueError: it is no image or sound that can be read, or has more tokens than are evaluated together.
        """
        pieces, api, found, part = self._pieces(file), self._api, list[Read](), 0
        for each in pieces.all:
            n = int(api.mtmd_input_chunk_get_n_tokens(each))
            if each not in pieces.media:
                tokens = api.mtmd_input_chunk_get_tokens_text(each, ctypes.byref(ctypes.c_size_t(0)))
                found.append(Read(tokens=tuple(tokens[:n])))
                continue
            self._check(each, n)
            span = Span(start=0, n_tokens=n, n_pos=int(api.mtmd_input_chunk_get_n_pos(each)), file=file, part=part)
            found.append(Read(tokens=placeholders(file, part, n), spans=(span,)))
            part += 1
        return joined(found)

    def _check(self, piece: Any, n_tokens: int) -> None:
        """llama_decode asserts that tokens which see one another are in one ubatch."""
        made = self._context.params
        n_max = min(made.n_batch, made.n_ubatch)
        if n_tokens > n_max and self._api.mtmd_decode_use_non_causal(self._pointer, piece):
            raise ValueError(
                f"it has {n_tokens} tokens, which this model reads at once, and {n_max} are evaluated at once: start "
                f"the server with --batch-size and --ubatch-size of {n_tokens} or more"
            )

    def _pieces(self, file: bytes) -> Pieces:
        with self._lock:
            if file in self._kept:
                self._kept.move_to_end(file)
                return self._kept[file]
        pieces = self._cut(file)
        with self._lock:
            self._kept[file] = pieces
            while len(self._kept) > N_KEPT:
                self._kept.popitem(last=False)
        return pieces

    def _cut(self, file: bytes) -> Pieces:
        api, mark = self._api, LOG.mark
        buffer = (ctypes.c_uint8 * len(file)).from_buffer_copy(file)
        bitmap = api.mtmd_helper_bitmap_init_from_buf(self._pointer, buffer, len(file), False)
        if not bitmap:
            raise ValueError(f"it could not be read; {LOG.quote(mark)}")
        chunks = api.mtmd_input_chunks_init()
        text = api.mtmd_input_text(MARKER, len(MARKER), False, True)
        code = api.mtmd_tokenize(self._pointer, chunks, ctypes.byref(text), (ctypes.c_void_p * 1)(bitmap), 1)
        api.mtmd_bitmap_free(bitmap)
        pieces = Pieces(api, chunks)
        if code or not pieces.media:
            raise ValueError(f"it could not be cut into pieces; {LOG.quote(mark)}")
        return pieces

    def evaluate(self, span: Span, *, position: int, slot: int) -> int:
        """Encode it and put it into a slot's memory at a position: llama_decode's code.

        Raises:
            EngineError: it could not be encoded.
        """
        piece = self._pieces(span.file).media[span.part]
        api, mark = self._api, LOG.mark
        if self._encoded != (span.file, span.part):
            self._encoded, self.is_encoding = None, True
            try:
                code = api.mtmd_encode_chunk(self._pointer, piece)
            finally:
                self.is_encoding = False
            if code:
                raise EngineError(f"llama.cpp could not encode an image or sound (code {code}); {LOG.quote(mark)}")
            self._encoded = span.file, span.part
        behind = ctypes.c_int32(0)
        embeddings = api.mtmd_get_output_embd(self._pointer)
        return int(
            api.mtmd_helper_decode_image_chunk(
                self._pointer, self._context.pointer, piece, embeddings, position, slot, self._context.params.n_batch,
                ctypes.byref(behind), api.mtmd_helper_post_decode_callback(), None,
            )
        )  # fmt: skip

    def close(self) -> None:
        """Free the encoder; a second call does nothing."""
        self._kept.clear()
        pointer, self._pointer = self._pointer, None
        if pointer:
            self._api.mtmd_free(pointer)
