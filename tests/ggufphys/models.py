"""Small model files for tests, header and a hole for weights."""

import os
from functools import cache
from pathlib import Path

from ggufphys.gguf import GGMLType
from ggufphys.gguf.writer import TensorSpec, WriteValue, data_bytes, encode_header
from ggufphys.synth import plan_file, shape_named


def llama_metadata(arch: str = "llama", **overrides: WriteValue) -> dict[str, WriteValue]:
    """Hyperparameters of a two-layer model; `overrides` are keys less the architecture, `__` for a dot."""
    keys: dict[str, WriteValue] = {
        "block_count": 2,
        "context_length": 2048,
        "embedding_length": 256,
        "feed_forward_length": 512,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.dimension_count": 64,
        "vocab_size": 512,
    }
    keys.update({name.replace("__", "."): value for name, value in overrides.items()})
    return {
        "general.architecture": arch,
        "general.name": "tiny",
        "tokenizer.ggml.model": "no_vocab",
        **{f"{arch}.{name}": value for name, value in keys.items()},
    }


def llama_tensors(ggml_type: GGMLType = GGMLType.F16, *, n_layer: int = 2) -> list[TensorSpec]:
    """The tensors of that model."""
    tensors = [TensorSpec("token_embd.weight", (256, 512), ggml_type)]
    for il in range(n_layer):
        tensors += [
            TensorSpec(f"blk.{il}.attn_norm.weight", (256,), GGMLType.F32),
            TensorSpec(f"blk.{il}.attn_q.weight", (256, 256), ggml_type),
            TensorSpec(f"blk.{il}.attn_k.weight", (256, 128), ggml_type),
            TensorSpec(f"blk.{il}.attn_v.weight", (256, 128), ggml_type),
            TensorSpec(f"blk.{il}.attn_output.weight", (256, 256), ggml_type),
            TensorSpec(f"blk.{il}.ffn_norm.weight", (256,), GGMLType.F32),
            TensorSpec(f"blk.{il}.ffn_gate.weight", (256, 512), ggml_type),
            TensorSpec(f"blk.{il}.ffn_up.weight", (256, 512), ggml_type),
            TensorSpec(f"blk.{il}.ffn_down.weight", (512, 256), ggml_type),
        ]
    return [*tensors, TensorSpec("output_norm.weight", (256,), GGMLType.F32)]


def write_model(path: Path, metadata: dict[str, WriteValue], tensors: list[TensorSpec]) -> Path:
    """Write the file at its full length; weights read as zeros."""
    header = encode_header(metadata, tensors)
    path.write_bytes(header)
    os.truncate(path, len(header) + data_bytes(tensors))
    return path


def tiny_llama(path: Path, **overrides: WriteValue) -> Path:
    """A whole two-layer llama."""
    return write_model(path, llama_metadata("llama", **overrides), llama_tensors())


def shape_header(path: Path, shape: str) -> Path:
    """The header of a published model's shape as Q4_K_M, without weights."""
    path.write_bytes(_header(shape))
    return path


@cache
def _header(shape: str) -> bytes:
    return plan_file(shape_named(shape)).header
