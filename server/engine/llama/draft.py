"""llama.cpp as what a draft model runs in: a context of its own, with a sequence for each of the model's.

Source: llama.cpp 0c1e570 common/speculative.cpp, common_speculative_init_result,
common_speculative_impl_draft_simple.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from ggufphys import UnsupportedError
from ggufphys.memory.attachments.tongues import Tongue, difference, refusal
from server.engine.guessing import DraftFile
from server.engine.llama.abort import AbortFlag
from server.engine.llama.batch import Batch
from server.engine.llama.handles import Model
from server.engine.llama.library import create_context, load_model
from server.engine.llama.log import LOG
from server.engine.llama.rows import Rows
from server.engine.llama.slot_memory import SlotMemory
from server.engine.llama.vocab import TYPE_NONE
from server.engine.scheduler.drafts import Piece
from server.engine.scheduler.slots import Layout

N_LIKELY: Final = 10  # tokens among which one is how likely: the draft's top_k
KEEPS_A_STATE: Final = "keeps a state, that behind the last token, which cannot go back when a guess was wrong"


class Draft(SlotMemory):
    """A draft model that llama.cpp has loaded; implements `DraftModel`. It is closed with its model.

    Raises:
        ValueError: it reads text otherwise than the model whose answers are to be guessed.
        UnsupportedError: it keeps a state.
        EngineError, GGUFError, OSError, ValueError: as `load_model` and `create_context` have them.
    """

    def __init__(self, file: DraftFile, target: Model, warn: Callable[[str], None]) -> None:
        self.mark = LOG.mark  # what the log says from here on is its own
        self.model = load_model(file.path, file.params)
        try:
            if differs := difference(tongue(target), tongue(self.model)):
                raise refusal(file.path, target.path, differs)
            context = self._context = create_context(self.model, file.params)
            if context.kind == "recurrent":
                raise UnsupportedError(f"{file.path} cannot be a draft model: it {KEEPS_A_STATE}")
        except BaseException:
            self.model.close()
            raise
        self._abort = AbortFlag(context)  # never wanted: its steps are short
        made = context.params
        self.n_vocab = _n_tokens(self.model)
        self._n_guessed = min(self.n_vocab, _n_tokens(target))
        self._warn = warn
        self._broken = False
        self._batch = Batch(context, min(made.n_batch, max(made.n_ubatch, made.n_seq_max)))
        self._rows = Rows(context, self.n_vocab)
        self.layout = Layout(
            n_slots=made.n_seq_max,
            n_ctx_seq=context.n_ctx_seq,
            n_cells=context.n_ctx_seq,
            n_batch=self._batch.capacity,
            n_outputs=made.n_outputs_max,
            unified=made.kv_unified,
            kind=context.kind,
        )

    def evaluate(self, pieces: Sequence[Piece]) -> float | None:
        """Evaluate, and have a row of logits for each piece: seconds. None: it could not; memory is as it was."""
        if self._broken:
            return None
        self._batch.clear()
        places = [
            self._batch.add(tokens, seq_id=slot, start=start, logits_of_last=True) for slot, start, tokens in pieces
        ]
        mark, began = LOG.mark, time.perf_counter()
        self._abort.set(False)  # nodes are counted from 0, or there were too many of them one day
        code = self._batch.decode(self._context)
        if code == 0:
            self._rows.begin(places)
            return time.perf_counter() - began
        for slot, start, _ in pieces:
            self._context.remove(slot, start)
        if code < 0:
            self._broken = True
            self._warn(f"warning: the draft model guesses no more: llama_decode failed with {code}; {LOG.quote(mark)}")
        return None

    @property
    def n_nodes(self) -> int | None:
        """Nodes of graphs that have been computed; None: they are not counted."""
        return self._abort.n_nodes

    def likeliest(self, row: int, p_min: float) -> int | None:
        """The likeliest token of a row; None if it is less likely than `p_min`, or the model does not know it."""
        best = self._rows.best(row)
        if best is None or best >= self._n_guessed:
            return None
        if p_min > 0 and _probability(self._rows[row]) < p_min:
            return None
        return best

    def close(self) -> None:
        """Free batch, context and model."""
        self._batch.close()
        self.model.close()


def _probability(logits: Any) -> float:
    """How likely the likeliest token is, among the ten likeliest.

    Source: llama.cpp 0c1e570 common/speculative.cpp, common_speculative_impl_draft_simple (top_k 10, then softmax).
    """
    top = logits if len(logits) <= N_LIKELY else np.partition(logits, -N_LIKELY)[-N_LIKELY:]
    return float(1 / np.exp(top - top.max()).sum())


def tongue(model: Model) -> Tongue:
    """How llama.cpp has read a model's vocabulary; it asserts that there is one before it tells any of it."""
    api: Any = model.api
    vocab, text = model.vocab, api.llama_vocab_get_text
    kind = api.llama_vocab_type(vocab)
    if kind == TYPE_NONE:
        return Tongue(kind=kind, bos=-1, eos=-1, adds_bos=False, adds_eos=False, tokens=())
    return Tongue(
        kind=kind,
        bos=api.llama_vocab_bos(vocab),
        eos=api.llama_vocab_eos(vocab),
        adds_bos=api.llama_vocab_get_add_bos(vocab),
        adds_eos=api.llama_vocab_get_add_eos(vocab),
        tokens=[text(vocab, number) for number in range(_n_tokens(model))],
    )


def _n_tokens(model: Model) -> int:
    return int(model.api.llama_vocab_n_tokens(model.vocab))
