"""Tensors of encoders that take images of any size."""

from bench.clip.shape import ClipShape, Shapes, layers, linear, merge, mlp_of, norm


def pixtral(s: ClipShape) -> Shapes:
    """Pixtral."""
    yield from norm("v.pre_ln", s.n_embd, bias=False)
    yield from layers(s, bias=False, norm_bias=False, gate=True)
    yield from linear("mm.1", s.n_embd, s.text)
    yield from linear("mm.2", s.text, s.text)
    if merge(s) > 1:
        yield "mm.input_norm.weight", (s.n_embd,)
        yield "mm.patch_merger.weight", (s.n_embd * merge(s) ** 2, s.n_embd)
    if s.projector == "pixtral":
        yield "v.token_embd.img_break", (s.text,)


def kimi(s: ClipShape) -> Shapes:
    """Kimi."""
    yield "v.patch_embd.bias", (s.n_embd,)
    yield "v.position_embd.weight", ((s.n_embd, 16) if s.projector == "kimivl" else (s.n_embd, 5, 5))
    yield from layers(s, fused=s.projector == "kimik25")
    yield from norm("v.post_ln", s.n_embd)
    yield from mlp_of("mm.1", "mm.2", merged=True, before="mm.input_norm")(s)


def dots(s: ClipShape) -> Shapes:
    """Dots."""
    yield "v.patch_embd.bias", (s.n_embd,)
    yield from norm("v.pre_ln", s.n_embd, bias=False)
    yield from layers(s, fused=True, bias=False, norm_bias=False, gate=True)
    yield "mm.post_norm.weight", (s.n_embd,)
    yield from mlp_of("mm.0", "mm.2", merged=True, before="mm.input_norm")(s)


def gemma4(s: ClipShape) -> Shapes:
    """gemma4."""
    yield "v.position_embd.weight", (s.n_embd, 64, 2)
    if s.projector == "gemma4uv":
        side = 3 * s.patch_size
        yield "v.patch_embd.bias", (s.n_embd,)
        yield from norm("v.patch_norm.1", 3 * side * side)
        yield from norm("v.patch_norm.2", s.n_embd)
        yield from norm("v.patch_norm.3", s.n_embd)
    else:
        more = ("attn_q_norm.weight", "attn_k_norm.weight", "attn_post_norm.weight", "ffn_post_norm.weight")
        yield from layers(s, bias=False, norm_bias=False, gate=True, more=more)
        yield "v.std_bias", (s.n_embd,)
        yield "v.std_scale", (s.n_embd,)
    yield "mm.input_projection.weight", (s.n_embd, s.text)


def hunyuanvl(s: ClipShape) -> Shapes:
    """Hunyuanvl."""
    yield "v.patch_embd.bias", (s.n_embd,)
    yield "v.position_embd.weight", (s.n_embd, 16)
    yield from layers(s)
    yield "mm.pre_norm.weight", (s.n_embd,)
    yield "mm.0.weight", (2, 2, s.n_embd, 2 * s.n_embd)
    yield "mm.0.bias", (2 * s.n_embd,)
    yield "mm.2.weight", (1, 1, 2 * s.n_embd, 4 * s.n_embd)
    yield "mm.2.bias", (4 * s.n_embd,)
    yield from linear("mm.model.fc", 4 * s.n_embd, s.text)
    yield "mm.post_norm.weight", (s.text,)
    yield "v.image_newline", (4 * s.n_embd,)
    for name in ("mm.image_begin", "mm.image_end", "v.view_seperator"):
        yield name, (s.text,)


def qwen2vl(s: ClipShape) -> Shapes:
    """qwen2vl."""
    yield "v.patch_embd.weight.1", (s.patch_size, s.patch_size, 3, s.n_embd)
    windows = s.projector == "qwen2.5vl_merger"
    yield from layers(s, norm_bias=not windows, gate=windows)
    yield from norm("v.post_ln", s.n_embd, bias=not windows)
    yield from linear("mm.0", 4 * s.n_embd, 4 * s.n_embd)
    yield from linear("mm.2", 4 * s.n_embd, s.text)


def qwen3vl(s: ClipShape) -> Shapes:
    """qwen3vl."""
    yield "v.patch_embd.weight.1", (s.patch_size, s.patch_size, 3, s.n_embd)
    yield "v.patch_embd.bias", (s.n_embd,)
    yield "v.position_embd.weight", (s.n_embd, 16)
    yield from layers(s, fused=True)
    yield from norm("v.post_ln", s.n_embd)
    if s.projector == "qwen3vl_merger":
        for il in range(0, s.n_layer, 2):
            yield from norm(f"v.deepstack.{il}.norm", 4 * s.n_embd)
            yield from linear(f"v.deepstack.{il}.fc1", 4 * s.n_embd, 4 * s.n_embd)
            yield from linear(f"v.deepstack.{il}.fc2", 4 * s.n_embd, s.text)
    else:
        yield from norm("mm.input_norm", s.n_embd)
    yield from linear("mm.0", 4 * s.n_embd, 4 * s.n_embd)
    yield from linear("mm.2", 4 * s.n_embd, s.text)


def glm4v(s: ClipShape) -> Shapes:
    """glm4v."""
    yield "v.patch_embd.weight.1", (s.patch_size, s.patch_size, 3, s.n_embd)
    yield "v.patch_embd.bias", (s.n_embd,)
    if s.projector == "glm4v":
        yield "v.position_embd.weight", (s.n_embd, 16)
        yield "v.norm_embd.weight", (s.n_embd,)
    yield from layers(s, fused=True, bias=False, norm_bias=False, gate=True)
    yield "v.post_ln.weight", (s.n_embd,)
    yield "mm.patch_merger.weight", (2, 2, s.n_embd, s.text)
    yield "mm.patch_merger.bias", (s.text,)
    yield "mm.model.fc.weight", (s.text, s.text)
    yield from norm("mm.post_norm", s.text)
    yield "mm.up.weight", (s.text, s.n_ff)
    yield "mm.gate.weight", (s.text, s.n_ff)
    yield "mm.down.weight", (s.n_ff, s.text)


def minimax(s: ClipShape) -> Shapes:
    """Minimax."""
    yield "v.patch_embd.weight.1", (s.patch_size, s.patch_size, 3, s.n_embd)
    yield from norm("v.pre_ln", s.n_embd)
    yield from layers(s)
    yield from linear("mm.1", s.n_embd, s.text)
    yield from linear("mm.2", s.text, s.text)
    yield from linear("mm.merger.fc1", 4 * s.text, s.text)
    yield from linear("mm.merger.fc2", s.text, s.text)


def exaone(s: ClipShape) -> Shapes:
    """Exaone."""
    yield "v.patch_embd.weight.1", (s.patch_size, s.patch_size, 3, s.n_embd)
    yield from layers(s, norm_bias=False, gate=True, fused=True)
    yield from norm("v.post_ln", s.n_embd, bias=False)
    yield from linear("mm.0", 4 * s.n_embd, 4 * s.n_embd)
    yield from linear("mm.2", 4 * s.n_embd, s.text)


def youtuvl(s: ClipShape) -> Shapes:
    """Youtuvl."""
    yield "v.patch_embd.bias", (s.n_embd,)
    yield from layers(s)
    yield from norm("v.post_ln", s.n_embd)
    yield "mm.input_norm.weight", (s.n_embd,)
    yield from linear("mm.0", 4 * s.n_embd, 4 * s.n_embd)
    yield from linear("mm.2", 4 * s.n_embd, s.text)
