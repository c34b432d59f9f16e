"""llama-quantize's constants: what each file type name stands for, and which tensors it leaves alone. Data only.

Source: llama.cpp 0c1e570 src/llama-quant.cpp (llama_ftype_get_default_type, tensor_allows_quantization,
tensor_get_category, tensor_type_fallback), tools/quantize/quantize.cpp (QUANT_OPTIONS).
"""

from enum import Enum, auto
from typing import Final

from ggufphys.gguf.ggml_types import GGMLType as T


class Role(Enum):
    """What a tensor is for, as far as the choice of its type cares."""

    OUTPUT = auto()
    TOKEN_EMBD = auto()
    ATTN_V = auto()  # also what has V in it: fused QKV, MLA's undivided KV_B
    ATTN_K = auto()
    ATTN_Q = auto()
    ATTN_OUTPUT = auto()
    FFN_UP = auto()
    FFN_GATE = auto()
    FFN_DOWN = auto()
    OTHER = auto()


# fmt: off
# The type most tensors of a file get, by llama-quantize's name for the file. NVFP4 files are made by converters only.
BASE_TYPES: Final[dict[str, T]] = {
    "F32":     T.F32,     "F16":     T.F16,     "BF16":    T.BF16,
    "Q1_0":    T.Q1_0,    "Q2_0":    T.Q2_0,    "Q4_0":    T.Q4_0,    "Q4_1":    T.Q4_1,
    "Q5_0":    T.Q5_0,    "Q5_1":    T.Q5_1,    "Q8_0":    T.Q8_0,    "MXFP4_MOE": T.MXFP4,
    "Q2_K":    T.Q2_K,    "Q2_K_S":  T.Q2_K,
    "Q3_K_S":  T.Q3_K,    "Q3_K_M":  T.Q3_K,    "Q3_K_L":  T.Q3_K,
    "Q4_K_S":  T.Q4_K,    "Q4_K_M":  T.Q4_K,    "Q5_K_S":  T.Q5_K,    "Q5_K_M":  T.Q5_K,    "Q6_K":    T.Q6_K,
    "TQ1_0":   T.TQ1_0,   "TQ2_0":   T.TQ2_0,
    "IQ1_S":   T.IQ1_S,   "IQ1_M":   T.IQ1_M,
    "IQ2_XXS": T.IQ2_XXS, "IQ2_XS":  T.IQ2_XS,  "IQ2_S":   T.IQ2_XS,  "IQ2_M":   T.IQ2_S,
    "IQ3_XXS": T.IQ3_XXS, "IQ3_XS":  T.IQ3_S,   "IQ3_S":   T.IQ3_S,   "IQ3_M":   T.IQ3_S,
    "IQ4_NL":  T.IQ4_NL,  "IQ4_XS":  T.IQ4_XS,
}
COPY: Final = "COPY"  # no type at all: tensors as they are, in one file
ALIASES: Final[dict[str, str]] = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}
UNQUANTIZED: Final = frozenset({T.F32, T.F16, T.BF16})

# The first part found in a tensor's name decides; OUTPUT and TOKEN_EMBD go by the whole name.
ROLES_BY_NAME: Final[dict[str, Role]] = {
    "output.weight":               Role.OUTPUT,
    "token_embd.weight":           Role.TOKEN_EMBD,
    "per_layer_token_embd.weight": Role.TOKEN_EMBD,
}
ROLES_BY_PART: Final[tuple[tuple[str, Role], ...]] = (
    ("attn_qkv.weight",    Role.ATTN_V),
    ("attn_kv_b.weight",   Role.ATTN_V),
    ("attn_v.weight",      Role.ATTN_V),
    ("attn_k.weight",      Role.ATTN_K),
    ("attn_q.weight",      Role.ATTN_Q),
    ("attn_output.weight", Role.ATTN_OUTPUT),
    ("ffn_up",             Role.FFN_UP),
    ("ffn_gate",           Role.FFN_GATE),
    ("ffn_down",           Role.FFN_DOWN),
)

