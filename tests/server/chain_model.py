"""A llama whose every answer is known: each token is followed by exactly one other, whatever came before.

Its attention and feed-forward outputs are zero, so a token's embedding (one-hot) goes straight to the output matrix,
which has a large weight where that token meets its successor. The tokenizer is SentencePiece's with byte tokens only:
any text can be a prompt, and every character beyond ASCII is several tokens.

The answer to a prompt depends on its last byte alone: `successors` gives it.
"""

import itertools
from pathlib import Path

import numpy as np

from ggufphys.gguf.ggml_types import GGMLType
from ggufphys.gguf.values import ValueType
from ggufphys.gguf.writer import TensorSpec, Typed, WriteValue, encode_header, padded

N_EMBD = 512
N_SPECIAL = 3  # <unk>, <s>, </s>
EOS = 2
N_VOCAB = N_SPECIAL + 256

ENDING = "!Hé€😀 wor"
"""After `!` the model says the rest of this, then ends: 1 to 4 bytes a character, no byte twice."""

LOOP = "0123456789"
"""After a digit the model counts on, for ever."""

CHAT = "\nOkay?"
"""After a newline, with which a ChatML prompt ends, the model says the rest of this, then ends."""


def byte_token(byte: int) -> int:
    """The token of a byte."""
    return N_SPECIAL + byte


def successors() -> dict[int, int]:
    """Token to the token that follows it; EOS for those not named."""
    following = {byte_token(a): byte_token(b) for text in (ENDING, CHAT) for a, b in _pairs(text.encode())}
    digits = LOOP.encode()
    following |= {byte_token(a): byte_token(b) for a, b in zip(digits, digits[1:] + digits[:1], strict=True)}
    return {token: following.get(token, EOS) for token in range(N_VOCAB)}


def _pairs(raw: bytes) -> list[tuple[int, int]]:
    assert len(set(raw)) == len(raw)
    return list(itertools.pairwise(raw))


def write_chain_model(path: Path, *, n_ctx_train: int = 512, chat_template: str = "", nan: bool = False) -> Path:
    """Write the model; `nan` makes every logit NaN."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    metadata: dict[str, WriteValue] = {
        "general.architecture": "llama",
        "general.name": "chain",
        "llama.context_length": n_ctx_train,
        "llama.embedding_length": N_EMBD,
        "llama.block_count": 1,
        "llama.feed_forward_length": 32,
        "llama.attention.head_count": 8,
        "llama.attention.head_count_kv": 1,  # 256 bytes a cell, so that a long context is cheap
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * N_VOCAB,
        "tokenizer.ggml.token_type": Typed([2, 3, 3, *([6] * 256)], ValueType.INT32),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": EOS,
        "tokenizer.ggml.add_space_prefix": False,
    }
    if chat_template:
        metadata["tokenizer.chat_template"] = chat_template
    embedding = np.eye(N_VOCAB, N_EMBD, dtype=np.float32)
    output = np.zeros((N_VOCAB, N_EMBD), dtype=np.float32)
    for token, following in successors().items():
        output[following, token] = 100.0
    if nan:
        output[:] = np.nan
    tensors = {
        "token_embd.weight": embedding,
        "output_norm.weight": np.ones(N_EMBD, dtype=np.float32),
        "output.weight": output,
        "blk.0.attn_norm.weight": np.ones(N_EMBD, dtype=np.float32),
        **{f"blk.0.attn_{m}.weight": np.zeros((N_EMBD, N_EMBD), dtype=np.float32) for m in ("q", "output")},
        **{f"blk.0.attn_{m}.weight": np.zeros((N_EMBD // 8, N_EMBD), dtype=np.float32) for m in ("k", "v")},
        "blk.0.ffn_norm.weight": np.ones(N_EMBD, dtype=np.float32),
        "blk.0.ffn_gate.weight": np.zeros((32, N_EMBD), dtype=np.float32),
        "blk.0.ffn_up.weight": np.zeros((32, N_EMBD), dtype=np.float32),
        "blk.0.ffn_down.weight": np.zeros((N_EMBD, 32), dtype=np.float32),
    }
    specs = [TensorSpec(name, tuple(reversed(data.shape)), GGMLType.F32) for name, data in tensors.items()]
    with path.open("wb") as file:
        file.write(encode_header(metadata, specs))
        for data in tensors.values():
            raw = data.tobytes()
            file.write(raw + bytes(padded(len(raw)) - len(raw)))
    return path
