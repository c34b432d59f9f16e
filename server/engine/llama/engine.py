"""llama.cpp as what an engine runs: a model, a context with several sequences, and a batch."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from ggufphys import UnsupportedError
from ggufphys.logs.lines import LoggedBuffer
from ggufphys.params import Params
from server.engine.backend import Backend, Outcome, Peaks, Reading
from server.engine.checks import check_serves, embeds_only, one_output_per_sequence
from server.engine.describe import describe
from server.engine.errors import EngineError
from server.engine.guessing import NOTHING, Guessing
from server.engine.llama import amx
from server.engine.llama.abort import AbortFlag
from server.engine.llama.adapters import Adapters
from server.engine.llama.batch import Batch
from server.engine.llama.beside import beside
from server.engine.llama.draft import KEEPS_A_STATE, Draft
from server.engine.llama.embedder import Embedder
from server.engine.llama.embedding import EmbeddingBackend
from server.engine.llama.encoding import Encoding
from server.engine.llama.filling import Filling, check_alike
from server.engine.llama.handles import Context, Model
from server.engine.llama.library import create_context, load_library, load_model, system_info
from server.engine.llama.log import LOG
from server.engine.llama.positions import Positions
from server.engine.llama.rows import Rows
from server.engine.llama.sampler import Chains, Sampler
from server.engine.llama.slot_memory import SlotMemory
from server.engine.llama.vocab import Vocab
from server.engine.llama.waiting import Waiting
from server.engine.loop.threaded import TARGET_S, ThreadedEngine
from server.engine.media import BLIND, Encoder, Read, Span
from server.engine.model_info import NOT_ASKED, Adapter, Pooling
from server.engine.pooling import as_bytes
from server.engine.request import ActiveAdapters
from server.engine.runner import Unwanted
from server.engine.sampling import Sampling
from server.engine.scheduler.drafts import Drafts
from server.engine.scheduler.guesses import Drafter, Guesser
from server.engine.scheduler.lookup import Lookup
from server.engine.scheduler.sequence import Chunk
from server.engine.scheduler.slots import Layout
from server.engine.scheduler.worth import Worth

# What llama_decode returns. Source: llama.cpp 0c1e570 include/llama.h.
OUTCOMES: Final = {0: Outcome.DONE, 1: Outcome.FULL, 2: Outcome.ABORTED}


class LlamaEngine(ThreadedEngine):
    """Generates with llama.cpp in this process; implements `Engine`.

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
        target_s: float = TARGET_S,
        adapters: Sequence[Adapter] = (),
        guessing: Guessing = NOTHING,
        block: int = 0,
        encoder: Encoder | None = None,
    ) -> None:
        def load(unwanted: Unwanted) -> Backend:
            return load_backend(
                path, params, name=name, warn=warn, unwanted=unwanted, adapters=adapters, guessing=guessing,
                target_s=target_s, block=block, encoder=encoder,
            )  # fmt: skip

        super().__init__(load, max_waiting=max_waiting, warn=warn, target_s=target_s)


def load_backend(
    path: str | os.PathLike[str],
    params: Params,
    *,
    name: str = "",
    warn: Callable[[str], None] = lambda message: None,
    unwanted: Unwanted = lambda: False,
    adapters: Sequence[Adapter] = (),
    guessing: Guessing = NOTHING,
    target_s: float = TARGET_S,
    block: int = 0,
    encoder: Encoder | None = None,
) -> "LlamaBackend | EmbeddingBackend":
    """Load a model and create its context. Raises as `load_model`, `Adapters`, `Draft`, `create_context`, `Encoding`.

    `block`: how many slots' answers go together so that others change no bit, which is tried; 0: as they come.
    """
    load_library()
    safe, warning = amx.guard(one_output_per_sequence(params), info=system_info())
    if warning:
        warn(warning)
    if not safe.use_extra_bufts:
        guessing = guessing.without_extra_buffers()
    mark = LOG.mark
    model = load_model(path, safe, progress=lambda fraction: not unwanted())
    try:
        _check_served(model, safe)
        backend: LlamaBackend | EmbeddingBackend
        if safe.embeddings:
            backend = EmbeddingBackend(model, safe, name, adapters)
        else:
            backend = LlamaBackend(
                model, safe, name, adapters, guessing, warn=warn, target_s=target_s, block=block, encoder=encoder
            )
        backend.buffers = backend.buffers_since(mark)
        if guessing and not backend.info.guesses:
            warn(f"warning: speculative decoding is off: {backend.info.why_no_guess}")
        return backend
    except BaseException:
        model.close()
        raise


