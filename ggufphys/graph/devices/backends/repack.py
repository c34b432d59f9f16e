"""Which weights does the CPU backend copy into another layout, and on which CPU?

A tensor moves when the operation it is made for is a matrix product, its type has a repacked kernel on this CPU, and
its rows come in whole groups. Extra memory: with mmap the file's copy stays mapped beside the repacked one.

Source: llama.cpp 0c1e570 ggml/src/ggml-cpu/repack.cpp, ggml_repack_get_optimal_repack_type, extra_buffer_type;
src/llama-arch.cpp, LLM_TENSOR_INFOS (the operation of each tensor).
"""

import re
from collections.abc import Mapping
from functools import cache
from typing import Final

from ggufphys.frozen import dataclass
from ggufphys.gguf import GGMLType, TensorInfo


@dataclass(frozen=True, slots=True)
class RepackRule:
    """A kernel: CPUs that have all of `features` repack `ggml_type` when rows come in groups of `rows`."""

    ggml_type: GGMLType
    features: frozenset[str]
    rows: int


_LAYER: Final = re.compile(r"^((?:enc\.|dec\.)?)(?:blk|convnext|posnet)\.\d+\.")
_ARM_I8MM: Final = frozenset({"neon", "i8mm"})
_ARM_DOT: Final = frozenset({"neon", "dotprod"})
_AVX2: Final = frozenset({"avx2"})

# fmt: off
REPACK_RULES: Final[tuple[RepackRule, ...]] = (
    RepackRule(GGMLType.Q4_0,   _AVX2,                  8),
    RepackRule(GGMLType.Q4_K,   _AVX2,                  8),
    RepackRule(GGMLType.IQ4_NL, _AVX2,                  8),
    RepackRule(GGMLType.MXFP4,  _AVX2,                  8),
    RepackRule(GGMLType.Q2_K,   frozenset({"avx512"}),  8),
    *(RepackRule(t, _ARM_I8MM, 4) for t in (GGMLType.Q4_0, GGMLType.Q8_0, GGMLType.Q1_0)),
    *(RepackRule(t, _ARM_I8MM, 8) for t in (GGMLType.Q4_K, GGMLType.Q5_K, GGMLType.Q6_K)),
    *(RepackRule(t, _ARM_DOT,  4) for t in (GGMLType.Q4_0, GGMLType.IQ4_NL, GGMLType.MXFP4, GGMLType.Q8_0,
                                            GGMLType.Q1_0)),
    *(RepackRule(t, _ARM_DOT,  8) for t in (GGMLType.Q4_K, GGMLType.Q5_K, GGMLType.Q6_K)),
)

# Tensors that are looked up, added, scaled or convolved, not multiplied: everything else of two dimensions, but for
# norms and biases, is an operand of MUL_MAT. Names without "blk.N." and ".weight".
NOT_MULTIPLIED: Final[frozenset[str]] = frozenset({
    "token_embd", "position_embd", "token_types", "per_layer_token_embd", "nextn.embed_tokens", "markov_w1", "d2t",
    "selector_predecessor", "selector_successor", "dec.attn_rel_b", "enc.attn_rel_b", "dec.cross_attn_rel_b",
    "attn_sinks", "ffn.act", "ffn_gate_tid2eid", "exp_probs_b", "exp_probs_b_vl", "attn_compressor_ape",
    "indexer_compressor_ape", "ssm_a", "ssm_d", "ssm_conv1d", "ssm_conv1d_q", "ssm_conv1d_k", "ssm_conv1d_v",
    "ple_conv1d", "shortconv.conv", "conv1d", "conv1", "conv2", "dw", "gamma", "attn_conv_base", "ffn_conv_base",
    "altup_correct_scale", "layer_output_scale", "attn_res_score", "ffn_res_score", "output_res_score", "hrm.z_l_init",
    "hc_attn_base", "hc_attn_scale", "hc_ffn_base", "hc_ffn_scale", "output_hc_base", "output_hc_scale",
    "channel_mix_lerp_k", "channel_mix_lerp_r", "rope_freqs", "rope_factors_long", "rope_factors_short",
    *(f"time_mix_{name}" for name in (
        "a0", "decay", "first", "k_a", "k_k", "lerp_fused", "lerp_g", "lerp_k", "lerp_r", "lerp_v", "lerp_w", "lerp_x",
        "ln", "r_k", "v0", "w0",
    )),
})
_OF_GROUPS: Final = frozenset({"attn_output_a"})  # loaded with three dimensions, whatever they are in the file
# fmt: on


def is_repacked(tensor: TensorInfo, cpu_features: frozenset[str], *, as_output: bool = False) -> bool:
    """Does the CPU backend keep this tensor in its repacked layout? `as_output`: the embedding as the output matrix."""
    groups = _groups(cpu_features).get(int(tensor.ggml_type))
    if groups is None:
        return False
    n_dims = len(tensor.ne)
    while n_dims > 1 and tensor.ne[n_dims - 1] == 1:  # as ggml_n_dims counts
        n_dims -= 1
    if n_dims not in (2, 3):
        return False
    stem = stem_of(tensor)
    of_experts = stem.endswith(("exps", ".lora_a", ".lora_b"))  # or of the adapters that tokens choose
    if (n_dims == 3) != of_experts or not (of_experts or as_output or _is_multiplied(stem)):
        return False
    return any(tensor.ne[1] % rows == 0 for rows in groups)


def is_multiplied(tensor: TensorInfo, *, as_output: bool = False) -> bool:
    """Is this tensor, of two dimensions or more, an operand of plain matrix products (MUL_MAT, not experts')?"""
    stem = stem_of(tensor)
    return not stem.endswith("exps") and (as_output or _is_multiplied(stem))


def _is_multiplied(stem: str) -> bool:
    return not (stem in NOT_MULTIPLIED or stem in _OF_GROUPS or "norm" in stem or stem.endswith(".bias"))


def stem_of(tensor: TensorInfo) -> str:
    """The name without its layer's and ".weight"; of an encoder's or decoder's the first word stays."""
    return _LAYER.sub(r"\1", tensor.name.removesuffix(".weight"))


@cache
def _groups(cpu_features: frozenset[str]) -> Mapping[int, tuple[int, ...]]:
    """For each type's number, how many rows this CPU's kernels for it take at a time.

    A plain number, since an enum's member is slow to look up, and every tensor of a file is.
    """
    rules = [rule for rule in REPACK_RULES if rule.features <= cpu_features]
    return {int(t): tuple(rule.rows for rule in rules if rule.ggml_type is t) for t in {r.ggml_type for r in rules}}
