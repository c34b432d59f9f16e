"""The sizes of one mmproj file, and the tensors that encoders have in common."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from ggufphys.gguf import GGMLType
from ggufphys.gguf.writer import WriteValue

Shapes = Iterator[tuple[str, tuple[int, ...]]]
AUDIO: Final = frozenset({"ultravox", "voxtral", "qwen2a", "glma", "meralion", "musicflamingo", "qwen3a"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipShape:
    """The sizes of one mmproj file; `text` is the text model's n_embd."""

    projector: str
    n_embd: int = 64
    n_head: int = 4
    n_ff: int = 160
    n_layer: int = 3
    image_size: int = 56
    patch_size: int = 14
    text: int = 96
    keys: Mapping[str, WriteValue] = field(default_factory=dict)  # without "clip."
    weight_type: GGMLType = GGMLType.F16

    @property
    def n_patches(self) -> int:
        """Patches of an image of image_size."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def modality(self) -> str:
        """Vision or audio."""
        return "audio" if self.projector in AUDIO else "vision"


Tower = Callable[[ClipShape], Shapes]


def layers(
    s: ClipShape, *, fused: bool = False, bias: bool = True, norm_bias: bool = True, gate: bool = False,
    more: tuple[str, ...] = (), k_bias: bool = True,
) -> Shapes:  # fmt: skip
    """Attention, feed-forward layer and norms of each layer."""
    letter = s.modality[0]
    for il in range(s.n_layer):
        prefix = f"{letter}.blk.{il}."
        names = [("attn_qkv", s.n_embd, 3 * s.n_embd)] if fused else [(f"attn_{x}", s.n_embd, s.n_embd) for x in "qkv"]
        names += [("attn_out", s.n_embd, s.n_embd), ("ffn_up", s.n_embd, s.n_ff), ("ffn_down", s.n_ff, s.n_embd)]
        names += [("ffn_gate", s.n_embd, s.n_ff)] if gate else []
        for name, n_in, n_out in names:
            yield f"{prefix}{name}.weight", (n_in, n_out)
            if bias and (k_bias or name != "attn_k"):
                yield f"{prefix}{name}.bias", (n_out,)
        for name in ("ln1", "ln2"):
            yield from norm(f"{prefix}{name}", s.n_embd, bias=norm_bias)
        for name in more:
            yield (
                f"{prefix}{name}",
                (s.n_embd if name.startswith(("ls", "attn_post", "ffn_post")) else s.n_embd // s.n_head,),
            )


def linear(name: str, n_in: int, n_out: int, *, bias: bool = True) -> Shapes:
    """A matrix and its bias."""
    yield f"{name}.weight", (n_in, n_out)
    if bias:
        yield f"{name}.bias", (n_out,)


def norm(name: str, n: int, *, bias: bool = True) -> Shapes:
    """A gain and its bias."""
    yield f"{name}.weight", (n,)
    if bias:
        yield f"{name}.bias", (n,)


def siglip(s: ClipShape) -> Shapes:
    """Patches with bias, learned positions, layers, a norm behind."""
    yield "v.patch_embd.bias", (s.n_embd,)
    yield "v.position_embd.weight", (s.n_embd, s.n_patches)
    yield from layers(s)
    yield from norm("v.post_ln", s.n_embd)


def mlp_of(first: str, second: str, *, merged: bool = False, before: str = "") -> Tower:
    """A projector of two matrices, `merged` patches side by side before them."""

    def shapes(s: ClipShape) -> Shapes:
        width = s.n_embd * (merge(s) ** 2 if merged else 1)
        yield from linear(first, width, s.text)
        yield from linear(second, s.text, s.text)
        if before:
            yield from norm(before, s.n_embd)

    return shapes


def both(*parts: Tower) -> Tower:
    """One part of the encoder, then the others."""

    def shapes(s: ClipShape) -> Shapes:
        for part in parts:
            yield from part(s)

    return shapes


def merge(s: ClipShape) -> int:
    """Patches a side that become one token."""
    default = {"gemma3": 4, "idefics3": 2, "pixtral": 2, "lightonocr": 2, "gemma4v": 3}.get(s.projector, 2)
    return {"janus_pro": 1, "phi4": 1}.get(s.projector, default)
