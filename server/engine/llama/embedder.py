"""Vectors of texts, from contexts for embeddings over the loaded model.

Source: llama.cpp 0c1e570 src/llama-context.cpp, decode, encode (embeddings make every token an output, and all tokens
of an encoder's batch must be in one physical batch: it aborts else); a sequence that is pooled lies in one, too.
"""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, Final

from ggufphys.arch import rule_for
from ggufphys.params import Params
from server.engine.backend import Reading
from server.engine.checks import embeds_only
from server.engine.errors import EngineError
from server.engine.llama.adapters import Adapters
from server.engine.llama.batch import Batch
from server.engine.llama.handles import Context, Model
from server.engine.llama.library import create_context
from server.engine.llama.log import LOG
from server.engine.llama.waiting import Waiting
from server.engine.model_info import POOLINGS, Pooling
from server.engine.request import ActiveAdapters

Texts = Sequence[Sequence[int]]

FLOAT_BYTES: Final = 4
IN_PIECES: Final = tuple(POOLINGS[each] for each in ("none", "last", "rank"))


class Embedder:
    """Embeds texts, a pass at a time; makes a context for each kind of pooling. For the engine's thread.

    Args:
        params: of its contexts: a physical batch is a batch, each of its tokens may be an output.
        waiting: how its threads wait for each other.
        made: is given each context.
    """

    def __init__(
        self,
        model: Model,
        params: Params,
        adapters: Adapters,
        waiting: Waiting,
        made: Callable[[Context], object] = lambda context: None,
    ) -> None:
        self._model = model
        self._params = params
        self._adapters = adapters
        self._contexts: dict[Pooling | None, tuple[Context, Batch]] = {}
        self._made = made
        self._waiting = waiting
        api: Any = model.api
        # An encoder that llama.cpp gives a cache all the same would be masked as if it were a decoder.
        self._encodes = bool(api.llama_model_has_encoder(model.pointer))
        self.n_batch_max = 0  # tokens in a pass so far

    @property
    def n_max(self) -> int:
        """Tokens that a pass may have."""
        return self._params.n_ubatch

    @property
    def n_contexts(self) -> int:
        """Contexts made so far."""
        return len(self._contexts)

    @property
    def n_ctx(self) -> int:
        """Tokens that a text may have which is read in pieces."""
        return self._params.n_ctx

    def context(self, pooling: Pooling | None) -> Context:
        """The context that pools so; see `_context`."""
        return self._context(pooling)[0]

    def close(self) -> None:
        """Free the batches; contexts are freed with the model."""
        for _, batch in self._contexts.values():
            batch.close()

    def _context(self, pooling: Pooling | None) -> tuple[Context, Batch]:
        """The context that pools so, and its batch; None: as the file says.

        Raises:
            ValueError, EngineError: as `create_context`; ValueError also where llama.cpp would die of the first text.
        """
        found = self._contexts.get(pooling)
        if found is None:
            hparams = self._model.hparams
            if why := rule_for(hparams.arch).aborts_embedding(hparams):
                raise ValueError(f"this model has no embeddings: {why}")
            wanted = -1 if pooling is None else POOLINGS[pooling]
            context = create_context(self._model, self._params, pooling=wanted)
            found = self._contexts[pooling] = context, Batch(context, self.n_max)
            self._made(context)
        return found

    def embed(
        self, texts: Texts, pooling: Pooling | None, adapters: ActiveAdapters, n_piece: Callable[[], int]
    ) -> Reading:
        """Each text's vector, or without pooling each token's; of `rank` the scores. float32.

        All texts in one pass; one that is alone and longer than `n_piece` goes through the cache in pieces, if it may.

        Raises:
            ValueError: they are too long.
            EngineError: llama.cpp cannot do it.
        """
        context, batch = self._context(pooling)
        n_tokens = sum(map(len, texts))
        goes_in_pieces = len(texts) == 1 and n_tokens <= context.n_ctx_seq and self.in_pieces(context)
        if n_tokens > self.n_max and not goes_in_pieces:
            raise ValueError(
                f"the input has {n_tokens} tokens, expected at most {self.n_max}: shorten it, or start the "
                "server with a larger --ubatch-size"
            )
        self._adapters.use(context, adapters)
        if context.memory:
            context.clear()
        if goes_in_pieces:
            return (yield from self._piece_by_piece(texts[0], context, batch, n_piece))
        batch.clear()
        ends = [
            batch.add(text, seq_id=i, start=0, logits_of_last=True, logits_of_all=True) for i, text in enumerate(texts)
        ]
        self._run(context, batch)
        placed = enumerate(zip(ends, texts, strict=True))
        return [self._rows(context, i, end, len(text)) for i, (end, text) in placed]

    def in_pieces(self, context: Context) -> bool:
        """Whether a text may be longer than a physical batch: its last token has seen the others, and stands for all,
        or each stands for itself.

        Source: llama.cpp 0c1e570 tools/server/server-context.cpp, server_slot::can_split.
        """
        pooling = int(context.api.llama_pooling_type(context.pointer))
        return pooling in IN_PIECES and not embeds_only(self._model.hparams)

    def _piece_by_piece(
        self, text: Sequence[int], context: Context, batch: Batch, n_piece: Callable[[], int]
    ) -> Reading:
        """The short piece goes ahead of those of full length: llama.cpp attends to few tokens in another way, with sums
        in F16.
        """
        of_each = int(context.api.llama_pooling_type(context.pointer)) == POOLINGS["none"]
        rows: list[bytes] = []
        start = 0
        while True:
            n = (len(text) - start - 1) % max(1, min(n_piece(), self.n_max)) + 1
            batch.clear()
            end = batch.add(text[start : start + n], seq_id=0, start=start, logits_of_last=True, logits_of_all=True)
            self._run(context, batch)
            found = self._rows(context, 0, end, n)
            rows = rows + found if of_each else found  # else one of the text so far
            start += n
            if start == len(text):
                return [rows]
            yield n

    def _run(self, context: Context, batch: Batch) -> None:
        self._waiting.after_step()  # of the one before, whose readers have their vectors by now
        mark = LOG.mark
        self.n_batch_max = max(self.n_batch_max, batch.n_tokens)
        code = batch.encode(context) if self._encodes else batch.decode(context)
        if code:
            what = "llama_encode" if self._encodes else "llama_decode"
            raise EngineError(f"{what} failed with code {code} on texts to embed; {LOG.quote(mark)}")

    def _rows(self, context: Context, seq_id: int, end: int, n_tokens: int) -> list[bytes]:
        """What was made of a text whose last token is at `end` in the batch."""
        api: Any = context.api
        pooling = int(api.llama_pooling_type(context.pointer))
        if pooling == POOLINGS["none"]:
            places = range(end + 1 - n_tokens, end + 1)
            pointers = [api.llama_get_embeddings_ith(context.pointer, place) for place in places]
        else:
            pointers = [api.llama_get_embeddings_seq(context.pointer, seq_id)]
        if not all(pointers):
            raise EngineError("llama.cpp gave no embeddings for the text")
        model, is_rank = self._model.pointer, pooling == POOLINGS["rank"]
        n = int(api.llama_model_n_cls_out(model) if is_rank else api.llama_model_n_embd_out(model))
        return [ctypes.string_at(pointer, n * FLOAT_BYTES) for pointer in pointers]
