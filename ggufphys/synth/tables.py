"""Which tensors does each architecture have in a block, as convert_hf_to_gguf writes them? Data only.

A row is a tensor's name in its block and its dimensions by name, innermost first (`dims` in `tensors.py` knows the
names). The order is that of the names in the published checkpoints. A group is written in the blocks of the kind named
beside it: blocks have a dense FFN or a mixture of experts, attention or a recurrent mixer.

Source: llama.cpp 0c1e570 conversion/{llama,qwen,gemma,phi,gpt_oss,deepseek,mamba}.py (names, order),
src/models/<architecture>.cpp, load_arch_tensors (dimensions).
"""

from typing import Final, Literal

Kind = Literal["any", "dense", "moe", "attention", "recurrent"]
Group = tuple[Kind, tuple[str, ...]]

# fmt: off
_FFN: Final = (
    "ffn_down.weight n_ff n_embd",
    "ffn_gate.weight n_embd n_ff",
    "ffn_up.weight   n_embd n_ff",
)
_EXPERTS: Final = (
    "ffn_down_exps.weight n_ff_exp n_embd n_expert",
    "ffn_gate_exps.weight n_embd n_ff_exp n_expert",
    "ffn_up_exps.weight   n_embd n_ff_exp n_expert",
    "ffn_gate_inp.weight  n_embd n_expert",
)
_SHARED_EXPERT: Final = (
    "ffn_down_shexp.weight n_ff_shexp n_embd",
    "ffn_gate_shexp.weight n_embd n_ff_shexp",
    "ffn_up_shexp.weight   n_embd n_ff_shexp",
)
_ATTENTION: Final = (
    "attn_k.weight      n_embd n_embd_k",
    "attn_output.weight n_embd_o n_embd",
    "attn_q.weight      n_embd n_embd_q",
    "attn_v.weight      n_embd n_embd_v",
)
_ATTENTION_NORMED: Final = (
    "attn_k_norm.weight n_embd_head_k",
    "attn_k.weight      n_embd n_embd_k",
    "attn_output.weight n_embd_o n_embd",
    "attn_q_norm.weight n_embd_head_k",
    "attn_q.weight      n_embd n_embd_q",
    "attn_v.weight      n_embd n_embd_v",
)
_ATTN_NORM: Final = ("attn_norm.weight n_embd",)
_FFN_NORM: Final = ("ffn_norm.weight n_embd",)
_GEMMA_NORMS: Final = (
    "post_attention_norm.weight n_embd",
    "post_ffw_norm.weight       n_embd",
    "ffn_norm.weight            n_embd",
)

