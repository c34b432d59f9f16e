"""The pieces that encoders are composed of, node for node as llama.cpp's clip builder makes them.

Legend: E n_embd, D head size, H n_head, P positions (patches, and a class token where there is one), B images.
Shapes in comments are ggml's order, innermost first.

Source: llama.cpp 0c1e570 tools/mtmd/clip.cpp, clip_graph.
"""

from collections.abc import Callable, Mapping
from typing import Final, Literal

from ggufphys.clip.hparams import ClipHParams
from ggufphys.clip.tensors import PREFIX
from ggufphys.gguf import GGMLType, TensorInfo
from ggufphys.graph import ops
from ggufphys.graph.conv_ops import conv_2d, interpolate, pool_1d
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.ops import F16, F32, I32, concat, elementwise, reshape, transpose

Norm = Literal["NORM", "RMS_NORM"]
AddPos = Callable[[Tensor], Tensor]

# Files of these were written with up and down exchanged; llama.cpp exchanges them back by their shape.
FFN_SWAPPED: Final = frozenset({
    "mlp", "ldp", "ldpv2", "qwen2vl_merger", "qwen2.5vl_merger", "exaone4_5", "adapter", "gemma3", "idefics3",
    "resampler", "minicpmv4_6",
})  # fmt: skip
AVERAGED: Final = frozenset({"qwen2a", "voxtral", "musicflamingo"})