class LlamaBackend(SlotMemory):
    """A model that llama.cpp has loaded, in a context of its own; implements `Backend`.

    Raises:
        UnsupportedError: a model without a tokenizer, or one whose answers depend on others all the same.
        ValueError, EngineError: as `create_context`.
    """

    def __init__(
        self,
        model: Model,
        params: Params,
        name: str,
        adapters: Sequence[Adapter] = (),
        guessing: Guessing = NOTHING,
        *,
        warn: Callable[[str], None] = lambda message: None,
        target_s: float = TARGET_S,
        block: int = 0,
        encoder: Encoder | None = None,
    ) -> None:
        self._model = model
        self._adapters = Adapters(model, adapters)
        self.words = Vocab(model)
        self._context = context = create_context(model, params)
        self.layout = _layout(model, context, block)
        self._batch = Batch(context, self.layout.n_batch)
        if block:
            check_alike(context, self._batch, self.layout, self.words.n_vocab)
        self.buffers: tuple[LoggedBuffer, ...] = ()
        can_guess = context.kind != "recurrent"
        if guessing.draft and not can_guess:
            raise UnsupportedError(f"{model.path}: no draft model can guess for it: it {KEEPS_A_STATE}")
        self._draft = Draft(guessing.draft, model, warn) if guessing.draft else None
        drafters = _drafters(guessing, self._draft, target_s) if can_guess else []
        self.guesser = Guesser(drafters, None if guessing.always else Worth())
        self._abort = AbortFlag(context)
        self._waiting = Waiting()
        self._embedder = Embedder(
            model, beside(params, context.n_ctx_seq), self._adapters, self._waiting, self._abort.use
        )
        self._rows = Rows(context, self.words.n_vocab)
        self._positions = Positions()
        self._encoding = _encoding(encoder, model, context, params)
        self._n_batch_max, self._chains = 0, Chains()
        info = describe(
            model.path,
            self.words,
            name=name,
            hparams=model.hparams,
            n_ctx_seq=self.layout.n_ctx_seq,
            n_params=int(model.api.llama_model_n_params(model.pointer)),
            model_bytes=int(model.api.llama_model_size(model.pointer)),
        )
        self.info = replace(
            info,
            n_slots=self.layout.n_slots,
            n_batch=context.params.n_batch,
            n_text_max=self._embedder.n_ctx,
            infill=self.words.infill,
            pair=self.words.pair,
            adapters=tuple(adapters),
            guesses=guessing.types if can_guess else (),
            why_no_guess=f"the model {KEEPS_A_STATE}" if guessing and not can_guess else NOT_ASKED,
            n_block=block,
            sees=self._encoding is not None and self._encoding.sees,
            hears=self._encoding is not None and self._encoding.hears,
        )

    @property
    def peaks(self) -> Peaks:
        """The most that was asked of it at a time."""
        embedder = self._embedder
        return Peaks(self._n_batch_max, self._chains.n_max, embedder.n_contexts, embedder.n_batch_max)

    def buffers_since(self, mark: int) -> tuple[LoggedBuffer, ...]:
        """What llama.cpp's log says of its memory, from a mark on; a draft model's stand beside the model's own."""
        if self._draft is None:
            return LOG.buffers(mark)
        drafts = LOG.buffers(self._draft.mark)
        beside = (replace(each, quantity="attachment", what=f"draft: {each.what}") for each in drafts)
        return (*LOG.buffers(mark, self._draft.mark), *beside)

    def decode(self, chunks: Sequence[Chunk]) -> Outcome:
        """Evaluate a step.

        Raises:
            EngineError: llama.cpp could not; memory is cleared.
        """
        self._waiting.after_step()  # of the one before, whose readers have their tokens by now
        if chunks[0].span is not None:
            return self._decode_span(chunks[0], chunks[0].span)
        batch = self._batch
        batch.clear()
        block = self.layout.block
        filling = Filling(self._context, batch, chunks, block) if block else None
        places: list[int] = []  # of rows of logits, in the batch
        at: list[int] = []  # and among all of its rows, where there are others
        for chunk in chunks:
            if filling:
                filling.add(before=chunk.slot)
            last = batch.add(
                chunk.tokens,
                seq_id=chunk.slot,
                start=self._positions(chunk.slot, chunk.start),
                logits_of_last=chunk.n_rows > 0,  # a piece of a prompt that is scored may be one token
                logits_of_all=chunk.n_rows > 1,
            )
            places += (last,) if chunk.n_rows == 1 else range(last + 1 - chunk.n_rows, last + 1)
            if filling:
                at += range(batch.n_outputs - chunk.n_rows, batch.n_outputs)
        if filling:
            filling.add()
        self._adapters.use(self._context, chunks[0].sequence.adapters)
        mark = LOG.mark
        self._n_batch_max = max(self._n_batch_max, batch.n_tokens)
        code = batch.decode(self._context)
        if filling:
            filling.take_back()
        if code == 0:
            self._rows.begin(places, at if filling else None)
        return self._outcome(code, chunks, mark)

    def _outcome(self, code: int, chunks: Sequence[Chunk], mark: int) -> Outcome:
        if code in OUTCOMES:
            return OUTCOMES[code]
        self._context.clear()
        where = ", ".join(f"slot {chunk.slot} at position {chunk.start}" for chunk in chunks)
        raise EngineError(f"llama_decode failed with code {code} ({where}); {LOG.quote(mark)}")

    def _decode_span(self, chunk: Chunk, span: Span) -> Outcome:
        """Evaluate an image or sound, by itself. What is found to have no room is taken back as a whole."""
        assert self._encoding is not None
        self._adapters.use(self._context, chunk.sequence.adapters)
        mark, position = LOG.mark, self._positions(chunk.slot, chunk.start)
        self._n_batch_max = max(self._n_batch_max, min(span.n_tokens, self._context.params.n_ubatch))
        code = self._encoding.evaluate(span, position=position, slot=chunk.slot)
        outcome = self._outcome(code, (chunk,), mark)
        if outcome is Outcome.DONE:
            self._positions.add(chunk.slot, span)
        elif outcome is Outcome.FULL:  # its first batches may have had room
            self.keep(chunk.slot, chunk.start)
        return outcome

    def read(self, file: bytes) -> Read:
        """The tokens that an image or sound is. Raises ValueError for what cannot be read."""
        if self._encoding is None:
            raise ValueError(BLIND)
        return self._encoding.read(file)

    def keep(self, slot: int, n_tokens: int) -> None:
        """Forget all but a slot's first tokens."""
        super().keep(slot, self._positions(slot, n_tokens))
        self._positions.cut(slot, n_tokens)

    def copy(self, source: int, target: int, n_tokens: int) -> None:
        """Give an empty slot another one's first tokens."""
        super().copy(source, target, self._positions(source, n_tokens))
        self._positions.copy(source, target, n_tokens)

    def resumable(self, slot: int, n_tokens: int) -> bool:
        """Whether a slot of a windowed model can be gone on with behind its first tokens."""
        return super().resumable(slot, self._positions(slot, n_tokens))

    def logits(self, row: int) -> Any:
        """A row of logits of the last step."""
        return self._rows[row]

    def chooser(self, sampling: Sampling, index: int) -> Sampler:
        """A chain of samplers. Raises ValueError for a grammar that cannot be parsed."""
        if index and sampling.seed is not None:
            sampling = replace(sampling, seed=sampling.seed + index)
        return Sampler(sampling, self._context, self.words, self._rows, self._chains)

    def abort(self, wanted: bool) -> None:
        """Ask a decode under way to end, or later ones not to."""
        self._abort.set(wanted)

    @property
    def n_nodes(self) -> int | None:
        """Nodes of graphs that the host has computed, of the model and of its draft; an encoder's are not seen."""
        if self._encoding is not None and self._encoding.is_encoding:
            return None
        own = self._abort.n_nodes
        return own if own is None or self._draft is None else own + (self._draft.n_nodes or 0)

    n_texts = 1

    def embed(
        self,
        prompts: Sequence[Sequence[int]],
        pooling: Pooling | None,
        adapters: ActiveAdapters,
        n_piece: Callable[[], int],
    ) -> Reading:
        """Each prompt's vectors. One context has those of tokens, whatever becomes of them; ranks need another."""
        how = pooling or self.info.pooling
        if how == "rank":
            return (yield from self._embedder.embed(prompts, how, adapters, n_piece))
        each = yield from self._embedder.embed(prompts, "none", adapters, n_piece)
        return [as_bytes(np.array([np.frombuffer(row, np.float32) for row in rows]), how) for rows in each]

    def close(self) -> None:
        """Free batch, contexts and model."""
        self._waiting.close()
        self._embedder.close()
        self._batch.close()
        if self._draft is not None:
            self._draft.close()
        if self._encoding is not None:
            self._encoding.close()
        self._model.close()


