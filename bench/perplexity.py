"""How probable does llama.cpp find a text? Token by token, through the server's own engine code."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from ggufphys.params import Params
from server.engine.batch import Batch
from server.engine.errors import EngineError
from server.engine.library import create_context, load_model
from server.engine.vocab import Vocab

N_BATCH: Final = 256
"""Tokens a call of llama_decode; bounds the logits held at once to `(N_BATCH, n_vocab)`."""

Tokens = npt.NDArray[np.int32]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


class Scorer:
    """A model in llama.cpp that tells how probable each token of a text is. Use as a context manager.

    Weights are used as stored (no repacking), so that a figure does not depend on the processor's repacked kernels.

    Args:
        path: the GGUF file.
        n_ctx: tokens the model may look at, itself included; 0 takes the trained length.
        n_threads: 0 means one for each physical core.

    Raises:
        GGUFError: not a readable GGUF.
        UnsupportedError: the file is no model, or has no tokenizer.
        EngineError: llama.cpp refuses the model.
    """

    def __init__(self, path: Path, *, n_ctx: int = 0, n_threads: int = 0) -> None:
        params = Params(n_ctx=n_ctx, n_batch=N_BATCH, n_ubatch=N_BATCH, n_threads=n_threads, use_extra_bufts=False)
        with ExitStack() as stack:
            model = stack.enter_context(load_model(path, params))
            self.vocab = Vocab(model)
            self._context = stack.enter_context(create_context(model, params))
            self._batch = stack.enter_context(Batch(self._context, min(N_BATCH, self._context.params.n_batch)))
            self._stack = stack.pop_all()
        self.path = path
        self.n_ctx = n_ctx or model.hparams.n_ctx_train
        self.bos = -1 if self.vocab.bos is None else self.vocab.bos

    def tokenize(self, text: str) -> Tokens:
        """The text's tokens, `(n,)`, as the model's own settings make them: a beginning token in front only where
        `tokenizer.ggml.add_bos_token` (or its tokenizer's default) wants one. What looks like a control token is text.

        Source: llama.cpp 0c1e570 tools/perplexity/perplexity.cpp, perplexity: common_tokenize with add_special.
        """
        return np.array(self.vocab.tokenize(text, add_special=True, parse_special=False), np.int32)

    def log_probabilities(self, tokens: Tokens, progress: Callable[[int], None] = lambda n: None) -> F64:
        """Ln p of each token but the first given those before it, `(n - 1,)`, in nats.

        Beyond `n_ctx` the window moves by half its length, so that every later token is judged with at least
        `n_ctx / 2` tokens in view. `progress` is told of each part how many tokens were judged.
        """
        parts, start, judged = [np.empty(0)], 0, 1  # tokens[:judged] need no judgement (any more)
        while judged < len(tokens):
            end = min(start + self.n_ctx, len(tokens) - 1)
            parts.append(self._window(tokens, start, end, judged))
            progress(len(parts[-1]))
            judged, start = end + 1, end + 1 - self.n_ctx // 2
        return np.concatenate(parts)

    def _window(self, tokens: Tokens, start: int, end: int, judged: int) -> F64:
        """Read tokens[start:end] from an empty cache; ln p of tokens[judged:end + 1]."""
        self._context.clear()
        read = tokens[start:end].copy()
        if self.vocab.adds_bos:
            read[0] = self.bos  # a model that was trained so is lost without it; one token of the view is its price
        parts = []
        for at in range(start, end, self._batch.capacity):
            until = min(at + self._batch.capacity, end)
            first = max(at, judged - 1)  # the first position whose prediction is asked for
            rows = self._decode(read[at - start : until - start], at - start, max(until - first, 0))
            if len(rows):
                parts.append(_log_softmax_at(rows, tokens[first + 1 : until + 1]))
        return np.concatenate(parts)

    def _decode(self, tokens: Tokens, position: int, n_outputs: int) -> F32:
        """The logits after each of the last `n_outputs` tokens, `(n_outputs, n_vocab)`: valid until the next call."""
        batch, silent = self._batch, len(tokens) - n_outputs
        batch.clear()
        if silent:
            batch.add(tokens[:silent].tolist(), seq_id=0, start=position, logits_of_last=False)
        for index in range(silent, len(tokens)):
            batch.add([int(tokens[index])], seq_id=0, start=position + index, logits_of_last=True)
        code = batch.decode(self._context)
        if code != 0:
            raise EngineError(f"{self.path}: llama_decode gave {code} for {len(tokens)} tokens at position {position}")
        if not n_outputs:
            return np.empty((0, self.vocab.n_vocab), np.float32)
        logits = self._context.api.llama_get_logits(self._context.pointer)
        return np.ctypeslib.as_array(logits, (n_outputs, self.vocab.n_vocab))

    def close(self) -> None:
        """Free the context and the model; harmless when done already."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _log_softmax_at(rows: F32, tokens: Tokens) -> F64:
    """Ln softmax(row)[token] for each row of `(n, n_vocab)` and its token, `(n,)`."""
    logits = rows.astype(np.float64)
    top = logits.max(axis=1, keepdims=True)
    log_sums = top[:, 0] + np.log(np.exp(logits - top).sum(axis=1))
    picked: F64 = logits[np.arange(len(tokens)), tokens] - log_sums
    return picked
