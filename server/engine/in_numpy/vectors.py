"""An encoder in numpy as what an engine runs: a text at a time, its tokens' vectors pooled here."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

from ggufphys import GGUFFile, UnsupportedError
from ggufphys.context import ContextParams
from ggufphys.hparams.hparams import HParams
from server.engine.backend import Peaks, Reading
from server.engine.describe import describe
from server.engine.model_info import Pooling
from server.engine.pooling import POOLS, as_bytes
from server.engine.request import ActiveAdapters
from server.engine.runner import Words
from server.engine.scheduler.slots import Layout
from server.engine.speechless import Speechless

BEHIND: Final = ("dense_2.weight", "dense_3.weight")  # layers of sentence-transformers, which are not computed here


class NumpyEncoder(Protocol):
    """What is asked of refengine.Model."""

    gguf: GGUFFile
    h: HParams
    context: ContextParams

    @property
    def tokenizer(self) -> Words:
        """The model's own."""
        ...

    def embeddings(self, tokens: Sequence[int]) -> Any:
        """What it makes of each token of a text: `(n_tokens, n_embd)`."""
        ...


class NumpyVectors(Speechless):
    """Implements `Backend`.

    Raises:
        UnsupportedError: it ranks, or has layers behind the encoder.
    """

    n_texts = 1
    n_nodes = None
    peaks = Peaks()

    def __init__(self, model: NumpyEncoder, name: str, pooling: Pooling | None) -> None:
        super().__init__()
        path = model.gguf.shards[0].path
        self._model = model
        self.words: Words = model.tokenizer
        made = model.context
        info = describe(
            path,
            self.words,
            name=name,
            hparams=model.h,
            n_ctx_seq=made.n_ctx_seq,
            n_params=model.gguf.n_params,
            model_bytes=model.gguf.tensor_bytes,
        )
        pooling = pooling or info.pooling
        if pooling not in POOLS or any(name in model.gguf.tensors_by_name for name in BEHIND):
            raise UnsupportedError(
                f"{path}: the numpy engine has no classifier and no layers behind an encoder; take --engine llama.cpp"
            )
        n_max = min(made.n_ubatch, model.h.n_ctx_train or made.n_ubatch)
        self.info = replace(
            info, n_batch=made.n_batch, n_ctx_seq=n_max, n_text_max=n_max, generates=False, pooling=pooling
        )
        self.layout = Layout(n_slots=1, n_ctx_seq=n_max, n_cells=0, n_batch=n_max, n_outputs=n_max, unified=True)

    def embed(
        self,
        prompts: Sequence[Sequence[int]],
        pooling: Pooling | None,
        adapters: ActiveAdapters,
        n_piece: Callable[[], int],
    ) -> Reading:
        """Each prompt's vectors."""
        yield from ()  # a text is read at once
        assert pooling in (None, self.info.pooling)
        return [as_bytes(self._model.embeddings(tuple(prompt)), self.info.pooling) for prompt in prompts]

    def abort(self, wanted: bool) -> None:
        """A step in numpy is not ended in the middle."""
        del wanted

    def close(self) -> None:
        """Let the model go."""
        del self._model
