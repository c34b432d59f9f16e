"""The tokenizers that are not written here (WordPiece, Unigram, RWKV, PLaMo, ...): llama.cpp's, by vocabulary alone.

Source: llama.cpp 0c1e570 include/llama.h, llama_model_params.vocab_only, llama_tokenize, llama_token_to_piece.
"""

import ctypes
import importlib
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from ggufphys.errors import GGUFError, MissingExtraError, UnsupportedError, with_extra
from ggufphys.gguf import GGUFFile
from ggufphys.machine import llama_env

PIECE_BYTES: Final = 256  # more than almost any token has
WARN: Final = 3  # ggml_log_level
LOG_LINES: Final = 3  # of llama.cpp's log, for an error message


@contextmanager
def _log_kept(api: Any) -> Iterator[deque[str]]:
    """Keep llama.cpp's last warnings and errors. It has one logger in the process, which is then as it was before."""
    said: deque[str] = deque(maxlen=LOG_LINES)

    def keep(level: int, text: bytes, user_data: object) -> None:
        if level >= WARN:
            said.append(text.decode(errors="replace").strip())

    before, user_data = api.llama_log_callback(), ctypes.c_void_p()
    api.llama_log_get(ctypes.byref(before), ctypes.byref(user_data))
    callback = api.llama_log_callback(keep)
    api.llama_log_set(callback, None)
    try:
        yield said
    finally:
        api.llama_log_set(before, user_data)


class LlamaTokenizer:
    """llama.cpp's own tokenizer of a file, in the form of `Tokenizer`. Safe to use from any thread (llama.h).

    Raises:
        GGUFError: llama.cpp would not read the vocabulary.
        MissingExtraError: llama-cpp-python is not installed.
        UnsupportedError: the file has no vocabulary.
    """

    def __init__(self, gguf: GGUFFile) -> None:
        model = gguf.get_str("tokenizer.ggml.model", "no_vocab")
        if model in ("no_vocab", "none"):
            raise UnsupportedError(f"{gguf.path}: the file has no tokenizer, so it takes and gives tokens, not text")
        tokens = gguf.get_array("tokenizer.ggml.tokens")
        if tokens is not None and len(set(tokens.all_bytes())) < len(tokens):  # llama.cpp would abort
            raise GGUFError(f"{gguf.path}: tokenizer.ggml.tokens has a token twice, expected each once")
        try:
            llama_env.prepare()
            self._api: Any = importlib.import_module("llama_cpp")
        except ImportError as error:
            raise MissingExtraError(
                f"{gguf.path}: tokenizer {model!r} needs llama.cpp's, and llama-cpp-python is not installed ({error}): "
                + with_extra("all")
            ) from error
        native = self._api.llama_model_default_params()
        native.vocab_only, native.n_gpu_layers = True, 0
        with _log_kept(self._api) as said:
            self._model = self._api.llama_model_load_from_file(os.fsencode(gguf.shards[0].path), native)
        if not self._model:
            raise GGUFError(f"{gguf.path}: llama.cpp could not read the vocabulary: {' | '.join(said)}")
        self._vocab = self._api.llama_model_get_vocab(self._model)
        self.n_vocab = int(self._api.llama_vocab_n_tokens(self._vocab))
        self.adds_bos = bool(self._api.llama_vocab_get_add_bos(self._vocab))
        self.bos = self._special(self._api.llama_vocab_bos(self._vocab))
        self.eos = self._special(self._api.llama_vocab_eos(self._vocab))
        self.end_tokens = tuple(token for token in range(self.n_vocab) if self.ends_generation(token))
        suppressed = gguf.get_array("tokenizer.ggml.suppress_tokens")
        self.suppressed_tokens = tuple(int(token) for token in suppressed or () if 0 <= int(token) < self.n_vocab)

    def _special(self, token: int) -> int | None:
        return int(token) if 0 <= token < self.n_vocab else None

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> tuple[int, ...]:
        """As `Tokenizer.tokenize`."""
        raw = text.encode()
        size = len(raw) + 16  # a token has at least a byte, but for BOS, EOS and a prefix
        for _ in range(2):
            tokens = (ctypes.c_int32 * size)()
            n = self._api.llama_tokenize(self._vocab, raw, len(raw), tokens, size, add_special, parse_special)
            if n >= 0:
                return tuple(tokens[:n])
            size = -n
        raise AssertionError("llama_tokenize wanted more room than it said")

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """As `Tokenizer.piece`."""
        size = PIECE_BYTES
        for _ in range(2):
            buffer = ctypes.create_string_buffer(size)
            n = self._api.llama_token_to_piece(self._vocab, token, buffer, size, 0, special)
            if n >= 0:
                return buffer.raw[:n]
            size = -n
        raise AssertionError("llama_token_to_piece wanted more room than it said")

    def text(self, tokens: Iterable[int], *, special: bool = True) -> str:
        """As `Tokenizer.text`."""
        return b"".join(self.piece(token, special=special) for token in tokens).decode("utf-8", "replace")

    def ends_generation(self, token: int) -> bool:
        """As `Tokenizer.ends_generation`."""
        return bool(self._api.llama_vocab_is_eog(self._vocab, token))

    def __del__(self) -> None:
        if getattr(self, "_model", None) and not sys.is_finalizing():
            self._api.llama_model_free(self._model)
            self._model = None
