"""What do a file's tensors say of a model whose architecture has no row? Its parts, read off names and shapes.

Names and shapes are llama.cpp's (src/llama-arch.cpp, LLM_TENSOR_NAMES), which new architectures mostly go on using.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from ggufphys.errors import GGUFError
from ggufphys.frozen import dataclass
from ggufphys.gguf import GGUFFile, TensorInfo
from ggufphys.hparams.keys import Keys

Parts = Mapping[str, TensorInfo]  # a layer's tensors, by their names within it

_NORMS: Final = (  # each kind of norm by the stems that stand for it
    ("before attention", ("attn_norm", "attn_norm_2")),
    ("of query and key heads", ("attn_q_norm", "attn_k_norm")),
    ("behind attention", ("post_attention_norm", "attn_post_norm")),
    ("before feed-forward", ("ffn_norm",)),
    ("behind feed-forward", ("post_ffw_norm", "ffn_post_norm", "layer_output_norm")),
)
_RECURRENT: Final = (  # kinds of recurrence by a beginning that only they have
    ("time mix (RWKV)", "time_mix_"), ("short convolution", "shortconv."), ("Kimi delta attention", "ssm_conv1d_q"),
    ("gated delta net", "ssm_beta"), ("gated delta net", "ssm_ba"), ("state space", "ssm_"),
)  # fmt: skip
_CONVOLUTIONS: Final = ("ssm_conv1d.weight", "ssm_conv1d_q.weight", "ssm_conv1d_k.weight", "ssm_conv1d_v.weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Rows of keys and values as wide as `k_width` and `v_width`, in heads; `latent`: one compressed row, no values.

    `indexer_width` is that of an indexer's keys, by which sparse attention chooses rows.
    """

    n_head: int
    n_head_kv: int
    k_width: int
    v_width: int
    latent: bool = False
    indexer_width: int = 0
    is_gated: bool = False
    has_sinks: bool = False

    def __str__(self) -> str:
        has = (("gated", self.is_gated), ("with sinks", self.has_sinks), ("by an indexer", self.indexer_width))
        more = "".join(f", {what}" for what, is_so in has if is_so)
        if self.latent:
            return f"{self.n_head} heads over one compressed row of {self.k_width}{more}"
        heads = f"{self.n_head} heads"
        if 0 < self.n_head_kv < self.n_head:
            heads += f" over {self.n_head_kv} of keys and values"
        return f"{heads}, K rows of {self.k_width:,} and V of {self.v_width:,}{more}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedForward:
    """A feed-forward part `n_ff` wide, or that of each of `n_expert`; `shared_width` of the experts that all use."""

    n_ff: int
    is_gated: bool
    n_expert: int = 0
    n_expert_used: int = 0
    shared_width: int = 0

    def __str__(self) -> str:
        kind = f"{self.n_ff:,} wide, {'gated' if self.is_gated else 'not gated'}"
        if not self.n_expert:
            return kind
        used = f"{self.n_expert_used} of {self.n_expert} experts"
        return f"{used}, {kind}{f', one of {self.shared_width:,} shared' if self.shared_width else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrence:
    """A recurrent part and what it keeps of a sequence, in elements: of its convolution, and its state."""

    kind: str
    n_embd_r: int
    n_embd_s: int

    def __str__(self) -> str:
        return f"{self.kind}, keeps {self.n_embd_r + self.n_embd_s:,} elements a sequence"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer; None is what it does not have."""

    attention: Attention | None
    recurrence: Recurrence | None
    ffn: FeedForward | None
    norms: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """All of a model: its width and vocabulary, its layers, whether it has logits, and tensors that nothing reads."""

    n_embd: int
    n_vocab: int
    layers: tuple[Layer, ...]
    has_output: bool
    unread: tuple[str, ...]


def anatomy_of(gguf: GGUFFile) -> Anatomy:
    """What the tensors say; keys are asked where shapes leave it open, such as how many heads share a row.

    Raises:
        GGUFError: there is no embedding of tokens, or there are no layers: not a language model, for all we can see.
    """
    embedding = gguf.tensors_by_name.get("token_embd.weight")
    layers: dict[int, dict[str, TensorInfo]] = {}
    for tensor, (il, part) in zip(gguf.tensors, gguf.split_names, strict=True):
        if il is not None and tensor.name.startswith("blk."):
            layers.setdefault(il, {})[part] = tensor
    if embedding is None or len(embedding.ne) != 2 or not layers:
        raise GGUFError(f"{gguf.path}: no token_embd.weight of two axes, or no layers (blk.N): no language model")
    keys, n_embd = Keys(gguf, gguf.architecture), embedding.ne[0]
    read = [_layer(layers.get(il, {}), il, n_embd, keys) for il in range(max(layers) + 1)]
    return Anatomy(
        n_embd=n_embd,
        n_vocab=embedding.ne[1],
        layers=tuple(read),
        has_output="output.weight" in gguf.tensors_by_name,
        unread=tuple(sorted({stem for parts in layers.values() for stem in map(_stem, parts) if not _is_read(stem)})),
    )


def _layer(parts: Parts, il: int, n_embd: int, keys: Keys) -> Layer:
    return Layer(
        attention=_attention(parts, il, n_embd, keys),
        recurrence=_recurrence(parts, n_embd, keys),
        ffn=_feed_forward(parts, il, keys),
        norms=tuple(what for what, stems in _NORMS if any(f"{stem}.weight" in parts for stem in stems)),
    )


def _attention(parts: Parts, il: int, n_embd: int, keys: Keys) -> Attention | None:
    n_head = _number(keys, "attention.head_count", il)
    if "ssm_conv1d_q.weight" in parts:
        return None  # Kimi delta attention calls its projections by the same names
    indexer = parts.get("indexer.attn_k.weight")
    compressed = parts.get("attn_kv_a_mqa.weight")
    if compressed is not None:
        widths = (0, _width(compressed), 0)
        n_head, n_head_kv = n_head or 1, 1
    else:
        found = _widths(parts, n_head, size := _head_size(parts, n_embd, n_head, keys))
        if found is None:
            return None
        widths = found
        n_head_kv = _number(keys, "attention.head_count_kv", il)
        n_head_kv = n_head_kv if n_head_kv and widths[1] % n_head_kv == 0 else max(widths[1] // size, 1)
        n_head = n_head or max(widths[0] // (widths[1] // n_head_kv), 1)
    q_width, k_width, v_width = widths
    return Attention(
        n_head=n_head, n_head_kv=n_head_kv, k_width=k_width, v_width=v_width,
        latent=compressed is not None,
        indexer_width=_width(indexer) if indexer is not None else 0,
        is_gated="attn_gate.weight" in parts or q_width == 2 * n_head * (k_width // n_head_kv),
        has_sinks="attn_sinks.weight" in parts,
    )  # fmt: skip


def _widths(parts: Parts, n_head: int, size: int) -> tuple[int, int, int] | None:
    """Of rows of queries, keys, values; None in a layer that attends to rows of another one, or not at all."""
    k, fused = parts.get("attn_k.weight"), parts.get("attn_qkv.weight")
    if k is not None:
        q = parts.get("attn_q.weight") or parts.get("attn_q_b.weight")
        v = parts.get("attn_v.weight") or parts.get("attn_v_exps.weight")  # keys may be the values, too
        return _width(q or k), _width(k), _width(v or k)
    if fused is None or any(part.startswith("ssm_") for part in parts):
        return None
    k_width = (_width(fused) - size * n_head) // 2
    return (size * n_head, k_width, k_width) if n_head and k_width > 0 else None


def _head_size(parts: Parts, n_embd: int, n_head: int, keys: Keys) -> int:
    if size := keys.integer("attention.key_length", 0):
        return size
    norm = parts.get("attn_k_norm.weight") or parts.get("attn_q_norm.weight")
    if norm is not None and norm.ne and 0 < norm.ne[0] <= n_embd // 2:
        return norm.ne[0]
    return n_embd // n_head if 0 < n_head <= n_embd else max(min(n_embd, 128), 1)


def _feed_forward(parts: Parts, il: int, keys: Keys) -> FeedForward | None:
    experts = parts.get("ffn_up_exps.weight") or parts.get("ffn_gate_up_exps.weight")
    shared = parts.get("ffn_up_shexp.weight") or parts.get("ffn_gate_shexp.weight")
    if experts is not None and len(experts.ne) == 3:
        down = parts.get("ffn_down_exps.weight")
        return FeedForward(
            n_ff=down.ne[0] if down is not None else experts.ne[1],
            is_gated="ffn_gate_exps.weight" in parts or "ffn_gate_up_exps.weight" in parts,
            n_expert=experts.ne[2],
            n_expert_used=_number(keys, "expert_used_count", il) or 1,
            shared_width=_width(shared) if shared is not None else 0,
        )
    down = parts.get("ffn_down.weight")
    if down is None:
        return None
    halves = (up := parts.get("ffn_up.weight")) is not None and _width(up) == 2 * down.ne[0]
    return FeedForward(n_ff=down.ne[0], is_gated="ffn_gate.weight" in parts or halves)


def _recurrence(parts: Parts, n_embd: int, keys: Keys) -> Recurrence | None:
    kind = next((kind for kind, start in _RECURRENT if any(part.startswith(start) for part in parts)), None)
    if kind is None:
        return None
    if kind == "time mix (RWKV)":
        n_embd_s = n_embd * keys.integer("wkv.head_size", 64)
        return Recurrence(kind=kind, n_embd_r=keys.integer("token_shift_count", 2) * n_embd, n_embd_s=n_embd_s)
    if kind == "short convolution":
        conv = parts.get("shortconv.conv.weight")
        return Recurrence(kind=kind, n_embd_r=_kept(conv), n_embd_s=0)
    kept = sum(_kept(parts.get(name)) for name in _CONVOLUTIONS)
    return Recurrence(kind=kind, n_embd_r=kept, n_embd_s=_state(parts, keys))


def _state(parts: Parts, keys: Keys) -> int:
    """Elements of the state of a scan: `ssm_a` is as large where each has its own factor; else heads' squares."""
    a, out, norm = (parts.get(name) for name in ("ssm_a", "ssm_out.weight", "ssm_norm.weight"))
    if a is not None and len(a.ne) == 2 and a.ne[0] > 1:
        return a.n_elements
    if (kernel := parts.get("ssm_conv1d_q.weight")) is not None and norm is not None and norm.ne:
        return norm.ne[0] * kernel.ne[-1]
    d_state = keys.integer("ssm.state_size", 0) or (norm.ne[0] if norm is not None and norm.ne else 1)
    inner = keys.integer("ssm.inner_size", 0) or (out.ne[0] if out is not None else 0)
    return d_state * inner


