"""What has an engine done, and what is under way? Figures for metrics, kept by whoever runs the steps."""

from collections import Counter
from dataclasses import dataclass, field, replace


@dataclass(slots=True, kw_only=True)
class Counters:
    """Since the engine started. Those of a worker that died are added to its successor's (`plus`)."""

    n_steps: int = 0  # llama_decode calls
    decode_s: float = 0.0  # spent in them
    n_prompt_tokens: int = 0  # evaluated
    n_cached_tokens: int = 0  # of prompts, not evaluated since memory held them
    n_generated_tokens: int = 0
    n_texts: int = 0  # embedded
    n_preemptions: int = 0
    n_full: int = 0  # times that llama.cpp found no room for a batch
    n_aborts: int = 0  # decodes ended in the middle since nobody waited for any of it
    n_tokens_max: int = 0  # most cells in use at a time
    n_batch_max: int = 0  # most tokens in a step
    n_chains_max: int = 0  # most answers at a time whose tokens llama.cpp's samplers chose
    n_embedders: int = 0  # contexts for embeddings beside that for text
    n_embedded_max: int = 0  # most tokens in a pass of theirs
    guess_s: float = 0.0  # spent in guessing
    n_drafts: int = 0  # steps of an answer in which tokens were guessed
    n_drafted: int = 0  # tokens guessed
    n_draft_accepted: int = 0  # of them, right ones
    n_restarts: int = 0  # workers that died
    reevaluated: Counter[str] = field(default_factory=Counter)  # tokens, by `Reuse`'s reason
    finished: Counter[str] = field(default_factory=Counter)  # answers, by reason
    # What is under way now.
    n_active: int = 0
    n_waiting: int = 0
    n_cells_used: int = 0  # of which some may be held for later requests only
    n_cells_busy: int = 0  # needed by what is under way
    n_cells: int = 0

    def copy(self) -> "Counters":
        """A snapshot."""
        return replace(self, reevaluated=Counter(self.reevaluated), finished=Counter(self.finished))

    def plus(self, later: "Counters") -> "Counters":
        """What both have done; what is under way, and the peaks, which memory has grown by, are the later one's."""
        total = later.copy()
        for name in _SUMS:
            setattr(total, name, getattr(self, name) + getattr(later, name))
        total.reevaluated = self.reevaluated + later.reevaluated
        total.finished = self.finished + later.finished
        return total


_SUMS = (
    "n_steps", "decode_s", "n_prompt_tokens", "n_cached_tokens", "n_generated_tokens", "n_preemptions", "n_full",
    "n_aborts", "n_texts", "guess_s", "n_drafts", "n_drafted", "n_draft_accepted", "n_restarts",
)  # fmt: skip
