"""Attention of a batch's tokens to each other: what encoders and diffusion models do, which keep nothing.

Legend as in `blocks`. Source: llama.cpp 0c1e570 src/llama-graph.cpp, build_attn_inp_no_cache, build_attn.
"""

from ggufphys.context import pad_ctx
from ggufphys.graph import ops
from ggufphys.graph.building.attention import Scores, attend
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Tensor


class AttentionAlone:
    """Called like `AttentionKV`; the mask is as wide as the batch, and sequences are not kept apart.

    Layers that see a window have a mask of their own.
    """

    def __init__(self, b: Builder, scores: Scores | None = None) -> None:
        n_tokens = b.batch.n_tokens
        self.b = b
        self.scores = scores or Scores(factor=1 / sqrtf(b.h.n_embd_head_k or 1))
        self.padded = "alone_padded" in b.context.rules
        n_kv = pad_ctx(n_tokens) if self.padded else n_tokens
        self.masks = {
            windowed: b.mask(n_kv, n_tokens, name="kq_mask_alone", params=(windowed,)) for windowed in (False, True)
        }

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, il: int, *, biased: bool = True) -> Tensor:
        """Attend with Q (D, H, T) to K and V (D, K, T), and the output projection: (E, T)."""
        return self.b.linear("attn_output", il, self.mix(q, k, v, il), biased=biased)

    def mix(
        self, q: Tensor, k: Tensor, v: Tensor, il: int, *, bias: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Attend with Q to K and V, without the output projection: (D*H, T); a `bias` is added to the scores.

        A `mask` takes the place of the batch's.
        """
        for tensor in (q, k, v):
            self.b.graph.expand(tensor)
        mask = self.masks[sees_window(self.b, il)] if mask is None else mask
        if self.padded:  # a copy even where there is nothing to fill up
            k, v = (ops.pad(x, *x.ne[:2], mask.ne[0]) for x in (k, v))
            bias = None if bias is None else ops.pad(bias, mask.ne[0], *bias.ne[1:3])
        return attend(self.b, q, k, v, mask, self.scores, bias=bias)


def sees_window(b: Builder, il: int) -> bool:
    """Whether a layer of a model that keeps nothing sees a window of the batch."""
    return isinstance(b.h.swa_pattern, tuple) and b.h.swa_pattern[il]
