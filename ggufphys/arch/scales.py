"""Which products does llama.cpp multiply by the scale beside the weight, a `.scale` of NVFP4? And which are plain?

Every loader takes the scales of all weights that it knows; whether they are used is for the graph builder to say, and
most forget some. Scales of inputs (`.input_scale`) are loaded and never used. A plain product is one that adapters add
nothing to either.

Source: llama.cpp 0c1e570 src/llama-model.cpp, load_tensors (the generic pass); src/models/<arch>.cpp, the arguments
`_s` of build_lora_mm, build_qkv, build_attn, build_ffn and build_moe_ffn.
"""

from typing import Final

_OUTPUT: Final = frozenset({"output"})
_QKV: Final = frozenset({"attn_q", "attn_k", "attn_v"})
_FUSED: Final = frozenset({"attn_qkv"})
_DENSE: Final = frozenset({"ffn_gate", "ffn_up", "ffn_down"})
_EXPERTS: Final = frozenset({"ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"})
_SHARED: Final = frozenset({"ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"})
_ALL_FFN: Final = _DENSE | _EXPERTS | _SHARED
_HEAD: Final = frozenset({"nextn.eh_proj", "nextn.shared_head_head", "nextn.output"})

# Names without "blk.N."; "nextn.output" is the output matrix as used by a prediction head that has none of its own.
USUALLY: Final[frozenset[str]] = (
    _QKV | _FUSED | _OUTPUT | _HEAD | {"attn_output", "ssm_in", "ssm_out", "ssm_alpha", "ssm_beta"}
)

# fmt: off
MORE: Final[dict[str, frozenset[str]]] = {
    **dict.fromkeys(("llama", "llama-embed", "mistral3"), _DENSE | _EXPERTS),
    **dict.fromkeys(("qwen3", "bitnet", "nanbeige", "cohere2", "nemotron_h"), _DENSE),
    **dict.fromkeys(("qwen3moe", "mellum"), _EXPERTS),
    **dict.fromkeys(("deepseek32", "glm-dsa", "dots3note", "cohere2moe", "hy_v3", "qwen3next"), _ALL_FFN),
    "gemma4": _DENSE | _EXPERTS,
    "nemotron_h_moe": _ALL_FFN,
    **dict.fromkeys(("qwen35", "clef"), _DENSE | {"attn_gate"}),
    **dict.fromkeys(("qwen35moe", "qwen4exp"), _ALL_FFN | {"attn_gate"}),
    "talkie": frozenset({"ffn_down"}),
    "dflash": _DENSE | {"markov_w2"},
}
LESS: Final[dict[str, frozenset[str]]] = {
    **dict.fromkeys(("openelm", "cogvlm", "plamo3", "minimax-01"), _FUSED),
    **dict.fromkeys(("talkie", "spark2_5", "laguna"), _OUTPUT),
    "cohere2moe": _OUTPUT | {"nextn.output"},
    "deepseek2": frozenset({"attn_q"}),
    "mimo2": _QKV,
    "graniteswitch": frozenset({"attn_output"}),
    "plamo2": _FUSED | {"ssm_in", "ssm_out"},
    "qwen3next": _FUSED | {"ssm_in", "ssm_out"},
    "hy_v3": frozenset({"nextn.eh_proj"}),
    "step35": _HEAD,
    "hy_v4": frozenset({"attn_output"}),
    "kimi-linear": _QKV | _FUSED | {"ssm_beta"},
    "eagle3": _OUTPUT | _QKV | {"attn_output"},
    **dict.fromkeys(("kimi-k3", "bailingmoe3", "glm5-next", "deepseek4"), USUALLY),
}
PLAIN: Final[dict[str, frozenset[str]]] = {
    **dict.fromkeys((
        "deepseek2", "deepseek2-ocr", "mistral4", "deepseek32", "glm-dsa", "dots3note", "hy_v4", "kimi-linear",
        "kimi-k3", "bailingmoe3", "glm5-next", "deepseek4",
    ), _OUTPUT),
    "graniteswitch": _FUSED,
    "minicpm3": frozenset({"attn_q_a", "attn_q_b", "attn_kv_a_mqa", "attn_kv_b"}),
}
# fmt: on


def scaled_names(arch: str) -> frozenset[str]:
    """The weights whose products the builder of an architecture multiplies by their scale."""
    nothing: frozenset[str] = frozenset()
    return (USUALLY | MORE.get(arch, nothing)) - LESS.get(arch, nothing) - PLAIN.get(arch, nothing)