def _kept(conv: TensorInfo | None) -> int:
    return 0 if conv is None or len(conv.ne) < 2 else max(conv.ne[0] - 1, 0) * conv.ne[-1]


def _width(tensor: TensorInfo) -> int:
    """How wide the rows are that a product with it has."""
    return tensor.ne[1] if len(tensor.ne) > 1 else 1


def _number(keys: Keys, name: str, il: int) -> int:
    value = keys.numbers(name)
    if isinstance(value, tuple):
        return value[il] if il < len(value) else 0
    return value or 0


def _stem(part: str) -> str:
    return part.removesuffix(".weight").removesuffix(".bias")


_READ: Final = frozenset({
    "attn_q", "attn_k", "attn_v", "attn_qkv", "attn_output", "attn_gate", "attn_sinks", "attn_v_exps", "attn_q_a",
    "attn_q_b", "attn_q_a_norm", "attn_kv_a_mqa", "attn_kv_a_norm", "attn_kv_b", "attn_k_b", "attn_v_b", "ffn_up",
    "ffn_gate", "ffn_down", "ffn_gate_inp", "ffn_up_exps", "ffn_gate_exps", "ffn_gate_up_exps", "ffn_down_exps",
    "indexer.attn_k", "ffn_up_shexp", "ffn_gate_shexp", "ffn_down_shexp", "exp_probs_b", "ffn_gate_inp_shexp",
    *(stem for _, stems in _NORMS for stem in stems),
})  # fmt: skip


def _is_read(stem: str) -> bool:
    return stem in _READ or any(stem.startswith(start) for _, start in _RECURRENT)


def kinds(anatomy: Anatomy) -> Iterator[tuple[str, str, int]]:
    """What there is: "attention" or another part, its kind, in how many layers; of each the most frequent first."""
    for what, found in (
        ("attention", [layer.attention for layer in anatomy.layers]),
        ("recurrent", [layer.recurrence for layer in anatomy.layers]),
        ("feed-forward", [layer.ffn for layer in anatomy.layers]),
        ("norms", [", ".join(layer.norms) or None for layer in anatomy.layers]),
    ):
        texts = [str(part) for part in found if part is not None]
        for text in sorted(set(texts), key=lambda text: (-texts.count(text), text)):
            yield what, text, texts.count(text)


__all__ = ["Anatomy", "Attention", "FeedForward", "Layer", "Recurrence", "anatomy_of", "kinds"]
