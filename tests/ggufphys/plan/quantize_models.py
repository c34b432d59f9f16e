"""Models for the quantiser, as metadata and tensors: every name that the rules tell apart, and files without data."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ggufphys.gguf.ggml_types import GGMLType
from ggufphys.gguf.writer import TensorSpec, WriteValue, data_bytes

Metadata = Mapping[str, WriteValue]

# Every name that the rules tell apart, and some that they must not.
GLOBAL_NAMES = (
    "token_embd.weight", "per_layer_token_embd.weight", "position_embd.weight", "token_types.weight",
    "per_layer_model_proj.weight", "output_norm.weight", "mm.a.code_embd.weight", "a.rvq.codebook.0.weight",
    "v.patch_embd.weight", "v.patch_merger.weight", "v.position_embd.weight", "v.rel_pos.weight", "sam.pos_embd.weight",
    "sam.neck.0.weight", "sam.net_2.weight", "v.blk.0.attn_v.weight", "enc.blk.1.attn_v.weight", "rope_freqs.weight",
    "a.b.c", "d2t", "cls.output.weight", "altup_proj.weight", "output.bias",
)  # fmt: skip
LAYER_NAMES = (
    "attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_qkv.weight", "attn_output.weight",
    "ffn_up.weight", "ffn_gate.weight", "ffn_down.weight", "ssm_in.weight",  # ROLES_END
    "attn_q_norm.weight", "attn_q_a.weight", "attn_q_b.weight", "attn_k_b.weight", "attn_v_b.weight", "attn_v.bias",
    "attn_kv_a_mqa.weight", "attn_kv_b.weight", "attn_rel_b.weight", "attn_gate.weight", "cross_attn_v.weight",
    "ffn_gate_inp.weight", "ffn_up_shexp.weight", "ffn_down_shexp.weight", "ffn_gate_tid2eid.weight",
    "ffn_norm.weight", "ffn_down.bias", "laurel_l.weight", "nextn.eh_proj.weight", "hc_attn_fn.weight",
    "ssm_out.weight", "ssm_a", "ssm_conv1d.weight", "ssm_f_a.weight", "ssm_f_b.weight", "ssm_g_a.weight",
    "ssm_g_b.weight", "ssm_beta.weight", "shortconv.conv.weight", "shortconv.in_proj.weight",
    "indexer.k_proj.weight", "indexer.q_proj.weight", "indexer.attn_k.weight", "indexer.attn_q_b.weight",
    "indexer.proj.weight", "indexer_compressor_gate.weight", "indexer_compressor_ape.weight",
    "time_mix_key.weight", "time_mix_first.weight", "time_mix_w0.weight", "time_mix_w1.weight", "time_mix_w2.weight",
    "time_mix_v0.weight", "time_mix_v1.weight", "time_mix_v2.weight", "time_mix_a0.weight", "time_mix_a1.weight",
    "time_mix_a2.weight", "time_mix_g1.weight", "time_mix_g2.weight", "time_mix_decay_w1.weight",
    "time_mix_decay_w2.weight", "time_mix_lerp_fused.weight",
)  # fmt: skip
ROLES_END = 9
EXPERT_NAMES = (
    "ffn_up_exps.weight", "ffn_gate_exps.weight", "ffn_down_exps.weight", "ffn_gate_up_exps.weight", "attn_k_b.weight",
)  # fmt: skip

# Keys that an architecture's loader asks for beside the common ones.
EXTRA_KEYS: Mapping[str, Mapping[str, WriteValue]] = {
    "glm5-next": {
        "attention.key_length_mla": 192, "attention.value_length_mla": 128, "attention.q_lora_rank": 64,
        "attention.kv_lora_rank": 64, "ssm.conv_kernel": 4, "kda.head_dim": 64, "expert_feed_forward_length": 64,
        "expert_shared_count": 1, "attention.indexer.head_count": 2, "attention.indexer.key_length": 32,
        "attention.indexer.top_k": 8, "attention.indexer.kpool": 2, "hyper_connection.count": 4,
        "hyper_connection.sinkhorn_iterations": 1, "hyper_connection.epsilon": 1e-6,
    },
    "bailingmoe3": {
        "attention.key_length_mla": 192, "attention.value_length_mla": 128, "attention.kv_lora_rank": 64,
        "ssm.conv_kernel": 4, "kda.head_dim": 64, "kda.safe_gate": True, "kda.gate_lower_bound": -5.0,
        "expert_feed_forward_length": 64, "expert_shared_count": 1, "leading_dense_block_count": 1,
        "expert_gating_func": 2,
    },
    "nanbeige": {"num_loops": 3},
}  # fmt: skip


def write_hole(path: Path, header: bytes, tensors: Sequence[TensorSpec]) -> None:
    """A file of full length without data."""
    path.write_bytes(header)
    os.truncate(path, len(header) + data_bytes(tensors))


def metadata_of(architecture: str, n_layer: int, n_head: int, n_head_kv: int, n_expert: int) -> Metadata:
    """The least metadata that the loader of the architecture is content with."""
    keys: dict[str, WriteValue] = {
        "context_length": 512,
        "embedding_length": 64 * max(1, n_head),
        "block_count": n_layer,
        "feed_forward_length": 256,
        "attention.head_count": n_head,
        "attention.head_count_kv": n_head_kv,
        "attention.layer_norm_epsilon": 1e-5,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "attention.sliding_window": 256,
        **EXTRA_KEYS.get(architecture, {}),
    }
    if n_expert:
        keys |= {"expert_count": n_expert, "expert_used_count": 1, "expert_feed_forward_length": 64}
    return {
        "general.architecture": architecture,
        "general.file_type": 1,
        **{f"{architecture}.{k}": v for k, v in keys.items()},
    }


def soup(n_layer: int, n_expert: int, *, tied: bool, columns: Sequence[int]) -> list[TensorSpec]:
    """One tensor of every name, rows as long as `columns` says in turn."""
    # what depends on depth does so by role: in deep models few layers have all the names
    names = [*GLOBAL_NAMES]
    for layer in range(n_layer):
        layer_names = LAYER_NAMES if n_layer < 16 or layer % 32 == 0 else LAYER_NAMES[:ROLES_END]
        names += [f"blk.{layer}.{name}" for name in layer_names]
    if not tied:
        names.append("output.weight")
    tensors = [
        TensorSpec(
            name, (columns[i % len(columns)],) if "bias" in name else (columns[i % len(columns)], 8), GGMLType.F16
        )
        for i, name in enumerate(names)
        if n_expert < 2 or not name.startswith(("v.", "enc."))
    ]
    experts = [
        TensorSpec(f"blk.{i}.{name}", (256, 8, n_expert), GGMLType.F16)
        for i in range(n_layer if n_expert else 0)
        for name in EXPERT_NAMES
    ]
    return list({t.name: t for t in tensors + experts}.values())
