"""What are the model's hyperparameters? The one place where keys are read and llama.cpp's defaults resolved.

Names are llama.cpp's. What only one architecture's rule interprets (a window's period, say) stays as the file has it,
None when absent; the rule in `arch/` gives it its meaning. What the architecture's loader changes after reading (layers
that it adds, say), `arch.read_hparams` does.

Source: llama.cpp 0c1e570 src/llama-model.cpp, llama_model_base::load_hparams; src/models/, load_arch_hparams.
"""

from typing import Final

from ggufphys.errors import GGUFError, UnsupportedError
from ggufphys.frozen import dataclass
from ggufphys.gguf import GGUFArray, GGUFFile
from ggufphys.gguf.values import ValueType
from ggufphys.hparams.keys import Keys, Numbers

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
    n_expert_used: int  # the most of any layer
    n_expert_used_by_layer: tuple[int, ...]
    causal_attn: bool
    pooling_type: int  # how embeddings of a sequence become one; -1: not said
    n_embd_out: int  # the width of embeddings
    swiglu_clamp_exp: tuple[float, ...]  # limits of experts' activations, 0 for none
    swiglu_clamp_shexp: tuple[float, ...]  # and of all other feed-forward layers'

    # windows
    n_swa: int | None  # attention.sliding_window
    swa_pattern: int | tuple[bool, ...] | None  # attention.sliding_window_pattern: a period, or a flag for each layer
    n_kv_shared_layers: int  # attention.shared_kv_layers
    n_moe_layer_step: int  # interleave_moe_layer_step
    rope_pattern: tuple[bool, ...] = ()  # which layers rotate queries and keys; empty: all
    sparse_ffn: tuple[bool, ...] = ()  # which layers let only gates pass that are far above the mean; empty: none
    dec_n_layer: int = 0  # how many layers decode, where others encode
    deepstack: tuple[int, ...] = ()  # which slice of an image's embeddings a layer adds, -1 for none; empty: none does

    # compressed attention; the sizes of heads before compression only say that it is used
    n_lora_kv: int
    n_embd_head_k_mla: int
    n_embd_head_v_mla: int
    n_layer_dense_lead: int
    indexer_n_head: int
    indexer_head_size: int
    indexer_top_k: int
    indexer_kpool: int
    indexer_types: Numbers | None  # which layers have an indexer of their own
    compress_ratios: Numbers | None
    attn_temp_scale: float  # by which queries grow with their position
    attn_temp_length: int  # a step of that, in positions
    hc_mult: int  # hyper_connection.count

    # recurrent layers
    recurrent_layers: Numbers | None
    full_attention_interval: int | None
    ssm_d_conv: int
    ssm_d_inner: int
    ssm_d_state: int
    ssm_n_group: int
    wkv_head_size: int
    token_shift_count: int
    rescaled: tuple[bool, ...]  # behind which layers activations are halved
    n_shortconv_l_cache: int
    n_embd_head_kda: int
    checkpoints: tuple[tuple[int, bool], ...]  # of the residual stream: how many before a layer, does it keep one
    weights_of: tuple[int, ...]  # where layers run again and again: whose weights each has, none if its own
    runs: tuple[tuple[int, bool], ...]  # and the number of its run, does that end behind it
    ple_layers: tuple[int, ...]  # the layers with n-gram embeddings
    ple_ngram_size: int
    ple_heads_per_ngram: int
    ple_conv_kernel: int

    @property
    def n_layer(self) -> int:
        """Layers of the trunk: without the next-token-prediction ones."""
        return self.n_layer_all - self.n_layer_nextn

    @property
    def n_layer_run(self) -> int:
        """Layers that a token passes: the trunk's, or those of the decoder where an encoder has its own."""
        return self.dec_n_layer or self.n_layer

    def has_rope(self, il: int) -> bool:
        """Does this layer rotate queries and keys?"""
        return not self.rope_pattern or self.rope_pattern[il]

    def is_moe_step(self, il: int) -> bool:
        """Is this layer's turn for experts, where one in `n_moe_layer_step` has them?"""
        return not self.n_moe_layer_step or (il + 1) % self.n_moe_layer_step == 0

    @property
    def is_mla(self) -> bool:
        """Do keys and values share one compressed row? Asked only of architectures whose loader reads these keys."""
        return self.n_embd_head_k_mla > 0 and self.n_embd_head_v_mla > 0


