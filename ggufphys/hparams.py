"""What are the model's hyperparameters? The one place where keys are read and llama.cpp's defaults resolved.

Names are llama.cpp's. What only one architecture's rule interprets (a window's period, say) stays as the file has it,
None when absent; the rule in `arch/` gives it its meaning.

Source: llama.cpp 0c1e570 src/llama-model.cpp, llama_model_base::load_hparams.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ggufphys.errors import GGUFError, UnsupportedError
from ggufphys.gguf import GGUFArray, GGUFFile

MAX_LAYERS: Final = 512  # LLAMA_MAX_LAYERS


@dataclass(frozen=True, slots=True, kw_only=True)
class HParams:
    """Hyperparameters with defaults resolved; tuples have one entry a layer, `n_layer_all` long."""

    arch: str
    n_ctx_train: int
    n_vocab: int
    n_embd: int
    n_layer_all: int  # with the next-token-prediction layers at the end
    n_layer_nextn: int
    n_head: tuple[int, ...]
    n_head_kv: tuple[int, ...]
    n_ff: tuple[int, ...]
    n_embd_head_k: int
    n_embd_head_v: int
    n_embd_head_k_swa: int
    n_embd_head_v_swa: int
    n_expert: int
    n_expert_used: int
    causal_attn: bool
    n_swa: int | None  # attention.sliding_window
    swa_pattern: int | tuple[bool, ...] | None  # attention.sliding_window_pattern: a period, or a flag for each layer

    @property
    def n_layer(self) -> int:
        """Layers of the trunk: without the next-token-prediction ones."""
        return self.n_layer_all - self.n_layer_nextn


def read_hparams(gguf: GGUFFile) -> HParams:
    """Read the hyperparameters of a model file.

    Raises:
        GGUFError: a required key is missing, of the wrong type, or out of range.
        UnsupportedError: the file has no architecture, so it is not a model.
    """
    arch = gguf.architecture
    if not arch:
        raise UnsupportedError(f"{gguf.path}: no general.architecture: not a model that llama.cpp can load")
    keys = _Keys(gguf, arch)
    n_layer_all = keys.integer("block_count")
    if not 0 < n_layer_all <= MAX_LAYERS:
        raise GGUFError(f"{gguf.path}: {arch}.block_count is {n_layer_all}, expected 1 to {MAX_LAYERS}")
    n_layer_nextn = keys.integer("nextn_predict_layers", 0)
    if not 0 <= n_layer_nextn <= n_layer_all:
        raise GGUFError(f"{gguf.path}: {arch}.nextn_predict_layers is {n_layer_nextn}, expected 0 to {n_layer_all}")
    n_embd = keys.integer("embedding_length")
    n_head = keys.per_layer("attention.head_count", n_layer_all, 0)
    head_size = n_embd // n_head[0] if n_head[0] else 0
    n_embd_head_k = keys.integer("attention.key_length", head_size) if head_size else 0
    n_embd_head_v = keys.integer("attention.value_length", head_size) if head_size else 0
    return HParams(
        arch=arch,
        n_ctx_train=keys.integer("context_length"),
        n_vocab=_n_vocab(gguf, keys),
        n_embd=n_embd,
        n_layer_all=n_layer_all,
        n_layer_nextn=n_layer_nextn,
        n_head=n_head,
        n_head_kv=keys.per_layer("attention.head_count_kv", n_layer_all, n_head),
        n_ff=keys.per_layer("feed_forward_length", n_layer_all, 0),
        n_embd_head_k=n_embd_head_k,
        n_embd_head_v=n_embd_head_v,
        n_embd_head_k_swa=keys.integer("attention.key_length_swa", n_embd_head_k),
        n_embd_head_v_swa=keys.integer("attention.value_length_swa", n_embd_head_v),
        n_expert=keys.integer("expert_count", 0),
        n_expert_used=max(keys.per_layer("expert_used_count", n_layer_all, 0)),
        causal_attn=gguf.get_bool(f"{arch}.attention.causal", True),
        n_swa=keys.optional("attention.sliding_window"),
        swa_pattern=_swa_pattern(gguf, keys, n_layer_all),
    )


def _n_vocab(gguf: GGUFFile, keys: "_Keys") -> int:
    """The number of tokens: of the tokenizer's list, else `vocab_size`, else the embedding's rows.

    Source: llama.cpp 0c1e570 src/llama-vocab.cpp, llama_vocab::impl::load ("no_vocab" reads vocab_size).
    """
    tokens = gguf.get_array("tokenizer.ggml.tokens")
    if tokens is not None:
        return len(tokens)
    embedding = gguf.tensors_by_name.get("token_embd.weight")
    return keys.integer("vocab_size", embedding.ne[-1] if embedding is not None and embedding.ne else 0)


def _swa_pattern(gguf: GGUFFile, keys: "_Keys", n_layer_all: int) -> int | tuple[bool, ...] | None:
    name = "attention.sliding_window_pattern"
    value = gguf.metadata.get(keys.full(name))
    if not isinstance(value, GGUFArray):
        return keys.optional(name)
    flags = tuple(bool(flag) for flag in value)
    return flags + (False,) * (n_layer_all - len(flags))


class _Keys:
    """The model's own keys, `{arch}.` in front."""

    __slots__ = ("arch", "gguf")

    def __init__(self, gguf: GGUFFile, arch: str) -> None:
        self.gguf = gguf
        self.arch = arch

    def full(self, name: str) -> str:
        return f"{self.arch}.{name}"

    def optional(self, name: str) -> int | None:
        key = self.full(name)
        return self.gguf.get_int(key, 0) if key in self.gguf.metadata else None

    def integer(self, name: str, default: int | None = None) -> int:
        value = self.optional(name)
        if value is not None:
            return value
        if default is None:
            raise GGUFError(f"{self.gguf.path}: key {self.full(name)!r} is missing, which llama.cpp requires")
        return default

    def per_layer(self, name: str, n_layer_all: int, default: int | Sequence[int]) -> tuple[int, ...]:
        """A key that holds one number for all layers, or an array with one for each."""
        key = self.full(name)
        value = self.gguf.metadata.get(key)
        if value is None:
            return (default,) * n_layer_all if isinstance(default, int) else tuple(default)
        if not isinstance(value, GGUFArray):
            return (self.gguf.get_int(key, 0),) * n_layer_all
        if len(value) != n_layer_all:
            raise GGUFError(f"{self.gguf.path}: key {key!r} has {len(value)} entries, expected {n_layer_all}")
        numbers = tuple(value)
        if not all(isinstance(n, int) for n in numbers):
            found = value.element_type.name
            raise GGUFError(f"{self.gguf.path}: key {key!r} is an array of {found}, expected integers")
        return tuple(int(n) for n in numbers)