class ClipBuilder:
    """One encoder's graph under construction, for `n_batch` images of `nx` by `ny` pixels."""

    def __init__(
        self, h: ClipHParams, tensors: Mapping[str, TensorInfo], size: tuple[int, int], n_batch: int = 1
    ) -> None:
        self.h = h
        self.tensors = tensors
        self.nx, self.ny = size
        self.n_batch = n_batch
        self.graph = Graph()
        self.prefix = PREFIX[h.modality]
        self.n_patches_x, self.n_patches_y = self.nx // h.patch_size, self.ny // h.patch_size
        self.n_patches = self.n_patches_x * self.n_patches_y

    # -- weights

    def weight(self, name: str) -> Tensor:
        """A weight that must be there."""
        tensor = self.weight_or_none(name)
        if tensor is None:
            raise KeyError(name.replace("@", self.prefix))
        return tensor

    def weight_or_none(self, name: str) -> Tensor | None:
        """A weight, or None when the file has no such tensor; `@` stands for the encoder's prefix."""
        info = self.tensors.get(name.replace("@", self.prefix))
        if info is None:
            return None
        ggml_type = info.ggml_type if isinstance(info.ggml_type, GGMLType) else F32
        return ops.weight(ggml_type, *info.ne, name=info.name)

    def position_embd(self) -> Tensor:
        """Learned positions."""
        return self.weight("@.position_embd.weight")

    # -- inputs

    def inp_raw(self, channels: int = 3) -> Tensor:
        """Pixels (W, H, C, B)."""
        return ops.new_input(F32, self.nx, self.ny, channels, self.n_batch)

    def inp_ids(self, n: int) -> Tensor:
        """Positions or indices."""
        return ops.new_input(I32, n)

    def inp_patches(self) -> Tensor:
        """Patches, embedded: (E, P, B)."""
        x = conv_2d(self.weight("v.patch_embd.weight"), self.inp_raw(), self.h.patch_size)
        x = ops.cont(transpose(reshape(x, self.n_patches, self.h.n_embd, self.n_batch)))
        bias = self.weight_or_none("v.patch_embd.bias")
        return x if bias is None else elementwise("ADD", x, bias)

    # -- pieces

    def mul_mat(self, w: Tensor, x: Tensor) -> Tensor:
        """A product with a weight (gemma4v clamps around it)."""
        return ops.mul_mat(w, x)

    def linear(self, name: str, x: Tensor) -> Tensor:
        """A product, and the bias when the file has one."""
        product = self.mul_mat(self.weight(f"{name}.weight"), x)
        return self.plus_bias(name, product)

    def plus_bias(self, name: str, x: Tensor) -> Tensor:
        """The bias added, when the file has one."""
        bias = self.weight_or_none(f"{name}.bias")
        return x if bias is None else elementwise("ADD", x, bias)

    def norm(self, x: Tensor, name: str, norm: Norm, *, bias: bool = True) -> Tensor:
        """A norm with its gain and bias, as far as the file has them."""
        x = elementwise(norm, x)
        gain = self.weight_or_none(f"{name}.weight")
        if gain is not None:
            x = elementwise("MUL", x, gain)
        return self.plus_bias(name, x) if bias else x

    def ffn(self, x: Tensor, up: str, down: str, gate: str = "") -> Tensor:
        """down(act(up x)), or down(act(gate x) * up x)."""
        inner = self.linear(up, x)
        if gate and self.weight_or_none(f"{gate}.weight") is not None:
            return self.linear(down, ops.glu(self.linear(gate, x), inner))
        return self.linear(down, elementwise("UNARY", inner))

    def attn(self, il: int, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, out: str = "") -> Tensor:
        """Flash attention over q, k, v (D, H, P, B), then the output projection: (E, P*B)."""
        for tensor in (q, k, v):
            self.graph.expand(tensor)
        q, k, v = (ops.permute(x, 0, 2, 1, 3) for x in (q, k, v))
        k, v = ops.cast(k, F16), ops.cast(v, F16)
        masks = () if mask is None else (ops.cast(mask, F16),)
        x = Tensor("FLASH_ATTN_EXT", F32, (v.ne[0], q.ne[2], q.ne[1], q.ne[3]), (q, k, v, *masks))
        x = reshape(x, x.ne[0] * x.ne[1], x.ne[2] * x.ne[3])
        return self.linear(out or f"@.blk.{il}.attn_out", x)

    def rope_2d(self, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """One half of each head by the first positions, the other by the second."""
        return elementwise("ROPE", elementwise("ROPE", x, a), b)

    def qkv(self, x: Tensor, il: int, n_pos: int, norm: Norm) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v (D, H, P, B) of a layer: slices of one product, or three; normed where the file has gains."""
        h, prefix = self.h, f"@.blk.{il}."
        n_batch = x.ne[1] // n_pos
        if self.weight_or_none(f"{prefix}attn_qkv.weight") is not None:
            x = self.linear(f"{prefix}attn_qkv", x)
            size = x.nb[0]
            strides = (size, h.n_embd_head * size, x.nb[1], x.nb[1] * n_pos)
            q, k, v = (ops.view(x, (h.n_embd_head, h.n_head, n_pos, n_batch), strides) for _ in range(3))
            if self.weight_or_none(f"{prefix}attn_q_norm.weight") is not None:
                q = self.norm(q, f"{prefix}attn_q_norm", norm, bias=False)
            if self.weight_or_none(f"{prefix}attn_k_norm.weight") is not None:
                k = self.norm(k, f"{prefix}attn_k_norm", norm, bias=False)
            return q, k, v
        q, k, v = (self.linear(f"{prefix}attn_{name}", x) for name in "qkv")
        gain = self.weight_or_none(f"{prefix}attn_q_norm.weight")
        per_head = gain is not None and gain.ne[0] == h.n_embd_head
        if not per_head:
            q, k = self.head_norms(il, q, k, norm)
        q = reshape(q, h.n_embd_head, h.n_head, n_pos, n_batch)
        k, v = (reshape(t, h.n_embd_head, h.n_head_kv, n_pos, n_batch) for t in (k, v))
        if per_head:
            q, k = self.head_norms(il, q, k, norm)
        return q, k, v

    def head_norms(self, il: int, q: Tensor, k: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
        """Q and k normed, where the file has gains for them."""
        out = []
        for name, x in (("q", q), ("k", k)):
            stem = f"@.blk.{il}.attn_{name}_norm"
            gained = self.weight_or_none(f"{stem}.weight") is not None
            out.append(self.norm(x, stem, norm, bias=False) if gained else x)
        return out[0], out[1]

    def scaled(self, x: Tensor, name: str) -> Tensor:
        """Times a gain, when the file has it."""
        gain = self.weight_or_none(f"{name}.weight")
        return x if gain is None else elementwise("MUL", x, gain)

    def post_normed(self, x: Tensor, name: str, norm: Norm) -> Tensor:
        """Normed, when the file has a gain for it."""
        return x if self.weight_or_none(f"{name}.weight") is None else self.norm(x, name, norm, bias=False)

    def layer_ffn(self, x: Tensor, il: int) -> Tensor:
        """The feed-forward part of a layer."""
        up, down, gate = (f"@.blk.{il}.ffn_{name}" for name in ("up", "down", "gate"))
        matrix = self.weight(f"{down}.weight")
        if self.h.projector.name in FFN_SWAPPED and matrix.ne[0] == self.h.n_embd:
            up, down = down, up
        return self.ffn(x, up, down, gate)

    def vit(
        self,
        x: Tensor,
        n_pos: int,
        norm: Norm,
        learned: Tensor | None = None,
        add_pos: AddPos | None = None,
        *,
        v_normed: bool = False,
        post_ln: str = "@.post_ln",
    ) -> Tensor:
        """The vision transformer: (E, P, B) in and out."""
        n_batch = x.ne[2]
        if learned is not None:
            x = elementwise("ADD", x, learned)
        x = reshape(x, self.h.n_embd, n_pos * n_batch)
        if self.weight_or_none("@.pre_ln.weight") is not None:
            x = self.norm(x, "@.pre_ln", norm)
        for il in range(self.h.n_layer):
            x = self.vit_layer(x, il, n_pos, norm, add_pos, v_normed=v_normed)
        if self.h.projector.name in AVERAGED:
            x = ops.cont(transpose(pool_1d(ops.cont(transpose(x)), 2)))
        if self.weight_or_none(f"{post_ln}.weight") is not None:
            x = self.norm(x, post_ln, norm)
        return reshape(x, self.h.n_embd, x.ne[1] // n_batch, n_batch)

    def vit_layer(
        self, x: Tensor, il: int, n_pos: int, norm: Norm, add_pos: AddPos | None = None,
        *, v_normed: bool = False,
    ) -> Tensor:  # fmt: skip
        """One layer on (E, P*B)."""
        prefix, residual = f"@.blk.{il}.", x
        q, k, v = self.qkv(self.norm(x, f"{prefix}ln1", norm), il, n_pos, norm)
        if add_pos is not None:
            q, k = add_pos(q), add_pos(k)
        if v_normed:
            v = elementwise("RMS_NORM", v)
        x = self.scaled(self.attn(il, q, k, v), f"{prefix}ls1")
        x = self.post_normed(x, f"{prefix}attn_post_norm", norm)
        residual = elementwise("ADD", x, residual)
        x = self.layer_ffn(self.norm(residual, f"{prefix}ln2", norm), il)
        x = self.scaled(self.post_normed(x, f"{prefix}ffn_post_norm", norm), f"{prefix}ls2")
        return self.scaled(elementwise("ADD", residual, x), f"{prefix}out_scale")

    def resized_positions(self) -> Tensor:
        """Learned positions of a square, interpolated to the image's shape."""
        learned = self.position_embd()
        side = int(learned.ne[1] ** 0.5)
        if (self.n_patches_x, self.n_patches_y) == (side, side):
            return learned
        x = ops.permute(reshape(learned, self.h.n_embd, side, side), 2, 0, 1, 3)
        x = ops.permute(interpolate(x, self.n_patches_x, self.n_patches_y), 1, 2, 0, 3)
        return ops.cont(x, self.h.n_embd, self.n_patches)

    def patch_merge(self, x: Tensor) -> Tensor:
        """Squares of `n_merge` patches side by side in one row: (E*m*m, P/m/m)."""
        m, width, height = self.h.n_merge, self.n_patches_x, self.n_patches_y
        n_embd = x.ne[0]
        x = reshape(x, n_embd, width, height)
        wide, high = -(-width // m) * m, -(-height // m) * m
        if (wide, high) != (width, height):
            x = Tensor("PAD", x.type, (n_embd, wide, high), (x,))
        x = ops.permute(reshape(x, n_embd * m, wide // m, high), 0, 2, 1, 3)
        x = ops.permute(ops.cont(x, n_embd * m * m, high // m, wide // m), 0, 2, 1, 3)
        return ops.cont(x, x.ne[0], x.ne[1] * x.ne[2])

    def with_class_token(self, x: Tensor) -> Tensor:
        """The class token behind the patches."""
        return concat(x, self.weight("v.class_embd"), 1)

    def finish(self, x: Tensor) -> Graph:
        """The whole graph, once its output is known."""
        self.graph.expand(x)
        return self.graph