BLOCKS: Final[dict[str, tuple[Group, ...]]] = {
    "llama": (
        ("moe", (
            "ffn_gate_exps.weight n_embd n_ff n_expert",
            "ffn_down_exps.weight n_ff n_embd n_expert",
            "ffn_up_exps.weight   n_embd n_ff n_expert",
            "ffn_gate_inp.weight  n_embd n_expert",
        )),
        ("any", _ATTN_NORM),
        ("dense", _FFN),
        ("any", _FFN_NORM + _ATTENTION),
    ),
    "qwen2": (
        ("any", (
            *_ATTN_NORM, *_FFN, *_FFN_NORM,
            "attn_k.bias        n_embd_k",
            "attn_k.weight      n_embd n_embd_k",
            "attn_output.weight n_embd_o n_embd",
            "attn_q.bias        n_embd_q",
            "attn_q.weight      n_embd n_embd_q",
            "attn_v.bias        n_embd_v",
            "attn_v.weight      n_embd n_embd_v",
        )),
    ),
    "qwen3":    (("any", _ATTN_NORM + _FFN + _FFN_NORM + _ATTENTION_NORMED),),
    "qwen3moe": (("any", _ATTN_NORM + _EXPERTS + _FFN_NORM + _ATTENTION_NORMED),),
    "qwen3next": (
        ("any", _ATTN_NORM),
        ("recurrent", (
            "ssm_a             n_ssm_head",
            "ssm_conv1d.weight n_ssm_conv n_ssm_qkv",
            "ssm_dt.bias       n_ssm_head",
            "ssm_ba.weight     n_embd n_ssm_ba",
            "attn_qkv.weight   n_embd n_ssm_qkv",
            "attn_gate.weight  n_embd n_ssm_inner",
            "ssm_norm.weight   n_ssm_state",
            "ssm_out.weight    n_ssm_inner n_embd",
        )),
        ("any", (*_EXPERTS, *_SHARED_EXPERT,
            "ffn_gate_inp_shexp.weight  n_embd",
            "post_attention_norm.weight n_embd",
        )),
        ("attention", (
            "attn_k_norm.weight n_embd_head_k",
            "attn_k.weight      n_embd n_embd_k",
            "attn_output.weight n_embd_o n_embd",
            "attn_q_norm.weight n_embd_head_k",
            "attn_q.weight      n_embd n_embd_q_gated",
            "attn_v.weight      n_embd n_embd_v",
        )),
    ),
    "gemma2": (("any", _ATTN_NORM + _FFN + _GEMMA_NORMS + _ATTENTION),),
    "gemma3": (("any", _ATTN_NORM + _FFN + _GEMMA_NORMS + _ATTENTION_NORMED),),
    "phi3": (
        ("any", (
            *_ATTN_NORM,
            "ffn_down.weight    n_ff n_embd",
            "ffn_up.weight      n_embd n_ff_gate_up",
            *_FFN_NORM,
            "attn_output.weight n_embd_o n_embd",
            "attn_qkv.weight    n_embd n_embd_qkv",
        )),
    ),
    "gpt-oss": (
        ("any", (
            "ffn_down_exps.weight       n_ff_exp n_embd n_expert",
            "ffn_gate_exps.weight       n_embd n_ff_exp n_expert",
            "ffn_up_exps.weight         n_embd n_ff_exp n_expert",
            *_ATTN_NORM,
            "ffn_down_exps.bias         n_embd n_expert",
            "ffn_gate_exps.bias         n_ff_exp n_expert",
            "ffn_up_exps.bias           n_ff_exp n_expert",
            "ffn_gate_inp.bias          n_expert",
            "ffn_gate_inp.weight        n_embd n_expert",
            "post_attention_norm.weight n_embd",
            "attn_k.bias                n_embd_k",
            "attn_k.weight              n_embd n_embd_k",
            "attn_output.bias           n_embd",
            "attn_output.weight         n_embd_o n_embd",
            "attn_q.bias                n_embd_q",
            "attn_q.weight              n_embd n_embd_q",
            "attn_sinks.weight          n_head",
            "attn_v.bias                n_embd_v",
            "attn_v.weight              n_embd n_embd_v",
        )),
    ),
    "deepseek2": (
        ("any", _ATTN_NORM),
        ("dense", _FFN),
        ("moe", _EXPERTS + _SHARED_EXPERT),
        ("any", (
            *_FFN_NORM,
            "attn_kv_a_norm.weight n_lora_kv",
            "attn_kv_a_mqa.weight  n_embd n_embd_kv_a",
            "attn_k_b.weight       n_embd_head_nope n_lora_kv n_head",
            "attn_v_b.weight       n_lora_kv n_embd_head_v_mla n_head",
            "attn_output.weight    n_embd_o_mla n_embd",
            "attn_q.weight         n_embd n_embd_q_mla",
        )),
    ),
    "mamba2": (
        ("any", (
            "ssm_a             one n_ssm_head",
            "ssm_d             one n_ssm_head",
            "ssm_conv1d.bias   n_ssm_xbc",
            "ssm_conv1d.weight n_ssm_conv n_ssm_xbc",
            "ssm_dt.bias       n_ssm_head",
            "ssm_in.weight     n_embd n_ssm_in",
            "ssm_norm.weight   n_ssm_norm n_ssm_group",
            "ssm_out.weight    n_ssm_inner n_embd",
            *_ATTN_NORM,
        )),
    ),
}
# fmt: on
