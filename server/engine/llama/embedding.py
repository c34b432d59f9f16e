"""A model that gives vectors and no text, as what an engine runs: one context, for embeddings."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from ggufphys.logs.lines import LoggedBuffer
from ggufphys.params import Params
from server.engine.backend import Peaks, Reading
from server.engine.describe import describe
from server.engine.llama.abort import AbortFlag
from server.engine.llama.adapters import Adapters
from server.engine.llama.embedder import Embedder
from server.engine.llama.handles import Model
from server.engine.llama.log import LOG
from server.engine.llama.vocab import Vocab
from server.engine.llama.waiting import Waiting
from server.engine.model_info import POOLINGS, Adapter, Pooling
from server.engine.request import ActiveAdapters
from server.engine.scheduler.slots import Layout
from server.engine.speechless import Speechless


class EmbeddingBackend(Speechless):
    """A loaded model in a context for embeddings; implements `Backend`.

    Raises:
        UnsupportedError: a model without a tokenizer.
        ValueError, EngineError: as `create_context`.
    """

    def __init__(self, model: Model, params: Params, name: str, adapters: Sequence[Adapter] = ()) -> None:
        super().__init__()
        self._model = model
        loaded = Adapters(model, adapters)
        self.words = Vocab(model)
        self._waiting = Waiting()
        self._embedder = Embedder(model, params, loaded, self._waiting)
        self._pooling: Pooling | None = None if params.pooling == "model" else params.pooling
        context = self._embedder.context(self._pooling)
        self._abort = AbortFlag(context)
        made = context.params
        self.n_texts = made.n_seq_max
        self.layout = Layout(
            n_slots=made.n_seq_max, n_ctx_seq=context.n_ctx_seq, n_cells=0, n_batch=made.n_ubatch,
            n_outputs=made.n_outputs_max, unified=True,
        )  # fmt: skip
        number = int(model.api.llama_pooling_type(context.pointer))
        pooling = next(each for each, n in POOLINGS.items() if n == number)
        info = describe(
            model.path,
            self.words,
            name=name,
            hparams=model.hparams,
            n_ctx_seq=min(context.n_ctx_seq, params.n_ctx or context.n_ctx_seq),  # without what it is rounded up by
            n_params=int(model.api.llama_model_n_params(model.pointer)),
            model_bytes=int(model.api.llama_model_size(model.pointer)),
        )
        n_embd = int(model.api.llama_model_n_embd_out(model.pointer))
        in_pieces = self._embedder.in_pieces(context)
        self.info = replace(
            info,
            n_slots=made.n_seq_max,
            n_batch=made.n_batch,
            n_embd=n_embd,
            pair=self.words.pair,
            pooling=pooling,
            adapters=tuple(adapters),
            generates=False,
            n_text_max=info.n_ctx_seq if in_pieces else min(made.n_ubatch, info.n_ctx_seq),
        )

    def buffers_since(self, mark: int) -> tuple[LoggedBuffer, ...]:
        """What llama.cpp's log says of its memory, from a mark on."""
        return LOG.buffers(mark)

    @property
    def peaks(self) -> Peaks:
        """The most that was asked of it at a time."""
        return Peaks(self._embedder.n_batch_max, 0)

    @property
    def n_nodes(self) -> int | None:
        """Nodes of graphs that the host has computed."""
        return self._abort.n_nodes

    def embed(
        self,
        prompts: Sequence[Sequence[int]],
        pooling: Pooling | None,
        adapters: ActiveAdapters,
        n_piece: Callable[[], int],
    ) -> Reading:
        """Each prompt's vectors; they are pooled as the context does, which endpoints have seen to."""
        assert pooling in (None, self.info.pooling)
        return self._embedder.embed(prompts, self._pooling, adapters, n_piece)

    def abort(self, wanted: bool) -> None:
        """Ask a pass under way to end, or later ones not to."""
        self._abort.set(wanted)

    def close(self) -> None:
        """Free context and model."""
        self._waiting.close()
        self._embedder.close()
        self._model.close()
