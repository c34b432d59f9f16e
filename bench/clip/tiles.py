"""Tensors of encoders whose images have one size, or are cut into tiles of it."""

from bench.clip.shape import ClipShape, Shapes, layers, linear, merge, norm, siglip


def gemma3(s: ClipShape) -> Shapes:
    """gemma3."""
    yield from siglip(s)
    yield "mm.input_projection.weight", (s.text, s.n_embd)
    yield "mm.soft_emb_norm.weight", (s.n_embd,)


def idefics3(s: ClipShape) -> Shapes:
    """idefics3."""
    yield from siglip(s)
    yield "mm.model.fc.weight", (s.n_embd * merge(s) ** 2, s.text)


def llava(s: ClipShape) -> Shapes:
    """mlp, ldp, ldpv2."""
    yield "v.class_embd", (s.n_embd,)
    yield "v.position_embd.weight", (s.n_embd, s.n_patches + 1)
    yield from norm("v.pre_ln", s.n_embd)
    yield from layers(s)
    first, second = {"mlp": ("mm.0", "mm.2"), "ldp": ("mm.model.mlp.1", "mm.model.mlp.3")}.get(
        s.projector, ("mm.model.mlp.0", "mm.model.mlp.2")
    )
    yield from linear(first, s.n_embd, s.text)
    yield from linear(second, s.text, s.text)
    if s.projector == "ldpv2":
        yield "mm.model.peg.0.weight", (3, 3, 1, s.text)
        yield "mm.model.peg.0.bias", (s.text,)
    if s.projector == "ldp":
        for block in (1, 2):
            stem = f"mm.model.mb_block.{block}.block"
            yield f"{stem}.0.0.weight", (3, 3, 1, s.text)
            yield from norm(f"{stem}.0.1", s.text)
            yield from linear(f"{stem}.1.fc1", s.text, s.text // 4)
            yield from linear(f"{stem}.1.fc2", s.text // 4, s.text)
            yield f"{stem}.2.0.weight", (s.text, s.text)
            yield from norm(f"{stem}.2.1", s.text)


def adapter(s: ClipShape) -> Shapes:
    """Adapter."""
    yield "v.patch_embd.bias", (s.n_embd,)
    yield "v.position_embd.weight", (s.n_embd, s.n_patches)
    yield from layers(s)
    yield from norm("v.post_ln", s.n_embd)
    yield "adapter.conv.weight", (2, 2, s.n_embd, s.text)
    yield "adapter.conv.bias", (s.text,)
    yield "adapter.linear.linear.weight", (s.text, s.text)
    yield from norm("adapter.linear.norm1", s.text)
    yield "adapter.linear.dense_h_to_4h.weight", (s.text, 4 * s.text)
    yield "adapter.linear.gate.weight", (s.text, 4 * s.text)
    yield "adapter.linear.dense_4h_to_h.weight", (4 * s.text, s.text)
    yield "adapter.boi", (s.text,)
    yield "adapter.eoi", (s.text,)


def resampler(s: ClipShape) -> Shapes:
    """Resampler."""
    yield from siglip(s)
    yield "resampler.pos_embed_k", (s.text, s.n_patches)
    yield "resampler.query", (s.text, 64)
    yield "resampler.proj.weight", (s.text, s.text)
    yield "resampler.kv.weight", (s.n_embd, s.text)
    for name in ("q", "k", "v", "out"):
        yield from linear(f"resampler.attn.{name}", s.text, s.text)
    for name in ("q", "kv", "post"):
        yield from norm(f"resampler.ln_{name}", s.text)


def minicpmv4_6(s: ClipShape) -> Shapes:
    """minicpmv4_6."""
    yield from siglip(s)
    for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
        yield from linear(f"v.vit_merger.{name}", s.n_embd, s.n_embd)
    yield from norm("v.vit_merger.ln1", s.n_embd)
    yield from norm("v.vit_merger.ds_ln", 4 * s.n_embd)
    yield from linear("v.vit_merger.ds_ffn_up", 4 * s.n_embd, s.n_ff)
    yield from linear("v.vit_merger.ds_ffn_down", s.n_ff, s.n_embd)
    yield from norm("mm.input_norm", 4 * s.n_embd)
    yield from linear("mm.up", 4 * s.n_embd, 4 * s.n_embd)
    yield from linear("mm.down", 4 * s.n_embd, s.text)


def internvl(s: ClipShape) -> Shapes:
    """Internvl."""
    yield "v.class_embd", (s.n_embd,)
    yield "v.patch_embd.bias", (s.n_embd,)
    yield "v.position_embd.weight", (s.n_embd, s.n_patches + 1)
    yield from layers(s, more=("ls1.weight", "ls2.weight"))
    width = s.n_embd * merge(s) ** 2
    yield from norm("mm.model.mlp.0", width)
    yield from linear("mm.model.mlp.1", width, s.text)
    yield from linear("mm.model.mlp.3", s.text, s.text)


def nemotron(s: ClipShape) -> Shapes:
    """Nemotron."""
    yield "v.class_embd", (s.n_embd, 4)
    yield "v.position_embd.weight", (s.n_embd, s.n_patches)
    yield from layers(s, fused=True)
    width = s.n_embd * merge(s) ** 2
    yield "mm.model.mlp.0.weight", (width,)
    yield "mm.model.mlp.1.weight", (width, 2 * s.text)
    yield "mm.model.mlp.3.weight", (2 * s.text, s.text)


def llama4(s: ClipShape) -> Shapes:
    """llama4."""
    yield "v.class_embd", (s.n_embd,)
    yield "v.position_embd.weight", (s.n_embd, s.n_patches + 1)
    yield from norm("v.pre_ln", s.n_embd)
    yield from norm("v.post_ln", s.n_embd)
    yield from layers(s)
    yield "mm.model.mlp.1.weight", (s.n_embd * merge(s) ** 2, s.n_ff)
    yield "mm.model.mlp.2.weight", (s.n_ff, s.n_ff)
    yield "mm.model.fc.weight", (s.n_ff, s.text)


def cogvlm(s: ClipShape) -> Shapes:
    """Cogvlm."""
    yield "v.class_embd", (s.n_embd,)
    yield "v.patch_embd.bias", (s.n_embd,)
    yield "v.position_embd.weight", (s.n_embd, s.n_patches + 1)
    yield from layers(s, fused=True)
    yield "mm.model.fc.weight", (s.n_embd, s.text)
    yield from norm("mm.post_fc_norm", s.text)
    yield "mm.up.weight", (s.text, s.n_ff)
    yield "mm.gate.weight", (s.text, s.n_ff)
    yield "mm.down.weight", (s.n_ff, s.text)
    yield "v.boi", (s.text,)
    yield "v.eoi", (s.text,)


def step3vl(s: ClipShape) -> Shapes:
    """step3vl."""
    yield "v.position_embd.weight", (s.n_embd, 16)
    yield from norm("v.pre_ln", s.n_embd)
    yield from layers(s, fused=True, more=("ls1.weight", "ls2.weight"))
    yield "mm.0.weight", (3, 3, s.n_embd, 2 * s.n_embd)
    yield "mm.0.bias", (2 * s.n_embd,)
    yield "mm.1.weight", (3, 3, 2 * s.n_embd, 4 * s.n_embd)
    yield "mm.1.bias", (4 * s.n_embd,)
    yield "mm.model.fc.weight", (4 * s.n_embd, s.text)
