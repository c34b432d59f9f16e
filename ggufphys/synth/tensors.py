"""What is the tensor table of a shape, as conversion writes it, before any quantisation?"""

from collections.abc import Iterator, Mapping
from typing import Final

from ggufphys.errors import UnsupportedError
from ggufphys.gguf.ggml_types import GGMLType
from ggufphys.gguf.writer import TensorSpec
from ggufphys.synth.catalogue import Shape
from ggufphys.synth.tables import BLOCKS, Kind

# Source: llama.cpp 0c1e570 conversion/base.py, ModelBase.prepare_tensors: these stay F32 in every file
F32_PARTS: Final = ("_norm.weight", "ffn_gate_inp", "ssm_conv1d")


def tensor_table(shape: Shape) -> list[TensorSpec]:
    """Every tensor in conversion's order: matrices in F16, vectors, norms, routers and biases in F32.

    Raises:
        UnsupportedError: there is no table for the shape's architecture.
    """
    return [TensorSpec(name, ne, _converted_type(name, ne)) for name, ne in _rows(shape)]


def dims(shape: Shape) -> Mapping[str, int]:
    """The dimensions that the tables name, from hyperparameters; those of things the shape lacks come out as 0."""
    get = shape.number
    n_embd, n_head = get("embedding_length"), get("attention.head_count")
    n_head_kv = get("attention.head_count_kv", n_head)
    n_embd_head = n_embd // n_head if n_head else 0
    head_k, head_v = get("attention.key_length", n_embd_head), get("attention.value_length", n_embd_head)
    head_k_mla, head_v_mla = get("attention.key_length_mla"), get("attention.value_length_mla")
    n_ff, n_ff_exp = get("feed_forward_length"), get("expert_feed_forward_length")
    n_lora_kv, n_rot = get("attention.kv_lora_rank"), get("rope.dimension_count")
    inner, state, group = get("ssm.inner_size"), get("ssm.state_size"), get("ssm.group_count")
    n_ssm_head = get("ssm.time_step_rank")
    xbc = inner + 2 * group * state
    return {
        "one": 1,
        "n_embd": n_embd,
        "n_head": n_head,
        "n_embd_head_k": head_k,
        "n_embd_q": head_k * n_head,
        "n_embd_q_gated": 2 * head_k * n_head,  # queries and a gate for each
        "n_embd_k": head_k * n_head_kv,
        "n_embd_v": head_v * n_head_kv,
        "n_embd_o": head_v * n_head,
        "n_embd_qkv": head_k * n_head + (head_k + head_v) * n_head_kv,
        "n_lora_kv": n_lora_kv,
        "n_embd_kv_a": n_lora_kv + n_rot,
        "n_embd_head_nope": head_k_mla - n_rot,
        "n_embd_head_v_mla": head_v_mla,
        "n_embd_q_mla": head_k_mla * n_head,
        "n_embd_o_mla": head_v_mla * n_head,
        "n_ff": n_ff,
        "n_ff_gate_up": 2 * n_ff,
        "n_expert": get("expert_count"),
        "n_ff_exp": n_ff_exp,
        "n_ff_shexp": get("expert_shared_feed_forward_length", n_ff_exp * get("expert_shared_count")),
        "n_ssm_conv": get("ssm.conv_kernel"),
        "n_ssm_group": group,
        "n_ssm_head": n_ssm_head,
        "n_ssm_inner": inner,
        "n_ssm_state": state,
        "n_ssm_norm": inner // group if group else 0,
        "n_ssm_xbc": xbc,
        "n_ssm_qkv": xbc,  # gated delta net: keys and queries of `group` heads, values of all
        "n_ssm_ba": 2 * n_ssm_head,
        "n_ssm_in": inner + xbc + n_ssm_head,
    }


def _rows(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    if shape.architecture not in BLOCKS:
        known = ", ".join(BLOCKS)
        raise UnsupportedError(f"no tensor table for architecture {shape.architecture!r} (there are {known})")
    sizes = dims(shape)
    embedding = (sizes["n_embd"], shape.n_vocab)
    if shape.rope_llama3:
        yield "rope_freqs.weight", (shape.number("rope.dimension_count") // 2,)
    yield "token_embd.weight", embedding
    for layer in range(shape.n_layer):
        kinds = _kinds(shape, layer)
        for kind, rows in BLOCKS[shape.architecture]:
            for row in rows if kind in kinds else ():
                name, *names = row.split()
                yield f"blk.{layer}.{name}", tuple(sizes[n] for n in names)
    yield "output_norm.weight", (sizes["n_embd"],)
    if not shape.tied:
        yield "output.weight", embedding


def _kinds(shape: Shape, layer: int) -> tuple[Kind, Kind, Kind]:
    interval = shape.number("full_attention_interval", 1)
    is_dense = shape.number("expert_count") == 0 or layer < shape.number("leading_dense_block_count")
    return "any", "dense" if is_dense else "moe", "recurrent" if (layer + 1) % interval else "attention"


def _converted_type(name: str, ne: tuple[int, ...]) -> GGMLType:
    is_matrix = len(ne) > 1 and name.endswith(".weight") and not any(part in name for part in F32_PARTS)
    return GGMLType.F16 if is_matrix else GGMLType.F32
