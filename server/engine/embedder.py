"""Vectors of texts, from contexts of their own over the loaded model, made when first asked for.

Source: llama.cpp 0c1e570 src/llama-context.cpp, decode (embeddings make every token an output); a sequence that is
pooled lies in one physical batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from ggufphys.params import Params
from server.engine.batch import Batch
from server.engine.errors import EngineError
from server.engine.handles import Context, Model
from server.engine.library import create_context
from server.engine.log import LOG
from server.engine.protocol import POOLINGS, Pooling

N_MAX: Final = 2048  # tokens of a text, unless -ub allows more: the compute buffer grows with them


class Embedder:
    """Embeds one text after another. For the engine's thread."""

    def __init__(
        self, model: Model, params: Params, n_ctx_seq: int, made: Callable[[Context], object] = lambda context: None
    ) -> None:
        """`made` is given each context."""
        self._model = model
        n = min(n_ctx_seq, max(params.n_ubatch, N_MAX))
        self._params = replace(
            params, n_ctx=n, n_batch=n, n_ubatch=n, n_seq_max=1, n_outputs_max=n, kv_unified=False
        )  # fmt: skip
        self._contexts: dict[Pooling | None, Context] = {}
        self._made = made

    @property
    def n_max(self) -> int:
        """Tokens that a text may have."""
        return self._params.n_ubatch

    def embed(self, prompts: Sequence[Sequence[int]], pooling: Pooling | None) -> list[list[bytes]]:
        """Each text's vector, or without pooling each token's; of `rank` the scores. float32.

        Raises:
            ValueError: a text is too long.
            EngineError: llama.cpp cannot do it.
        """
        for prompt in prompts:
            if len(prompt) > self.n_max:
                raise ValueError(
                    f"the input has {len(prompt)} tokens, expected at most {self.n_max}: shorten it, or start the "
                    "server with a larger --ubatch-size"
                )
        context = self._contexts.get(pooling)
        if context is None:
            wanted = -1 if pooling is None else POOLINGS[pooling]
            context = self._contexts[pooling] = create_context(self._model, self._params, pooling=wanted)
            self._made(context)
        with Batch(context, self.n_max) as batch:
            return [self._embed(prompt, context, batch) for prompt in prompts]

    def _embed(self, prompt: Sequence[int], context: Context, batch: Batch) -> list[bytes]:
        api: Any = context.api
        if context.memory:
            context.clear()
        batch.clear()
        batch.add(prompt, seq_id=0, start=0, logits_of_last=True, logits_of_all=True)
        mark = LOG.mark
        code = batch.decode(context)
        if code:
            raise EngineError(f"llama_decode failed with code {code} on a text to embed; {LOG.quote(mark)}")
        pooling = int(api.llama_pooling_type(context.pointer))
        if pooling == POOLINGS["none"]:
            pointers = [api.llama_get_embeddings_ith(context.pointer, i) for i in range(len(prompt))]
        else:
            pointers = [api.llama_get_embeddings_seq(context.pointer, 0)]
        if not all(pointers):
            raise EngineError("llama.cpp gave no embeddings for the text")
        model = self._model.pointer
        is_rank = pooling == POOLINGS["rank"]
        n = int(api.llama_model_n_cls_out(model) if is_rank else api.llama_model_n_embd_out(model))
        return [np.ctypeslib.as_array(pointer, shape=(n,)).tobytes() for pointer in pointers]