# Tensors that keep the type they have, because they are small or do not bear it.
KEPT_NAMES: Final = frozenset({"position_embd.weight", "token_types.weight"})
KEPT_PARTS: Final[tuple[str, ...]] = (
    "_norm.weight",
    "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight",                          # expert routing
    "altup", "laurel", "per_layer_model_proj",                                 # Gemma 3n
    "ssm_conv1d", "shortconv.conv.weight",                                     # short convolutions
    "indexer.k_proj.weight", "indexer.q_proj.weight",                          # MiniMax
    "time_mix_first.weight", "time_mix_lerp_fused.weight",                     # RWKV
    "time_mix_w0.weight", "time_mix_w1.weight", "time_mix_w2.weight",
    "time_mix_v0.weight", "time_mix_v1.weight", "time_mix_v2.weight",
    "time_mix_a0.weight", "time_mix_a1.weight", "time_mix_a2.weight",
    "time_mix_g1.weight", "time_mix_g2.weight",
    "time_mix_decay_w1.weight", "time_mix_decay_w2.weight",
    "attn_rel_b.weight",                                                       # T5
    ".position_embd", "sam.pos_embd", "sam.neck.", "sam.net_", ".rel_pos",     # vision towers
    ".patch_embd", ".patch_merger",
    "a.rvq.codebook", "mm.a.code_embd",                                        # audio codebooks
)
KEPT_PARTS_OF: Final[dict[str, tuple[str, ...]]] = {
    "glm5-next": (
        "hc_", "indexer.attn_q_b", "indexer.attn_k", "indexer.proj", "indexer_compressor_gate",
        "indexer_compressor_ape", "ssm_f_a.weight", "ssm_f_b.weight", "ssm_g_a.weight", "ssm_g_b.weight",
        "ssm_beta.weight", "attn_kv_a_mqa.weight", "attn_k_b.weight", "attn_v_b.weight",
    ),
}
# Tensors that never go below Q8_0.
Q8_0_PARTS_OF: Final[dict[str, tuple[str, ...]]] = {"glm5-next": ("attn_q_a", "attn_q_b", "nextn.eh_proj")}

# Architectures whose mixes differ: attention beside the FFN, not before it; other 3D tensors than experts, so that the
# role must fit too; "70B" only with grouped queries and without eight experts.
MIXES_OF_ITS_OWN: Final = frozenset({"falcon"})
EXPERTS_BY_ROLE: Final = frozenset({"bailingmoe3"})
GROUPED_70B: Final = frozenset({"llama", "llama-embed"})

# Layers without a block of their own: a router behind the trunk; passes over the same blocks, as many as a key says.
# Projectors have no layers, and llama-quantize reads none of their hyperparameters.
ADDED_LAYERS: Final[dict[str, int]] = {"graniteswitch": 1}
LOOPS_KEYS: Final[dict[str, str]] = {"nanbeige": "num_loops"}
WITHOUT_LAYERS: Final = frozenset({"clip"})

# What a type becomes when a row is no multiple of its block; what does not fit that either becomes F16.
FALLBACKS: Final[dict[T, T]] = {
    T.IQ1_S:   T.IQ4_NL,  T.IQ1_M:   T.IQ4_NL,  T.IQ2_XXS: T.IQ4_NL,  T.IQ2_XS:  T.IQ4_NL,  T.IQ2_S: T.IQ4_NL,
    T.IQ3_XXS: T.IQ4_NL,  T.IQ3_S:   T.IQ4_NL,  T.IQ4_XS:  T.IQ4_NL,
    T.Q2_0:    T.Q4_0,    T.Q2_K:    T.Q4_0,    T.Q3_K:    T.Q4_0,    T.TQ1_0:   T.Q4_0,    T.TQ2_0: T.Q4_0,
    T.Q4_K:    T.Q5_0,    T.Q5_K:    T.Q5_1,    T.Q6_K:    T.Q8_0,
}

# Layers (NextN layers aside) at which a model counts as "70B", whose attn_v is worth more bits; llama needs grouped
# queries besides. Source: llama.cpp 0c1e570 src/models/{llama,qwen2,deci,olmo,jais2}.cpp, load_arch_hparams.
N_LAYER_70B: Final[dict[str, int]] = {
    "llama": 80, "llama-embed": 80, "qwen2": 80, "deci": 80, "olmo": 80, "jais2": 68,
}
# fmt: on
