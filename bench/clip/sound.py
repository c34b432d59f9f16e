"""Tensors of encoders of sound."""

from bench.clip.shape import ClipShape, Shapes, layers, linear, norm


def whisper(s: ClipShape) -> Shapes:
    """Whisper."""
    yield "a.conv1d.1.weight", (3, 128, s.n_embd)
    yield "a.conv1d.1.bias", (1, s.n_embd)
    yield "a.conv1d.2.weight", (3, s.n_embd, s.n_embd)
    yield "a.conv1d.2.bias", (1, s.n_embd)
    yield "a.position_embd.weight", (s.n_embd, 1500)
    yield from layers(s, k_bias=False)
    yield from norm("a.post_ln", s.n_embd)
    stacked = s.n_embd * 4 if s.projector in ("ultravox", "voxtral", "meralion", "glma") else s.n_embd
    match s.projector:
        case "ultravox":
            yield "mm.a.norm_pre.weight", (stacked,)
            yield "mm.a.mlp.1.weight", (stacked, 2 * s.text)
            yield "mm.a.norm_mid.weight", (s.text,)
            yield "mm.a.mlp.2.weight", (s.text, s.text)
        case "qwen2a":
            yield from linear("mm.a.fc", stacked, s.text)
        case "meralion":
            yield from norm("mm.a.norm_pre", stacked)
            yield from linear("mm.a.mlp.0", stacked, s.n_ff)
            for name in ("1", "2"):
                yield from linear(f"mm.a.mlp.{name}", s.n_ff, s.n_ff)
            yield from linear("mm.a.mlp.3", s.n_ff, s.text)
        case "glma":
            yield from norm("mm.a.norm_pre", s.n_embd)
            yield from linear("mm.a.mlp.1", stacked, s.text)
            yield from linear("mm.a.mlp.2", s.text, s.text)
            yield "v.boi", (s.text,)
            yield "v.eoi", (s.text,)
        case _:
            bias = s.projector == "musicflamingo"
            yield from linear("mm.a.mlp.1", stacked, s.text, bias=bias)
            yield from linear("mm.a.mlp.2", s.text, s.text, bias=bias)


def qwen3a(s: ClipShape) -> Shapes:
    """qwen3a."""
    for i, n_in in ((1, 1), (2, 48), (3, 48)):
        yield f"a.conv2d.{i}.weight", (3, 3, n_in, 48)
        yield f"a.conv2d.{i}.bias", (48,)
    yield "a.conv_out.weight", (48 * 16, s.n_embd)
    yield "a.position_embd.weight", (s.n_embd, 1500)
    yield from layers(s)
    yield from norm("a.post_ln", s.n_embd)
    yield from linear("mm.a.mlp.1", s.n_embd, s.n_embd)
    yield from linear("mm.a.mlp.2", s.n_embd, s.text)
