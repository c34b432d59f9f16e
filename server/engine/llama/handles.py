"""llama.cpp's pointers with an owner: a model and its contexts, freed once and in the right order."""

import ctypes
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

from ggufphys.context import ContextParams
from ggufphys.hparams.hparams import HParams
from server.engine.scheduler.slots import Kind


class Model:
    """A loaded model (`llama_model *`). Close it, or use it in a `with`; closing it closes its contexts first."""

    def __init__(self, api: ModuleType, pointer: int, path: Path, hparams: HParams) -> None:
        self.api = api
        self.pointer = pointer
        self.path = path
        self.hparams = hparams
        self.contexts: list[Context] = []

    @property
    def vocab(self) -> int:
        """`llama_vocab *`, owned by the model."""
        return int(self.api.llama_model_get_vocab(self.pointer))

    def close(self) -> None:
        """Free the model and its contexts; a second call does nothing."""
        for context in list(self.contexts):
            context.close()
        pointer, self.pointer = self.pointer, 0  # first: Ctrl-C comes when the call is over, and frees nothing twice
        if pointer:
            self.api.llama_model_free(pointer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Context:
    """A context of a model (`llama_context *`): KV cache and buffers. `params` is what llama.cpp made of the request.

    Only one thread may use it.
    """

    def __init__(self, model: Model, pointer: int, params: ContextParams, n_threads: int) -> None:
        self.api = model.api
        self.model = model
        self.pointer = pointer
        self.params = params
        self.n_threads = n_threads
        # llama.cpp's own word on the length, should its rounding ever differ from ours.
        self.n_ctx_seq = int(self.api.llama_n_ctx_seq(pointer))
        # Keep what llama.cpp calls back into alive as long as it may call.
        self.callbacks: list[Callable[..., Any]] = []
        self.kept: list[object] = []  # what these are given
        model.contexts.append(self)
        # As a number: the pointer object that ctypes would make takes as long as to look at a row.
        get_logits = self.api.llama_cpp._lib["llama_get_logits"]  # a new object each time: the other keeps its types
        get_logits.restype, get_logits.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
        self._logits_address: Callable[[int], int | None] = get_logits

    def logits_address(self) -> int:
        """Where the rows of logits of the last batch lie, float32, when they are there: waits for them."""
        return self._logits_address(self.pointer) or 0

    @property
    def memory(self) -> int:
        """`llama_memory_t`: the KV cache or recurrent state; 0 when the model has none (an encoder)."""
        return int(self.api.llama_get_memory(self.pointer) or 0)

    @property
    def kind(self) -> Kind:
        """What memory keeps of a sequence: a recurrent state is the last one only, a window's cache drops the rest."""
        api, model = self.api, self.model.pointer
        if api.llama_model_is_recurrent(model) or api.llama_model_is_hybrid(model):
            return "recurrent"
        return "window" if api.llama_model_n_swa(model) > 0 and not self.params.swa_full else "full"

    def resumable(self, seq_id: int, n_tokens: int) -> bool:
        """Whether a windowed cache still has all that the position behind `n_tokens` looks at.

        Source: llama.cpp 0c1e570 src/llama-kv-cache.cpp, apply_ubatch: positions from seq_pos_min to seq_pos_max are
        all there; src/llama-hparams.h, is_masked_swa: a window is the last n_swa positions, or less.
        """
        n_swa = int(self.api.llama_model_n_swa(self.model.pointer))
        first = int(self.api.llama_memory_seq_pos_min(self.memory, seq_id))
        return 0 <= first <= max(0, n_tokens - n_swa)

    def copy(self, source: int, target: int, n_tokens: int) -> None:
        """Give an empty sequence the first tokens of another one.

        Between streams of a divided cache llama.cpp copies whole ones only, and aborts if asked for part of one.
        """
        n_seq_max = self.params.n_seq_max
        assert 0 <= source < n_seq_max
        assert 0 <= target < n_seq_max
        end = n_tokens if self.params.kv_unified and self.kind != "recurrent" else -1
        self.api.llama_memory_seq_cp(self.memory, source, target, 0 if end > 0 else -1, end)
        if end < 0 and self.kind != "recurrent":
            self.remove(target, n_tokens)

    def remove(self, seq_id: int, start: int) -> bool:
        """Drop the sequence's positions from `start` on; False when this memory cannot cut a sequence (recurrent)."""
        assert 0 <= seq_id < self.params.n_seq_max  # llama_memory_seq_rm asserts it
        return bool(self.api.llama_memory_seq_rm(self.memory, seq_id, start, -1))

    def n_past(self, seq_id: int) -> int:
        """How many positions of the sequence are in memory: where its next token goes."""
        assert 0 <= seq_id < self.params.n_seq_max
        return int(self.api.llama_memory_seq_pos_max(self.memory, seq_id)) + 1

    def clear(self) -> None:
        """Forget every sequence. The cells' bytes are left as they are: nothing reads them."""
        self.api.llama_memory_clear(self.memory, False)

    def close(self) -> None:
        """Free the context; a second call does nothing."""
        pointer, self.pointer = self.pointer, 0  # first, as above
        if pointer:
            self.model.contexts.remove(self)
            self.api.llama_free(pointer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