def _layout(model: Model, context: Context, block: int) -> Layout:
    """The room that the context has.

    One ubatch a step, if it has room for a token of each answer: llama_decode would divide a larger batch the same way,
    and new requests and cancels are seen in between.
    """
    made = context.params
    n_ctx_seq = context.n_ctx_seq - (block > 0)  # a slot that is full has a cell for a token that is taken back
    return Layout(
        n_slots=made.n_seq_max,
        n_ctx_seq=n_ctx_seq,
        n_cells=n_ctx_seq,
        n_batch=min(made.n_batch, max(made.n_ubatch, made.n_seq_max)),
        n_outputs=made.n_outputs_max,
        unified=made.kv_unified and not model.api.llama_model_is_recurrent(model.pointer),
        kind=context.kind,
        block=block,
    )


def _encoding(encoder: Encoder | None, model: Model, context: Context, params: Params) -> Encoding | None:
    """What encodes images; on the host where the model is, too, whatever the build of llama.cpp could use."""
    if encoder is None:
        return None
    return Encoding(replace(encoder, offload=encoder.offload and bool(params.devices)), model, context)


def _drafters(guessing: Guessing, draft: Draft | None, target_s: float) -> list[Drafter]:
    """Who guesses, the first before the others."""
    drafters: list[Drafter] = [Lookup(guessing.lookups)] if guessing.lookups else []
    if draft and guessing.draft:
        drafters.append(Drafts(draft, guessing.draft.drafting, target_s))
    return drafters


def _check_served(model: Model, params: Params) -> None:
    """Refuse models that are run otherwise than they can be: llama_decode on them fails or aborts.

    Raises:
        UnsupportedError: an encoder-decoder or diffusion model, or an encoder that is to generate.
    """
    check_serves(model.path)
    if not params.embeddings and embeds_only(model.hparams):
        raise UnsupportedError(f"{model.path}: an encoder model ({model.hparams.arch}), which does not generate text")
