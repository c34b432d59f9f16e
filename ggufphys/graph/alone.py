"""Attention over the batch alone, for models without a cache: encoders, and those that read a whole sequence at once.

Legend as in `blocks`. Source: llama.cpp 0c1e570 src/llama-graph.cpp, build_attn_inp_no_cache and build_attn of it.
"""

from math import sqrt

from ggufphys.graph import ops
from ggufphys.graph.attention import Scores, attend
from ggufphys.graph.blocks import Builder
from ggufphys.graph.ir import Tensor
from ggufphys.graph.ops import F16, F32


class Alone:
    """Layers call this with their queries, keys and values; those whose flag is set see a window of the batch."""

    def __init__(self, b: Builder, scores: Scores | None = None, *, biased: bool = True) -> None:
        self.b = b
        self.scores = scores or Scores(factor=1 / sqrt(b.h.n_embd_head_v or 1))
        self.biased = biased
        n_tokens, mask_type = b.batch.n_tokens, F16 if b.context.flash_attn else F32
        self.masks = {
            windowed: ops.new_input(mask_type, n_tokens, n_tokens, name="kq_mask", params=(windowed,))
            for windowed in (False, True)
        }

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, il: int) -> Tensor:
        """Attend with Q (D, H, T) to K and V (D, K, T), and project: (E, T)."""
        for tensor in (q, k, v):
            self.b.graph.expand(tensor)
        x = attend(self.b, q, k, v, self.masks[has_window(self.b, il)], self.scores)
        return self.b.linear("attn_output", il, x, biased=self.biased)


def has_window(b: Builder, il: int) -> bool:
    """Whether a layer of a model without a cache sees a window."""
    return isinstance(b.h.swa_pattern, tuple) and b.h.swa_pattern[il]
