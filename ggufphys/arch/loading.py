"""What does an architecture's loader do with weights that tensors' names don't tell? The exceptions, no logic.

Source: llama.cpp 0c1e570 src/models/<arch>.cpp, load_arch_tensors; src/llama-arch.cpp, LLM_TENSOR_INFOS;
src/llama-model-loader.cpp, create_tensor, lazy_read::add.
"""

from typing import Final

from ggufphys.builds.moves import Rule

# fmt: off
# Everything else computes its output with the token embedding when the file has no output.weight.
EMBEDDING_IS_NO_OUTPUT: Final[frozenset[str]] = frozenset({
    "bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3", "eurobert",
    "bitnet",  # multiplies with the embedding itself, where that lies
    "eagle3", "wavtokenizer-dec",
})

# Whose tied matrix is created as the output first: the embedding then does not find it, and is created once more, in
# the same buffer if both uses want that.
OUTPUT_BEFORE_EMBEDDING: Final[frozenset[str]] = frozenset({"gemma3n", "gemma4"})

# Which look tokens up in the output matrix where the file has no embedding: it is created for that, and once more.
OUTPUT_IS_EMBEDDING: Final[frozenset[str]] = frozenset({"codeshell"})

# Whose layers may have as many heads each as an array says; other loaders and graphs take the first layer's number.
HEADS_BY_LAYER: Final[frozenset[str]] = frozenset({
    "deci", "dots3note", "gemma4", "gemma4-assistant", "granite", "granitemoe", "granitehybrid", "granite_swa",
    "graniteswitch", "minicpm", "laguna", "mimo2", "nemotron_h", "nemotron_h_moe", "openelm", "plamo2", "plamo3",
    "spark2_5", "step35",
})

# Rotary factors are copied to each device that has a layer; here only layers without a window have them.
ROPE_FACTORS_ON_FULL_LAYERS: Final[frozenset[str]] = frozenset({"gemma4", "gemma4-assistant"})

# Whose token_embd_norm is the output's norm under a wrong name, not the first layer's.
EMBEDDING_NORM_IS_OUTPUT: Final[frozenset[str]] = frozenset({"lfm2", "lfm2moe"})

# Names without ".weight" or ".bias". What is neither "blk.N." nor here belongs to the first layer.
INPUT_TENSORS: Final[frozenset[str]] = frozenset({
    "token_embd", "position_embd", "token_types", "per_layer_token_embd", "masked_embd_centroids",
    "masked_embd_ordering",
})
OUTPUT_TENSORS: Final[frozenset[str]] = frozenset({
    "output", "output_norm", "output_res_score", "cls", "cls.output", "cls.norm", "dense_2", "dense_3",
    "dec.output_norm", "enc.output_norm", "output_hc_fn", "output_hc_base", "output_hc_scale", "output_hc_norm",
    "output_hc_down", "output_hc_up", "altup_proj", "altup_unembd_proj", "nextn.post_projection", "fc", "d2t",
    "markov_w1", "markov_w2", "conf_proj", "selector_predecessor", "selector_successor", "selector_hidden",
})
ROPE_FACTORS: Final[frozenset[str]] = frozenset({"rope_freqs", "rope_factors_long", "rope_factors_short"})

# Loaded by no architecture: their operation is GGML_OP_NONE in LLM_TENSOR_INFOS.
NEVER_LOADED: Final[frozenset[str]] = frozenset({"masked_embd_centroids", "masked_embd_ordering", "cross_attn_rel_b"})

# Whose loaders leave out the layers behind the trunk, which predict tokens further ahead (TENSOR_SKIP): some always,
# others unless they are asked for (load_mtp).
SKIPS_HEAD: Final[frozenset[str]] = frozenset({"bailingmoe2", "dots3note", "exaone-moe", "exaone4", "glm4"})
SKIPS_HEAD_UNLESS_ASKED: Final[frozenset[str]] = frozenset({
    "bailingmoe3", "cohere2moe", "deepseek2", "deepseek32", "deepseek4", "glm-dsa", "glm4moe", "glm5-next", "hy_v3",
    "mimo2", "mistral4", "nemotron_h", "nemotron_h_moe", "qwen35", "qwen35moe", "qwen3next", "step35",
})

# Whose layers behind the trunk are a head only if its projection is in the file, and else layers of the trunk.
HEAD_BY_PROJECTION: Final[frozenset[str]] = frozenset({"deepseek4"})

# What they load of those layers all the same, by flags that forget to say otherwise. Names without "blk.N.".
_SHARED_HEAD: Final = ("nextn.embed_tokens", "nextn.shared_head_head", "nextn.shared_head_norm")
_EXPERTS_AND_FFN: Final = (
    "ffn_gate", "ffn_down", "ffn_up", "ffn_gate_inp", "exp_probs_b", "ffn_gate_up_exps", "ffn_gate_exps",
    "ffn_down_exps", "ffn_up_exps", "ffn_gate_shexp", "ffn_down_shexp", "ffn_up_shexp",
)
LOADED_OF_HEAD: Final[dict[str, frozenset[str]]] = {
    "cohere2moe": frozenset(_SHARED_HEAD),
    "deepseek32": frozenset({"exp_probs_b"}),
    "glm-dsa":    frozenset({"exp_probs_b"}),
    "hy_v3":      frozenset({*_SHARED_HEAD, *_EXPERTS_AND_FFN}),
    "step35":     frozenset({*_SHARED_HEAD, *_EXPERTS_AND_FFN, "attn_q_norm", "attn_k_norm", "attn_gate"}),
}

# And what they loaded of them in builds where a rule holds.
_TWO_NORMS: Final = frozenset({"nextn.enorm", "nextn.hnorm"})
KEPT_OF_HEAD: Final[dict[Rule, dict[str, frozenset[str]]]] = {
    "fused_experts_of_head": {
        arch: frozenset({"ffn_gate_up_exps"}) for arch in ("deepseek2", "mistral4", "qwen3next", "qwen35moe")
    },
    "norms_of_head": {
        "glm4moe": _TWO_NORMS,
        "hy_v3": _TWO_NORMS,
        "qwen35": _TWO_NORMS | {"nextn.shared_head_norm"},
        "qwen35moe": _TWO_NORMS | {"nextn.shared_head_norm"},
        "step35": _TWO_NORMS,
    },
}

# Whose heads no build loaded before it could be asked for them.
HEADS_SKIPPED_BEFORE: Final[frozenset[str]] = frozenset({"deepseek2", "deepseek32", "glm-dsa", "glm4moe", "mistral4"})

# Looked up row by row: a table of more than 4 GiB stays in the file, in a mapping of its own (TENSOR_READ_LAZY).
READ_LAZILY: Final[dict[str, str]] = {
    "gemma4":   "per_layer_token_embd.weight",
    "qwen4exp": "per_layer_token_embd.weight",
}
LAZY_BYTES: Final = 4 << 30
# fmt: on
