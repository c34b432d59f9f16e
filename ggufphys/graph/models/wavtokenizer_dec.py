"""wavtokenizer-dec: from codes of sound to its spectrum, by convolutions along time and one layer of attention.

Time runs along the innermost axis (T, C) between the embedding and the last norm.

Legend: C channels. Source: llama.cpp 0c1e570 src/models/wavtokenizer-dec.cpp, llama_model_wavtokenizer_dec::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.conv_ops import conv_1d_dw_ph, conv_1d_ph
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph, Tensor


def build(b: Builder) -> Graph:
    """The whole graph, from codes to spectra (E, T) of all tokens."""
    x = _convolved(b, "conv1d", _turned(b.inp_embd()))
    for il in range(b.keys.integer("posnet.block_count", 0)):
        x = _position_layer(b, x, f"posnet.{il}")
    x = _turned(b.layer_norm(_turned(x), "token_embd_norm"))
    for il in b.layers():
        if b.weight_or_none(f"convnext.{il}.dw.weight") is not None:
            x = ops.add(_mixed(b, x, f"convnext.{il}"), x)
    return b.hidden(b.linear("output", None, b.layer_norm(_turned(x), "output_norm")))


def _position_layer(b: Builder, x: Tensor, name: str) -> Tensor:
    """Two convolutions in most layers; the third attends, and the sixth is a norm."""
    if b.weight_or_none(f"{name}.conv1.weight") is None:
        normed = _group_norm(b, x, f"{name}.attn_norm")
        attends = b.weight_or_none(f"{name}.attn_q.weight") is not None
        return ops.add(_attention(b, normed, name), x) if attends else normed
    residual = x
    for part in ("1", "2"):
        x = _group_norm(b, x, f"{name}.norm{part}")
        x = _convolved(b, f"{name}.conv{part}", ops.mul(ops.unary(x, "sigmoid"), x))
    return ops.add(x, residual)


def _attention(b: Builder, x: Tensor, name: str) -> Tensor:
    """One head, as wide as all channels; every time asks every other."""
    q, k, v = (_convolved(b, f"{name}.attn_{part}", x) for part in "qkv")
    scores = ops.soft_max(ops.mul_mat(_turned(k), _turned(q)), factor=1 / sqrtf(x.ne[1]))
    return _convolved(b, f"{name}.attn_output", ops.mul_mat(scores, v))


def _mixed(b: Builder, x: Tensor, name: str) -> Tensor:
    """Each channel along time, then all channels of each time."""
    kernel, bias = b.weight(f"{name}.dw.weight"), b.weight(f"{name}.dw.bias")
    x = b.layer_norm(_turned(ops.add(conv_1d_dw_ph(kernel, x, 1), bias)), f"{name}.norm")
    x = b.linear(f"{name}.pw2", None, ops.unary(b.linear(f"{name}.pw1", None, x), "gelu"))
    return _turned(ops.mul(x, b.weight(f"{name}.gamma.weight")))


def _convolved(b: Builder, name: str, x: Tensor) -> Tensor:
    return ops.add(conv_1d_ph(b.weight(f"{name}.weight"), x, 1), b.weight(f"{name}.bias"))


def _group_norm(b: Builder, x: Tensor, name: str) -> Tensor:
    n_groups, eps = b.keys.integer("attention.group_norm_groups"), b.keys.real("attention.group_norm_epsilon")
    n_time, n_channels = x.ne[:2]
    x = ops.reshape(ops.group_norm(ops.reshape(x, n_time, 1, n_channels), n_groups, eps), n_time, n_channels)
    return ops.add(ops.mul(x, b.weight(f"{name}.weight")), b.weight(f"{name}.bias"))


def _turned(x: Tensor) -> Tensor:
    return ops.cont(ops.transpose(x))
