"""llama.cpp as what a draft model runs in: a context of its own, with a sequence for each of the model's.

Source: llama.cpp 0c1e570 common/speculative.cpp, common_speculative_init_result, common_speculative_are_compatible,
common_speculative_impl_draft_simple.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from ggufphys import UnsupportedError
from server.engine.batch import Batch
from server.engine.guessing import DraftFile
from server.engine.handles import Model
from server.engine.library import create_context, load_model
from server.engine.log import LOG
from server.engine.rows import Rows
from server.engine.scheduler.drafts import Piece
from server.engine.scheduler.slots import Layout
from server.engine.slot_memory import SlotMemory

SIZES_DIFFER_MAX: Final = 128  # SPEC_VOCAB_MAX_SIZE_DIFFERENCE
FIRST_COMPARED: Final = 5  # SPEC_VOCAB_CHECK_START_TOKEN_ID
N_LIKELY: Final = 10  # tokens among which one is how likely: the draft's top_k
KEEPS_A_STATE: Final = "keeps a state, that behind the last token, which cannot go back when a guess was wrong"


class Draft(SlotMemory):
    """A draft model that llama.cpp has loaded; implements `DraftModel`. It is closed with its model.

    Raises:
        UnsupportedError: it does not fit the model whose answers are to be guessed.
        EngineError, GGUFError, OSError, ValueError: as `load_model` and `create_context` have them.
    """

    def __init__(self, file: DraftFile, target: Model, warn: Callable[[str], None]) -> None:
        self.mark = LOG.mark  # what the log says from here on is its own
        self.model = load_model(file.path, file.params)
        try:
            if difference := vocabularies_differ(target, self.model):
                raise UnsupportedError(
                    f"{file.path} cannot guess for {target.path}: {difference}; take a smaller model of the same family"
                )
            context = self._context = create_context(self.model, file.params)
            if context.kind == "recurrent":
                raise UnsupportedError(f"{file.path} cannot be a draft model: it {KEEPS_A_STATE}")
        except BaseException:
            self.model.close()
            raise
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


def vocabularies_differ(target: Model, draft: Model) -> str:
    """Why tokens of one mean something else to the other; empty where they mean the same.

    Source: llama.cpp 0c1e570 common/speculative.cpp, common_speculative_are_compatible.
    """
    api: Any = target.api
    ours, theirs = target.vocab, draft.vocab
    types = api.llama_vocab_type(ours), api.llama_vocab_type(theirs)
    if types[0] != types[1]:
        return f"its tokenizer is of another kind (llama_vocab_type {types[1]}, expected {types[0]})"
    for name, adds, token in (
        ("BOS", api.llama_vocab_get_add_bos, api.llama_vocab_bos),
        ("EOS", api.llama_vocab_get_add_eos, api.llama_vocab_eos),
    ):  # fmt: skip
        if adds(ours) != adds(theirs):
            does = "adds" if adds(theirs) else "does not add"
            return f"its tokenizer {does} {name} to a text, and the model's {'does' if adds(ours) else 'does not'}"
        if adds(ours) and token(ours) != token(theirs):
            return f"its {name} is token {token(theirs)}, and the model's {token(ours)}"
    n_ours, n_theirs = _n_tokens(target), _n_tokens(draft)
    if abs(n_ours - n_theirs) > SIZES_DIFFER_MAX:
        return f"it has {n_theirs:,} tokens, and the model {n_ours:,}: more than {SIZES_DIFFER_MAX} apart"
    text = api.llama_vocab_get_text
    for number in range(FIRST_COMPARED, min(n_ours, n_theirs)):
        one, other = text(ours, number), text(theirs, number)
        if one != other:
            return f"token {number:,} is {_shown(other)} to it, and {_shown(one)} to the model"
    return ""


def _n_tokens(model: Model) -> int:
    return int(model.api.llama_vocab_n_tokens(model.vocab))


def _shown(text: bytes) -> str:
    return repr(text.decode("utf-8", "replace"))
