"""Encoders of sound after Whisper's: ultravox, voxtral, qwen2a, glma, meralion, musicflamingo; and qwen3a.

Source: llama.cpp 0c1e570 tools/mtmd/models/whisper-enc.cpp, qwen3a.cpp.
"""

from typing import Final

from ggufphys.clip.builder import ClipBuilder
from ggufphys.graph import ops
from ggufphys.graph.conv_ops import conv_1d_ph, conv_2d
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.ops import concat, elementwise, repeat, reshape, transpose

_STACKED: Final = frozenset({"ultravox", "voxtral", "meralion"})
_QWEN3A_CHUNK: Final = 100  # frames


def build(b: ClipBuilder) -> Graph:
    """From a mel spectrogram to embeddings (n_embd of the text model, tokens)."""
    name, n_pos = b.h.projector.name, b.nx // 2
    x = b.inp_raw(1)
    for conv, stride in (("a.conv1d.1", 1), ("a.conv1d.2", 2)):
        x = elementwise("UNARY", b.plus_bias(conv, conv_1d_ph(b.weight(f"{conv}.weight"), x, stride)))
    x = ops.cont(transpose(x))
    table = b.position_embd()
    x = b.vit(x, n_pos, "NORM", ops.view(table, (table.ne[0], n_pos)))
    if name in _STACKED:
        x = _stack(b, x)
    match name:
        case "ultravox":
            x = elementwise("MUL", elementwise("RMS_NORM", x), b.weight("mm.a.norm_pre.weight"))
            x = b.linear("mm.a.mlp.1", x)
            x = Tensor("GLU", x.type, (x.ne[0] // 2, x.ne[1], x.ne[2], x.ne[3]), (x,))
            x = elementwise("MUL", elementwise("RMS_NORM", x), b.weight("mm.a.norm_mid.weight"))
            x = b.linear("mm.a.mlp.2", x)
        case "qwen2a":
            x = b.linear("mm.a.fc", x)
        case "meralion":
            x = elementwise("UNARY", b.linear("mm.a.mlp.0", b.norm(x, "mm.a.norm_pre", "NORM")))
            gate = elementwise("UNARY", b.linear("mm.a.mlp.1", x))
            x = b.linear("mm.a.mlp.3", elementwise("MUL", gate, b.linear("mm.a.mlp.2", x)))
        case "glma":
            x = _stack(b, b.norm(x, "mm.a.norm_pre", "NORM"))
            x = b.ffn(x, "mm.a.mlp.1", "mm.a.mlp.2")
            x = concat(concat(b.weight("v.boi"), x, 1), b.weight("v.eoi"), 1)
        case _:  # voxtral, musicflamingo
            x = b.ffn(x, "mm.a.mlp.1", "mm.a.mlp.2")
    return b.finish(x)


def _stack(b: ClipBuilder, x: Tensor) -> Tensor:
    """`proj_stack_factor` frames side by side in one row, the last one padded."""
    factor = b.h.proj_stack_factor
    if factor <= 1:
        return x
    n_elements = x.ne[0] * x.ne[1] * x.ne[2] * x.ne[3]
    stride = b.h.n_embd * factor
    padded = -(-n_elements // stride) * stride
    if padded > n_elements:
        x = Tensor("PAD", x.type, (padded,), (ops.view(x, (n_elements,)),))
    return ops.view(x, (stride, padded // stride))


def qwen3a(b: ClipBuilder) -> Graph:
    """Chunks of a second, three convolutions, positions that start anew in each chunk."""
    n_frames, n_mel = b.nx, b.ny
    n_chunks = n_frames // _QWEN3A_CHUNK
    x = b.inp_raw(1)
    chunk_bytes = _QWEN3A_CHUNK * 4
    x = ops.cont(ops.view(x, (_QWEN3A_CHUNK, n_mel, 1, n_chunks), (4, n_frames * 4, chunk_bytes, chunk_bytes)))
    for conv in ("a.conv2d.1", "a.conv2d.2", "a.conv2d.3"):
        x = conv_2d(b.weight(f"{conv}.weight"), x, 2, 1)
        bias = b.weight_or_none(f"{conv}.bias")
        x = elementwise("UNARY", x if bias is None else elementwise("ADD", x, reshape(bias, 1, 1, x.ne[2], 1)))
    x = ops.cont(ops.permute(x, 2, 0, 1, 3))
    x = b.linear("a.conv_out", reshape(x, x.ne[0] * x.ne[1], x.ne[2] * x.ne[3]))
    n_pos = x.ne[1]
    table = b.position_embd()
    positions = ops.view(table, (table.ne[0], n_pos // n_chunks))
    x = elementwise("ADD", x, repeat(positions, table.ne[0], n_pos))
    x = b.vit(x, n_pos, "NORM")
    return b.finish(b.ffn(x, "mm.a.mlp.1", "mm.a.mlp.2"))
