"""How probable does llama.cpp find a text? Token by token, through the low-level API."""

import ctypes
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ggufphys import llama_env
from ggufphys.errors import GGUFPhysError
from ggufphys.gguf import open_gguf

llama_env.prepare()

import llama_cpp  # noqa: E402  (the environment must stand first)

N_BATCH = 256
"""Tokens a call of llama_decode; bounds the logits held at once to `(N_BATCH, n_vocab)`."""

Tokens = npt.NDArray[np.int32]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


class ScoreError(GGUFPhysError):
    """llama.cpp could not load or run the model; the message says at which step, and what it logged."""


class Scorer:
    """A model in llama.cpp that tells how probable each token of a text is. Use as a context manager.

    Weights are used as stored (no repacking), so that a figure does not depend on the processor's repacked kernels.

    Args:
        path: the GGUF file.
        n_ctx: tokens the model may look at, itself included; 0 takes the trained length.
        n_threads: 0 means one for each core.

    Raises:
        GGUFError: not a readable GGUF.
        ScoreError: llama.cpp refuses the model, or it has no tokenizer.
    """

    def __init__(self, path: Path, *, n_ctx: int = 0, n_threads: int = 0) -> None:
        with open_gguf(path):  # says what is wrong with a bad file better than llama.cpp's log does
            pass
        self._log: list[str] = []
        self._on_log = llama_cpp.llama_log_callback(self._keep_errors)
        llama_cpp.llama_log_set(self._on_log, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self.path = path
        self._model: Any = None
        self._context: Any = None
        try:
            self._load(n_ctx, n_threads or os.cpu_count() or 1)
        except BaseException:
            self.close()
            raise

    def _load(self, n_ctx: int, n_threads: int) -> None:
        model_params = llama_cpp.llama_model_default_params()
        model_params.use_extra_bufts = False
        self._model = llama_cpp.llama_model_load_from_file(os.fsencode(self.path), model_params)
        if not self._model:
            raise self._error("load the model")
        self.vocab: Any = llama_cpp.llama_model_get_vocab(self._model)
        self.n_vocab: int = llama_cpp.llama_vocab_n_tokens(self.vocab)
        if llama_cpp.llama_vocab_type(self.vocab) == llama_cpp.LLAMA_VOCAB_TYPE_NONE:
            raise ScoreError(f"{self.path} has no tokenizer: perplexity of a text needs one")
        self.bos: int = llama_cpp.llama_vocab_bos(self.vocab)
        self._add_bos: bool = llama_cpp.llama_vocab_get_add_bos(self.vocab)
        self.n_ctx: int = n_ctx or llama_cpp.llama_model_n_ctx_train(self._model)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = self.n_ctx
        params.n_batch = params.n_ubatch = N_BATCH
        params.n_threads = params.n_threads_batch = n_threads
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        if not self._context:
            raise self._error(f"create a context of {self.n_ctx} tokens")

    def tokenize(self, text: str) -> Tokens:
        """Return the text's tokens, `(n,)`, nothing added; text that looks like a control token stays text."""
        raw = text.encode()
        buffer = (llama_cpp.llama_token * (len(raw) + 8))()
        n_tokens = llama_cpp.llama_tokenize(self.vocab, raw, len(raw), buffer, len(buffer), False, False)
        if n_tokens < 0:
            raise self._error("tokenize a text")
        return np.array(buffer[:n_tokens], np.int32)

    def log_probabilities(self, tokens: Tokens) -> F64:
        """Return ln p of each token given those before it, `(n,)`, in nats.

        The text is read as a document of its own: the model's beginning token stands before the first (a model without
        one can't say how probable the first is: then it is `(n - 1,)`). Beyond `n_ctx` the window moves by half its
        length, so that every later token is judged with at least `n_ctx / 2` tokens in view.
        """
        if self.bos >= 0:
            tokens = np.concatenate([np.array([self.bos], np.int32), tokens])
        parts, start, judged = [np.empty(0)], 0, 1  # tokens[:judged] need no judgement (any more)
        while judged < len(tokens):
            end = min(start + self.n_ctx, len(tokens) - 1)
            parts.append(self._window(tokens, start, end, judged))
            judged, start = end + 1, end + 1 - self.n_ctx // 2
        return np.concatenate(parts)

    def _window(self, tokens: Tokens, start: int, end: int, judged: int) -> F64:
        """Read tokens[start:end] from an empty cache; return ln p of tokens[judged:end + 1]."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        read = tokens[start:end].copy()
        if self._add_bos:
            read[0] = self.bos  # a model that was trained so is lost without it; one token of the view is its price
        parts = []
        for at in range(start, end, N_BATCH):
            until = min(at + N_BATCH, end)
            first = max(at, judged - 1)  # the first position whose prediction is asked for
            rows = self._decode(read[at - start : until - start], at - start, max(until - first, 0))
            if len(rows):
                parts.append(_log_softmax_at(rows, tokens[first + 1 : until + 1]))
        return np.concatenate(parts)

    def _decode(self, tokens: Tokens, position: int, n_outputs: int) -> F32:
        """Return the logits after each of the last `n_outputs` tokens, `(n_outputs, n_vocab)`: valid until the next."""
        n_tokens = len(tokens)
        batch = llama_cpp.llama_batch_init(n_tokens, 0, 1)
        try:
            batch.n_tokens = n_tokens
            for index, token in enumerate(tokens):
                batch.token[index] = int(token)
                batch.pos[index] = position + index
                batch.n_seq_id[index] = 1
                batch.seq_id[index][0] = 0
                batch.logits[index] = index >= n_tokens - n_outputs
            code = llama_cpp.llama_decode(self._context, batch)
        finally:
            llama_cpp.llama_batch_free(batch)
        if code != 0:
            raise self._error(f"decode {n_tokens} tokens at position {position} (llama_decode gave {code})")
        if not n_outputs:
            return np.empty((0, self.n_vocab), np.float32)
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits(self._context), (n_outputs, self.n_vocab))

    def close(self) -> None:
        """Free the context and the model; harmless when done already."""
        if self._context:
            llama_cpp.llama_free(self._context)
        if self._model:
            llama_cpp.llama_model_free(self._model)
        self._context = self._model = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _keep_errors(self, level: int, text: bytes, _: object) -> None:
        if level == 3:  # GGML_LOG_LEVEL_ERROR
            self._log.append(text.decode(errors="replace").strip())

    def _error(self, step: str) -> ScoreError:
        said = "; ".join(self._log[-3:]) or "its log says nothing"
        return ScoreError(f"llama.cpp could not {step}, {self.path}: {said}")


def _log_softmax_at(rows: F32, tokens: Tokens) -> F64:
    """Return ln softmax(row)[token] for each row of `(n, n_vocab)` and its token, `(n,)`."""
    logits = rows.astype(np.float64)
    top = logits.max(axis=1, keepdims=True)
    log_sums = top[:, 0] + np.log(np.exp(logits - top).sum(axis=1))
    picked: F64 = logits[np.arange(len(tokens)), tokens] - log_sums
    return picked
