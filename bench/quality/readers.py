"""What does a model expect at each judged position? Logits, window after window, by llama.cpp or in numpy."""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

import numpy as np
import numpy.typing as npt

from bench.quality.windows import Tokens, Windows
from ggufphys.errors import UnsupportedError
from ggufphys.params import Params
from refengine.model import load
from server.engine.errors import EngineError
from server.engine.llama.amx import guard
from server.engine.llama.batch import Batch
from server.engine.llama.library import create_context, load_model, system_info

F32 = npt.NDArray[np.float32]
N_BATCH: Final = 2048  # llama-perplexity's: so many windows at once as fit into it
N_SEQ_MAX: Final = 64  # of very short windows
N_DECODE: Final = 32  # tokens generated to see how fast that is


class Reader(Protocol):
    """A model that reads windows. `n_vocab` is the length of a row of logits; use it in a `with`."""

    n_vocab: int
    read_s: float

    def logits(self, windows: Windows) -> Iterator[F32]:
        """Of each window `(n_judged, n_vocab)`, each valid until the next is asked for."""

    def decode_tok_per_s(self) -> float | None:
        """Tokens generated in a second, one sequence, measured now; None where that says nothing."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def params_of(n_ctx: int, *, n_threads: int = 0, type_k: str = "f16", type_v: str = "f16") -> Params:
    """How llama-perplexity runs a model for windows of `n_ctx` tokens."""
    n_seq = min(max(1, N_BATCH // n_ctx), N_SEQ_MAX)
    return Params(
        n_ctx=n_seq * n_ctx, n_batch=min(N_BATCH, n_seq * n_ctx), n_seq_max=n_seq, n_threads=n_threads,
        type_k=type_k, type_v=type_v,
    )  # fmt: skip


class LlamaReader:
    """llama.cpp, several windows at once.

    Raises:
        GGUFError: not a readable GGUF.
        UnsupportedError: no model, or one without logits.
        EngineError: llama.cpp refuses the model.
        ValueError: it would refuse the parameters.
    """

    def __init__(self, path: Path, params: Params) -> None:
        params, warning = guard(params, info=system_info())
        if warning:
            print(f"note: {warning}", file=sys.stderr)
        with ExitStack() as stack:
            model = stack.enter_context(load_model(path, params))
            self._context = stack.enter_context(create_context(model, params))
            self._batch = stack.enter_context(Batch(self._context, self._context.params.n_batch))
            self._stack = stack.pop_all()
        self.path = path
        self.n_vocab = int(model.api.llama_vocab_n_tokens(model.vocab))
        self.read_s = 0.0

    def logits(self, windows: Windows) -> Iterator[F32]:
        """As `Reader.logits`."""
        read, n_seq = windows.read, self._context.params.n_seq_max
        for start in range(0, len(read), n_seq):
            rows = self._group(read[start : start + n_seq], windows.first)
            for window in rows:
                yield window[: windows.n_judged]

    def _group(self, read: Tokens, first: int) -> F32:
        """Logits of the positions from `first` on, of windows read side by side: `(n, n_ctx - first, n_vocab)`."""
        n, n_ctx = read.shape
        step = self._batch.capacity // n if n > 1 else self._batch.capacity
        self._context.clear()
        parts = []
        for at in range(0, n_ctx, step):
            until = min(at + step, n_ctx)
            silent = min(max(first, at), until)
            self._batch.clear()
            for seq, tokens in enumerate(read):
                if at < silent:
                    self._batch.add(tokens[at:silent].tolist(), seq_id=seq, start=at, logits_of_last=False)
                if silent < until:
                    self._batch.add(
                        tokens[silent:until].tolist(), seq_id=seq, start=silent,
                        logits_of_last=True, logits_of_all=True,
                    )  # fmt: skip
            self._decode()
            if silent < until:
                parts.append(self._rows(n * (until - silent)).reshape(n, until - silent, self.n_vocab))
                if until < n_ctx:  # the next call of llama_decode overwrites them
                    parts[-1] = parts[-1].copy()
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _decode(self) -> None:
        began = time.perf_counter()
        code = self._batch.decode(self._context)
        self.read_s += time.perf_counter() - began
        if code:
            raise EngineError(f"{self.path}: llama_decode gave {code} for a batch of {self._batch.n_tokens} tokens")

    def _rows(self, n: int) -> F32:
        pointer = self._context.api.llama_get_logits(self._context.pointer)
        if not pointer:
            raise UnsupportedError(f"{self.path}: llama.cpp gave no logits: an encoder has nothing to be judged by")
        return np.ctypeslib.as_array(pointer, (n, self.n_vocab))

    def decode_tok_per_s(self) -> float | None:
        """As `Reader.decode_tok_per_s`: likeliest tokens, from an empty cache."""
        self._context.clear()
        token, seconds = 0, list[float]()
        for position in range(min(N_DECODE, self._context.n_ctx_seq)):
            self._batch.clear()
            self._batch.add([token], seq_id=0, start=position, logits_of_last=True)
            began = time.perf_counter()
            self._decode()
            seconds.append(time.perf_counter() - began)
            token = int(self._rows(1)[0].argmax())
        return 1 / float(np.median(seconds))

    def close(self) -> None:
        """Free the context and the model; harmless when done already."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class NumpyReader:
    """The numpy engine, everything in F32: weights as they are in the file, sums and caches exact to F32.

    Raises as `refengine.model.load` does.
    """

    def __init__(self, path: Path, n_ctx: int) -> None:
        self._model = load(path, type_k="f32", type_v="f32", n_ctx=n_ctx, hold="f32")
        self.path = path
        self.n_vocab = self._model.h.n_vocab
        self.read_s = 0.0

    def logits(self, windows: Windows) -> Iterator[F32]:
        """As `Reader.logits`."""
        for tokens in windows.read:
            began = time.perf_counter()
            rows = self._model.logits(tokens.tolist())
            self.read_s += time.perf_counter() - began
            yield rows[windows.first : windows.first + windows.n_judged]

    def decode_tok_per_s(self) -> float | None:
        """None: nobody serves with it for its speed."""
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass
