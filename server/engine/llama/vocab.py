"""Text to tokens and back, through the model's own tokenizer. Safe to use from any thread (llama.h)."""

import ctypes
import functools
from collections.abc import Iterable
from types import ModuleType

from ggufphys import UnsupportedError
from server.engine.errors import EngineError
from server.engine.llama.handles import Model
from server.engine.model_info import InfillTokens

TYPE_NONE = 0  # LLAMA_VOCAB_TYPE_NONE: every tokenizer call on it aborts
MAX_PIECE_BYTES = 256


class Vocab:
    """The tokenizer of a model.

    Raises:
        UnsupportedError: the model has none (`no_vocab`).
    """

    def __init__(self, model: Model) -> None:
        self._api: ModuleType = model.api
        self.pointer = model.vocab
        self._model = model  # the pointer is the model's
        if self._api.llama_vocab_type(self.pointer) == TYPE_NONE:
            raise UnsupportedError(f"{model.path}: the file has no tokenizer, so text cannot be served from it")
        self.n_vocab = int(self._api.llama_vocab_n_tokens(self.pointer))
        self.adds_bos = bool(self._api.llama_vocab_get_add_bos(self.pointer))
        self.bos = self._special(self._api.llama_vocab_bos(self.pointer))
        self.eos = self._special(self._api.llama_vocab_eos(self.pointer))

    def _special(self, token: int) -> int | None:
        return int(token) if 0 <= token < self.n_vocab else None

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> tuple[int, ...]:
        """Tokens of a text; `add_special` puts BOS or EOS where the model wants them, `parse_special` reads
        `<|im_start|>` and the like as the tokens they name.

        Raises:
            UnicodeEncodeError: the text has lone surrogates, so it is no Unicode text.
            EngineError: llama.cpp cannot tokenize it.
        """
        raw = text.encode()
        size = len(raw) + 16  # a token has at least a byte, but for BOS, EOS and an SPM prefix
        for _ in range(2):
            tokens = (ctypes.c_int32 * size)()
            n = self._api.llama_tokenize(self.pointer, raw, len(raw), tokens, size, add_special, parse_special)
            if n >= 0:
                return tuple(tokens[:n])
            size = -n
        raise EngineError(f"llama.cpp cannot tokenize this text of {len(raw)} bytes")

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes a token stands for: any part of a character, and none for control tokens unless `special`."""
        buffer = ctypes.create_string_buffer(MAX_PIECE_BYTES)
        n = self._api.llama_token_to_piece(self.pointer, token, buffer, MAX_PIECE_BYTES, 0, special)
        if n < 0:
            buffer = ctypes.create_string_buffer(-n)
            n = self._api.llama_token_to_piece(self.pointer, token, buffer, -n, 0, special)
        return buffer.raw[: max(n, 0)]

    def text(self, tokens: tuple[int, ...], *, special: bool = True) -> str:
        """The text of a whole token sequence."""
        return b"".join(self.piece(token, special=special) for token in tokens).decode("utf-8", "replace")

    def ends_generation(self, token: int) -> bool:
        """Whether the token ends a generation (EOS, EOT, EOM, ...)."""
        return bool(self._api.llama_vocab_is_eog(self.pointer, token))

    @property
    def infill(self) -> InfillTokens | None:
        """What the file's tokenizer calls for a middle, None where one of the three is missing."""
        api = self._api
        prefix, suffix, middle, repo, separator = (
            self._special(read(self.pointer))
            for read in (
                api.llama_vocab_fim_pre, api.llama_vocab_fim_suf, api.llama_vocab_fim_mid, api.llama_vocab_fim_rep,
                api.llama_vocab_fim_sep,
            )
        )  # fmt: skip
        if prefix is None or suffix is None or middle is None:
            return None
        return InfillTokens(prefix=prefix, suffix=suffix, middle=middle, repo=repo, separator=separator)

    @property
    def pair(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """What stands before, between and behind two texts that are read together.

        Source: llama.cpp 0c1e570 tools/server/server-common.cpp, format_prompt_rerank.
        """
        api = self._api
        separator = self._special(api.llama_vocab_sep(self.pointer))
        end = self.eos if self.eos is not None else separator
        ends = (end,) if api.llama_vocab_get_add_eos(self.pointer) else ()
        separates = (separator,) if api.llama_vocab_get_add_sep(self.pointer) else ()
        before, between = (self.bos,) if self.adds_bos else (), (*ends, *separates)
        return _there(before), _there(between), _there(ends)

    @functools.cached_property
    def end_tokens(self) -> tuple[int, ...]:
        """Every token that ends a generation."""
        return tuple(token for token in range(self.n_vocab) if self.ends_generation(token))

    @functools.cached_property
    def suppressed_tokens(self) -> tuple[int, ...]:
        """Tokens the file says are never to be generated (tokenizer.ggml.suppress_tokens)."""
        count = ctypes.c_int32(0)
        tokens = self._api.llama_vocab_get_suppress_tokens(self.pointer, ctypes.byref(count))
        return tuple(tokens[: count.value]) if count.value > 0 else ()


def _there(tokens: Iterable[int | None]) -> tuple[int, ...]:
    return tuple(token for token in tokens if token is not None)
