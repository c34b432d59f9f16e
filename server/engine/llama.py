"""llama.cpp as what an engine runs: a model, a context with one sequence, and a batch."""

import os
from collections.abc import Callable

from ggufphys import UnsupportedError
from ggufphys.params import Params
from server.engine import amx
from server.engine.batch import Batch
from server.engine.checks import one_output_per_sequence
from server.engine.describe import describe
from server.engine.errors import EngineError
from server.engine.handles import Model
from server.engine.library import create_context, load_library, load_model, system_info
from server.engine.log import LOG
from server.engine.protocol import Sampling
from server.engine.runner import Unwanted
from server.engine.sampler import Sampler
from server.engine.threaded import ThreadedEngine
from server.engine.vocab import Vocab

SEQ_ID = 0  # the one sequence in use


class LlamaEngine(ThreadedEngine):
    """Generates with llama.cpp; implements `Engine`.

    `warn` gets one-line messages about the load that a user should see.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        params: Params,
        *,
        name: str = "",
        max_waiting: int = 64,
        warn: Callable[[str], None] = lambda message: None,
    ) -> None:
        def load(unwanted: Unwanted) -> LlamaRunner:
            load_library()
            safe, warning = amx.guard(one_output_per_sequence(params), info=system_info())
            if warning:
                warn(warning)
            model = load_model(path, safe, progress=lambda fraction: not unwanted())
            try:
                return LlamaRunner(model, safe, name)
            except BaseException:
                model.close()
                raise

        super().__init__(load, max_waiting=max_waiting, warn=warn)


class LlamaRunner:
    """A model that llama.cpp has loaded, in a context of its own; implements `Runner`.

    Raises:
        UnsupportedError: a model that does not generate text token by token, or without a tokenizer.
        ValueError, EngineError: as `create_context`.
    """

    def __init__(self, model: Model, params: Params, name: str) -> None:
        _check_generates(model)
        self._model = model
        self.words = Vocab(model)
        self._context = create_context(model, params)
        # One ubatch a step: llama_decode would split a larger batch the same way, and a cancel is seen in between.
        self._batch = Batch(self._context, self._context.params.n_ubatch)
        self.n_step = self._batch.capacity
        self.info = describe(
            model.path,
            self.words,
            name=name,
            hparams=model.hparams,
            n_ctx_seq=self._context.n_ctx_seq,
            n_params=int(model.api.llama_model_n_params(model.pointer)),
            model_bytes=int(model.api.llama_model_size(model.pointer)),
        )

    def keep(self, n_tokens: int) -> bool:
        """Forget all but the first tokens of the sequence; False, and all forgotten, where memory cannot be cut."""
        if n_tokens and self._context.keeps_all_positions and self._context.remove(SEQ_ID, n_tokens):
            return True
        self._context.clear()
        return n_tokens == 0

    def evaluate(self, tokens: tuple[int, ...], start: int, *, logits: bool) -> int:
        """Evaluate the next tokens of the sequence; the last one's place in the batch.

        Source: llama.cpp 0c1e570 include/llama.h, llama_decode (return codes).
        """
        batch = self._batch
        batch.clear()
        row = batch.add(tokens, seq_id=SEQ_ID, start=start, logits_of_last=logits)
        mark = LOG.mark
        code = batch.decode(self._context)
        if code != 0:
            raise EngineError(f"llama_decode failed with code {code} at position {start}; {LOG.quote(mark)}")
        return row

    def chooser(self, sampling: Sampling) -> Sampler:
        """A chain of samplers."""
        return Sampler(sampling, self._context, self.words)

    def close(self) -> None:
        """Free batch, context and model."""
        self._batch.close()
        self._model.close()


def _check_generates(model: Model) -> None:
    """Refuse models that do not generate text token by token: llama_decode on them fails or aborts.

    Raises:
        UnsupportedError: an encoder, encoder-decoder or diffusion model.
    """
    api, pointer = model.api, model.pointer
    if api.llama_model_is_diffusion(pointer):
        raise UnsupportedError(f"{model.path}: a diffusion model ({model.hparams.arch}), which is not served yet")
    if api.llama_model_has_encoder(pointer) or not model.hparams.causal_attn:
        raise UnsupportedError(f"{model.path}: an encoder model ({model.hparams.arch}), which does not generate text")
