"""The engine over llama.cpp: one context, one thread that owns it, one generation at a time."""

import os
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from ggufphys import UnsupportedError, open_gguf
from ggufphys.params import Params
from server.engine import amx
from server.engine.active import ActiveGeneration
from server.engine.batch import Batch
from server.engine.checks import one_output_per_sequence
from server.engine.errors import ContextLengthError, EngineError, NotReadyError
from server.engine.handles import Context, Model
from server.engine.lease import Lease
from server.engine.library import create_context, load_library, load_model, system_info
from server.engine.log import LOG
from server.engine.protocol import EngineStatus, Failed, FinishReason, Generation, GenerationRequest, ModelInfo
from server.engine.queue import GenerationQueue
from server.engine.sampler import Sampler
from server.engine.vocab import Vocab

SEQ_ID = 0  # the one sequence in use


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    """What the engine's thread owns once the model is there."""

    model: Model
    context: Context
    batch: Batch
    vocab: Vocab
    info: ModelInfo


class LlamaEngine:
    """Loads a model in the background and generates from it; implements `Engine`.

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
        self._path = os.fspath(path)
        self._params = one_output_per_sequence(params)
        self._name = name
        self._warn = warn
        self._queue = GenerationQueue(max_waiting)
        self._lease = Lease()
        self._loaded: _Loaded | None = None
        self._status = EngineStatus.LOADING
        self._error: Exception | None = None
        self._settled = threading.Event()  # no longer LOADING
        self._closing = threading.Event()
        self._held: list[int] = []  # the tokens whose keys and values are in memory, by position
        self._thread = threading.Thread(target=self._run, name="llama", daemon=True)
        self._thread.start()

    # What HTTP threads call.

    @property
    def status(self) -> EngineStatus:
        """Whether requests can be submitted."""
        return self._status

    @property
    def error(self) -> Exception | None:
        """Why the status is FAILED."""
        return self._error

    def wait_until_settled(self, timeout_s: float | None = None) -> EngineStatus:
        """Wait until the model is loaded or could not be."""
        self._settled.wait(timeout_s)
        return self._status

    @property
    def info(self) -> ModelInfo:
        """The model. Raises NotReadyError until it is loaded."""
        return self._ready.info

    @property
    def _ready(self) -> _Loaded:
        if self._loaded is None or self._status is not EngineStatus.READY:
            raise NotReadyError(f"the engine is not ready: {self._status}")
        return self._loaded

    def tokenize(self, text: str) -> tuple[int, ...]:
        """Tokens of a prompt, special ones read and BOS added as the model wants."""
        with self._lease.borrow():
            return self._ready.vocab.tokenize(text)

    def detokenize(self, tokens: tuple[int, ...]) -> str:
        """The text of tokens, special ones written out."""
        with self._lease.borrow():
            return self._ready.vocab.text(tokens)

    def submit(self, request: GenerationRequest) -> Generation:
        """Queue a request; see `Engine.submit` for what it raises."""
        info = self._ready.info
        if not request.prompt:
            raise ValueError("the prompt is empty")
        for token in request.prompt:
            if not 0 <= token < info.n_vocab:
                raise ValueError(f"token {token} is not in the vocabulary, expected 0 to {info.n_vocab - 1}")
        if len(request.prompt) >= info.n_ctx_seq:
            raise ContextLengthError(n_prompt=len(request.prompt), n_ctx_seq=info.n_ctx_seq)
        generation = Generation(request)
        self._queue.put(generation)
        return generation

    def close(self) -> None:
        """End what runs, fail what waits, free the model. A second call does nothing."""
        self._closing.set()
        for generation in self._queue.close():
            generation.publish(Failed(message="the server is shutting down"))
        self._thread.join()

    # What the engine's own thread does.

    def _run(self) -> None:
        try:
            loaded = self._load()
        except Exception as error:  # whatever it is, the readers of `error` must learn of it
            self._error = error
            self._settle(EngineStatus.CLOSED if self._closing.is_set() else EngineStatus.FAILED)
            return
        try:
            self._loaded = loaded
            self._settle(EngineStatus.READY)
            while (generation := self._queue.get()) is not None:
                started_at = time.perf_counter()
                self._generate(generation, loaded)
                self._queue.completed(started_at)
        finally:
            self._status = EngineStatus.CLOSED
            self._lease.revoke()
            loaded.batch.close()
            loaded.model.close()

    def _settle(self, status: EngineStatus) -> None:
        self._status = status
        self._settled.set()

    def _load(self) -> _Loaded:
        load_library()
        params, warning = amx.guard(self._params, info=system_info())
        if warning:
            self._warn(warning)
        model = load_model(self._path, params, progress=lambda fraction: not self._closing.is_set())
        try:
            _check_generates(model)
            vocab = Vocab(model)
            context = create_context(model, params)
            # One ubatch a step: llama_decode would split a larger batch the same way, and a cancel is seen in between.
            batch = Batch(context, context.params.n_ubatch)
            return _Loaded(
                model=model, context=context, batch=batch, vocab=vocab, info=self._describe(model, context, vocab)
            )
        except BaseException:
            model.close()
            raise

    def _describe(self, model: Model, context: Context, vocab: Vocab) -> ModelInfo:
        api = model.api
        with open_gguf(model.path) as gguf:
            name, template = gguf.name, gguf.get_str("tokenizer.chat_template", "")
        return ModelInfo(
            name=self._name or name,
            n_ctx_seq=context.n_ctx_seq,
            n_ctx_train=model.hparams.n_ctx_train,
            n_vocab=vocab.n_vocab,
            n_embd=model.hparams.n_embd,
            n_params=int(api.llama_model_n_params(model.pointer)),
            model_bytes=int(api.llama_model_size(model.pointer)),
            chat_template=template,
            bos_text="" if vocab.bos is None else vocab.text((vocab.bos,)),
            eos_text="" if vocab.eos is None else vocab.text((vocab.eos,)),
            adds_bos=vocab.adds_bos,
        )

    def _generate(self, generation: Generation, loaded: _Loaded) -> None:
        """Run one generation to its last event. Whatever goes wrong ends this generation, not the engine."""
        try:
            n_cached = self._reuse(generation.request, loaded)
            with Sampler(generation.request.sampling, loaded.context, loaded.vocab) as sampler:
                active = ActiveGeneration(generation, sampler, loaded.vocab, n_cached=n_cached)
                active.finish(self._advance(active, loaded, n_cached))
        except Exception as error:
            loaded.context.clear()
            self._held.clear()
            if not isinstance(error, EngineError):
                self._warn("unexpected error in the engine:\n" + traceback.format_exc())
            generation.publish(Failed(message=str(error) or type(error).__name__))

    def _reuse(self, request: GenerationRequest, loaded: _Loaded) -> int:
        """Cut memory back to what the prompt shares with it; how many of the prompt's tokens need no evaluation.

        At least the last token is evaluated again, because its logits are needed.
        """
        n_cached = 0
        if request.cache_prompt and loaded.context.keeps_all_positions:
            n_cached = min(_common_prefix(self._held, request.prompt), len(request.prompt) - 1)
        if n_cached == 0 or not loaded.context.remove(SEQ_ID, n_cached):
            loaded.context.clear()
            n_cached = 0
        del self._held[n_cached:]
        return n_cached

    def _advance(self, active: ActiveGeneration, loaded: _Loaded, n_cached: int) -> FinishReason:
        prompt = active.request.prompt
        row = -1
        for start in range(n_cached, len(prompt), loaded.batch.capacity):
            if self._unwanted(active):
                return "cancelled"
            chunk = prompt[start : start + loaded.batch.capacity]
            row = self._decode(chunk, loaded, logits=start + len(chunk) == len(prompt))
        if active.request.max_tokens == 0:
            return "length"
        while True:
            token = active.sampler.sample(row)
            if token is None:
                raise EngineError(
                    "the model's logits are not numbers (NaN or infinite): a broken or unsuited model file"
                )
            reason = active.accept(token)
            if reason is not None:
                return reason
            if self._unwanted(active):
                return "cancelled"
            if len(self._held) >= loaded.context.n_ctx_seq:
                return "length"
            row = self._decode((token,), loaded, logits=True)

    def _unwanted(self, active: ActiveGeneration) -> bool:
        return active.generation.cancelled or self._closing.is_set()

    def _decode(self, tokens: tuple[int, ...], loaded: _Loaded, *, logits: bool) -> int:
        """Evaluate the next tokens of the sequence; the last one's place in the batch.

        Source: llama.cpp 0c1e570 include/llama.h, llama_decode (return codes).
        """
        batch = loaded.batch
        batch.clear()
        row = batch.add(tokens, seq_id=SEQ_ID, start=len(self._held), logits_of_last=logits)
        mark = LOG.mark
        code = batch.decode(loaded.context)
        if code != 0:
            raise EngineError(f"llama_decode failed with code {code} at position {len(self._held)}; {LOG.quote(mark)}")
        self._held.extend(tokens)
        return row


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


def _common_prefix(held: list[int], prompt: tuple[int, ...]) -> int:
    n = 0
    for ours, theirs in zip(held, prompt, strict=False):
        if ours != theirs:
            break
        n += 1
    return n
