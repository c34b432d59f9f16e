"""A llama of one layer with random weights, small enough to write and run in a fraction of a second.

Good for finding out whether an engine works at all; it has no tokenizer and says nothing sensible.
"""

import random
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ggufphys.gguf.ggml_types import GGMLType
from ggufphys.gguf.reader import padded
from ggufphys.gguf.writer import TensorSpec, WriteValue, encode_header

N_EMBD: Final = 256  # a whole K-quant block: narrower rows would not reach the kernels of interest
N_VOCAB: Final = 256

METADATA: Final[Mapping[str, WriteValue]] = {
    "general.architecture": "llama",
    "general.name": "tiny random llama",
    "llama.context_length": 256,
    "llama.embedding_length": N_EMBD,
    "llama.block_count": 1,
    "llama.feed_forward_length": N_EMBD,
    "llama.attention.head_count": 4,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.vocab_size": N_VOCAB,
    "tokenizer.ggml.model": "no_vocab",
}

TENSORS: Final = (
    TensorSpec("token_embd.weight", (N_EMBD, N_VOCAB), GGMLType.Q8_0),
    TensorSpec("output_norm.weight", (N_EMBD,), GGMLType.F32),
    TensorSpec("output.weight", (N_EMBD, N_VOCAB), GGMLType.Q8_0),
    TensorSpec("blk.0.attn_norm.weight", (N_EMBD,), GGMLType.F32),
    *(TensorSpec(f"blk.0.attn_{m}.weight", (N_EMBD, N_EMBD), GGMLType.Q4_K) for m in ("q", "k", "v", "output")),
    TensorSpec("blk.0.ffn_norm.weight", (N_EMBD,), GGMLType.F32),
    *(TensorSpec(f"blk.0.ffn_{m}.weight", (N_EMBD, N_EMBD), GGMLType.Q4_K) for m in ("gate", "up", "down")),
)


def write_tiny_model(path: Path) -> None:
    """Write the model, always the same bytes."""
    generator = random.Random(0)
    with path.open("wb") as file:
        file.write(encode_header(METADATA, TENSORS))
        for tensor in TENSORS:
            data = _random_data(tensor, generator)
            file.write(data + bytes(padded(len(data)) - len(data)))


def _random_data(tensor: TensorSpec, generator: random.Random) -> bytes:
    """Random weights of about 0.1: any bits will do for quants, but scales must be sane."""
    match tensor.ggml_type:
        case GGMLType.F32:
            return struct.pack("<f", 1.0) * tensor.n_elements
        case GGMLType.Q8_0:  # scale, 32 int8
            return b"".join(struct.pack("<e", 0.001) + generator.randbytes(32) for _ in range(tensor.n_elements // 32))
        case GGMLType.Q4_K:  # scale, scale of the minima, 12 bytes of 6-bit scales, 256 nibbles
            return b"".join(
                struct.pack("<ee", 0.0002, 0.001) + generator.randbytes(12 + 128)
                for _ in range(tensor.n_elements // 256)
            )
        case other:
            raise ValueError(f"no random data for {other.name}")
