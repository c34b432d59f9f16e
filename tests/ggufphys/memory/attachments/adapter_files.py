"""LoRA adapters and control vectors for tests, header and a hole for weights."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from ggufphys.gguf import GGMLType
from ggufphys.gguf.writer import TensorSpec, WriteValue
from tests.ggufphys.models import write_model


def write_lora(
    path: Path,
    base: Iterable[TensorSpec],
    *,
    rank: int = 8,
    ggml_type: GGMLType = GGMLType.F32,
    arch: str = "llama",
    names: Iterable[str] = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"),
    more: Mapping[str, WriteValue] | None = None,
) -> Path:
    """An adapter for those tensors of `base` whose names contain one of `names`."""
    tensors = []
    for weight in base:
        if len(weight.ne) > 1 and any(name in weight.name for name in names):
            n_in, n_out, *experts = weight.ne
            tensors.append(TensorSpec(f"{weight.name}.lora_a", (n_in, rank, *experts), ggml_type))
            tensors.append(TensorSpec(f"{weight.name}.lora_b", (rank, n_out, *experts), ggml_type))
    keys: dict[str, WriteValue] = {
        "general.type": "adapter", "general.architecture": arch, "adapter.type": "lora", "adapter.lora.alpha": 16.0,
    }  # fmt: skip
    return write_model(path, keys | dict(more or {}), tensors)


def write_control_vector(path: Path, n_embd: int, n_layer: int) -> Path:
    """A direction for each layer but the first."""
    tensors = [TensorSpec(f"direction.{il}", (n_embd,), GGMLType.F32) for il in range(1, n_layer)]
    return write_model(path, {"general.architecture": "controlvector", "controlvector.layer_count": n_layer}, tensors)