def as_written(gguf: GGUFFile) -> HParams:
    """The hyperparameters of a model file, before its architecture has its say (`arch.read_hparams`).

    Raises:
        GGUFError: a required key is missing, of the wrong type, or out of range.
        UnsupportedError: the file has no architecture, so it is not a model.
    """
    arch = gguf.architecture
    if not arch:
        raise UnsupportedError(f"{gguf.path}: no general.architecture: not a model that llama.cpp can load")
    keys = Keys(gguf, arch)
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
        pooling_type=keys.integer("pooling_type", -1),
        n_embd_out=keys.integer("embedding_length_out", n_embd),
        n_embd_head_k=n_embd_head_k,
        n_embd_head_v=n_embd_head_v,
        n_embd_head_k_swa=keys.integer("attention.key_length_swa", n_embd_head_k),
        n_embd_head_v_swa=keys.integer("attention.value_length_swa", n_embd_head_v),
        n_expert=keys.integer("expert_count", 0),
        n_expert_used_by_layer=keys.per_layer("expert_used_count", n_layer_all, 0),
        n_expert_used=max(keys.per_layer("expert_used_count", n_layer_all, 0)),
        swiglu_clamp_exp=_limits(keys, "swiglu_clamp_exp", n_layer_all),
        swiglu_clamp_shexp=_limits(keys, "swiglu_clamp_shexp", n_layer_all),
        causal_attn=gguf.get_bool(f"{arch}.attention.causal", True),
        n_swa=keys.optional("attention.sliding_window"),
        swa_pattern=_swa_pattern(keys, n_layer_all),
        n_kv_shared_layers=_signed(keys.integer("attention.shared_kv_layers", 0)),
        n_moe_layer_step=keys.integer("interleave_moe_layer_step", 0),
        n_lora_kv=keys.integer("attention.kv_lora_rank", 0),
        n_embd_head_k_mla=keys.integer("attention.key_length_mla", 0),
        n_embd_head_v_mla=keys.integer("attention.value_length_mla", 0),
        n_layer_dense_lead=keys.integer("leading_dense_block_count", 0),
        indexer_n_head=keys.integer("attention.indexer.head_count", 0),
        indexer_head_size=keys.integer("attention.indexer.key_length", 0),
        indexer_top_k=keys.integer("attention.indexer.top_k", 0),
        indexer_kpool=keys.integer("attention.indexer.kpool", 0),
        indexer_types=keys.numbers("attention.indexer.types"),
        compress_ratios=keys.numbers("attention.compress_ratios"),
        attn_temp_scale=keys.real("attention.temperature_scale", 0.0),
        attn_temp_length=keys.integer("attention.temperature_length", 0),
        hc_mult=keys.integer("hyper_connection.count", 0),
        recurrent_layers=keys.numbers("attention.recurrent_layers"),
        full_attention_interval=keys.optional("full_attention_interval"),
        ssm_d_conv=keys.integer("ssm.conv_kernel", 0),
        ssm_d_inner=keys.integer("ssm.inner_size", 0),
        ssm_d_state=keys.integer("ssm.state_size", 0),
        ssm_n_group=keys.integer("ssm.group_count", 0),
        wkv_head_size=keys.integer("wkv.head_size", 0),
        token_shift_count=keys.integer("token_shift_count", 2),
        rescaled=_every(keys.integer("rescale_every_n_layers", 0), n_layer_all),
        n_shortconv_l_cache=keys.integer("shortconv.l_cache", 0),
        n_embd_head_kda=keys.integer("kda.head_dim", 0),
        checkpoints=_checkpoints(keys.integer("attn_res.block_size", 0), n_layer_all),
        weights_of=(),
        runs=(),
        ple_layers=_as_tuple(keys.numbers("ple.layers")),
        ple_ngram_size=keys.integer("ple.ngram_size", 0),
        ple_heads_per_ngram=keys.integer("ple.heads_per_ngram", 0),
        ple_conv_kernel=keys.integer("ple.conv_kernel", 0),
    )


def _signed(n: int) -> int:
    """A 32-bit number as C's int has it."""
    return (n + (1 << 31)) % (1 << 32) - (1 << 31)


def _n_vocab(gguf: GGUFFile, keys: Keys) -> int:
    """The number of tokens: of the tokenizer's list, else `vocab_size`, else the embedding's rows.

    Source: llama.cpp 0c1e570 src/llama-vocab.cpp, llama_vocab::impl::load ("no_vocab" reads vocab_size).
    """
    tokens = gguf.metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, GGUFArray) and gguf.metadata.get("tokenizer.ggml.model") not in ("no_vocab", "none"):
        return len(tokens)
    embedding = gguf.tensors_by_name.get("token_embd.weight")
    return keys.integer("vocab_size", embedding.ne[-1] if embedding is not None and embedding.ne else 0)


def _limits(keys: Keys, name: str, n_layer_all: int) -> tuple[float, ...]:
    """Numbers for each layer, those that llama.cpp takes for 0 as 0."""
    key = keys.full(name)
    value = keys.gguf.metadata.get(key)
    if isinstance(value, GGUFArray):
        is_read = value.element_type is ValueType.FLOAT32 and len(value) >= n_layer_all
    else:
        is_read = isinstance(value, float)
    numbers = keys.reals(key, n_layer_all) if is_read else (0.0,) * n_layer_all
    return tuple(number if number > 1e-6 else 0.0 for number in numbers)


def _checkpoints(interval: int, n_layer_all: int) -> tuple[tuple[int, bool], ...]:
    return tuple((-(-il // interval), il % interval == 0) if interval > 0 else (0, False) for il in range(n_layer_all))


def _every(interval: int, n_layer_all: int) -> tuple[bool, ...]:
    return tuple(interval > 0 and (il + 1) % interval == 0 for il in range(n_layer_all))


def _swa_pattern(keys: Keys, n_layer_all: int) -> int | tuple[bool, ...] | None:
    value = keys.numbers("attention.sliding_window_pattern")
    if not isinstance(value, tuple):
        return value
    flags = tuple(bool(flag) for flag in value)
    return flags + (False,) * (n_layer_all - len(flags))


def _as_tuple(value: Numbers | None) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else () if value is None else (value,)
