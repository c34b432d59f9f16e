"""What does a recurrent layer keep of a sequence? A formula for each kind of recurrence, the same for every layer.

Source: llama.cpp 0c1e570 src/llama-hparams.cpp, n_embd_r, n_embd_s, ple_conv_state.
"""

from ggufphys.arch.caches import RecurrentState
from ggufphys.arch.rules import Layers
from ggufphys.frozen import replace
from ggufphys.hparams.hparams import HParams


def ssm(h: HParams) -> Layers:
    """State space models with groups (mamba 2), and gated delta nets: B and C of each group are convolved too.

    `n_embd_r = (d_conv - 1) * (d_inner + 2 * n_group * d_state)`, `n_embd_s = d_state * d_inner`.
    """
    return _same(h, _ssm(h, h.ssm_n_group))


def ssm_ungrouped(h: HParams) -> Layers:
    """State space models of the first kind (mamba): `n_embd_r = (d_conv - 1) * d_inner`."""
    return _same(h, _ssm(h, 0))


def wkv(h: HParams) -> Layers:
    """RWKV: `n_embd_r = token_shift_count * n_embd`, `n_embd_s = n_embd * wkv_head_size`."""
    return _same(h, RecurrentState(n_embd_r=h.token_shift_count * h.n_embd, n_embd_s=h.n_embd * h.wkv_head_size))


def short_conv(h: HParams) -> Layers:
    """A short convolution and nothing else: `n_embd_r = n_embd * (l_cache - 1)`."""
    return _same(h, RecurrentState(n_embd_r=h.n_embd * max(h.n_shortconv_l_cache - 1, 0), n_embd_s=0))


def kda(h: HParams) -> Layers:
    """Kimi delta attention: `n_embd_r = 3 * (d_conv - 1) * n_head * d`, for Q, K and V; `n_embd_s = d * d * n_head`."""
    d, n_head = h.n_embd_head_kda, h.n_head[0]
    n_conv = h.ssm_d_conv - 1 if h.ssm_d_conv else 3
    return _same(h, RecurrentState(n_embd_r=3 * n_conv * n_head * d, n_embd_s=d * d * n_head))


def linear_attention(h: HParams) -> Layers:
    """Lightning attention: no convolution; `n_embd_s = n_embd_head_k * n_embd_head_k * n_head`."""
    return _same(h, RecurrentState(n_embd_r=0, n_embd_s=h.n_embd_head_k * h.n_embd_head_k * h.n_head[0]))


def ssm_and_ngrams(h: HParams) -> Layers:
    """A gated delta net; layers with n-gram embeddings convolve those as well.

    `n_embd_p = (kernel - 1) * ngram_size * hc_mult * n_embd`.
    """
    n_heads = (h.ple_ngram_size - 1) * h.ple_heads_per_ngram
    n_embd_p = (h.ple_conv_kernel - 1) * h.ple_ngram_size * h.hc_mult * h.n_embd if n_heads > 0 else 0
    state = _ssm(h, h.ssm_n_group)
    with_ngrams = replace(state, n_embd_p=n_embd_p)
    return tuple((with_ngrams if il in h.ple_layers else state,) for il in range(h.n_layer_all))


def _ssm(h: HParams, n_group: int) -> RecurrentState:
    n_conv = max(h.ssm_d_conv - 1, 0)
    return RecurrentState(
        n_embd_r=n_conv * (h.ssm_d_inner + 2 * n_group * h.ssm_d_state), n_embd_s=h.ssm_d_state * h.ssm_d_inner
    )


def _same(h: HParams, state: RecurrentState) -> Layers:
    return ((state,),) * h.n_layer_all
