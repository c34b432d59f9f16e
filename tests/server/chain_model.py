"""A llama whose every answer is known: each token is followed by exactly one other, whatever came before.

Its attention and feed-forward outputs are zero, so a token's embedding (one-hot) goes straight to the output matrix,
which has a large weight where that token meets its successor. The tokenizer is SentencePiece's with byte tokens only:
any text can be a prompt, and every character beyond ASCII is several tokens.

The answer to a prompt depends on its last byte alone: `successors` gives it.
"""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ggufphys.gguf.ggml_types import GGMLType
from ggufphys.gguf.reader import padded
from ggufphys.gguf.values import ValueType
from ggufphys.gguf.writer import TensorSpec, Typed, WriteValue, encode_header

Array = npt.NDArray[np.float32]

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


def write_chain_model(path: Path, *, chat_template: str = "", nan: bool = False) -> Path:
    """Write the model; `nan` makes every logit NaN."""
    output = np.zeros((N_VOCAB, N_EMBD), dtype=np.float32)
    for token, following in successors().items():
        output[following, token] = np.nan if nan else 100.0
    tensors = _llama_tensors(N_EMBD, lambda shape: np.zeros(shape, dtype=np.float32))
    tensors["token_embd.weight"] = np.eye(N_VOCAB, N_EMBD, dtype=np.float32)
    tensors["output.weight"] = output
    more: dict[str, WriteValue] = {"tokenizer.chat_template": chat_template} if chat_template else {}
    return _write(path, "chain", N_EMBD, tensors, more)


def write_chain_adapter(path: Path, following: dict[str, str], **more: WriteValue) -> Path:
    """A LoRA for the model: after a character on the left comes that on the right, ten times as surely as without."""
    a = np.zeros((len(following), N_EMBD), dtype=np.float32)
    b = np.zeros((N_VOCAB, len(following)), dtype=np.float32)
    for i, (before, after) in enumerate(following.items()):
        a[i, byte_token(ord(before))] = 1
        b[byte_token(ord(after)), i] = 1000
    metadata: dict[str, WriteValue] = {
        "general.type": "adapter", "general.architecture": "llama", "adapter.type": "lora",
        "adapter.lora.alpha": float(len(following)), **more,
    }  # fmt: skip
    return _write_file(path, metadata, {"output.weight.lora_a": a, "output.weight.lora_b": b})


def write_mixing_model(path: Path, *, noise: float = 0.0, **more: WriteValue) -> Path:
    """Write a model of random weights, whose answer depends on every token before and on where it stands.

    `noise` is what its weights differ by from those of the model without; `more` is metadata, with `__` for dots.
    """
    generator, other = np.random.default_rng(1), np.random.default_rng(2)

    def weights(shape: tuple[int, int]) -> Array:
        return (generator.normal(0, 0.3, shape) + noise * other.normal(0, 0.3, shape)).astype(np.float32)

    return _write(
        path, "mixing", 64, _llama_tensors(64, weights), {key.replace("__", "."): value for key, value in more.items()}
    )


def write_ranking_model(path: Path, *, template: str = "") -> Path:
    """Write a model of random weights whose file says that it ranks: how likely is yes, how likely no?"""
    generator = np.random.default_rng(3)

    def weights(shape: tuple[int, int]) -> Array:
        return generator.normal(0, 0.3, shape).astype(np.float32)

    norms = {f"blk.0.attn_{each}_norm.weight": np.ones(8, dtype=np.float32) for each in "qk"}
    more: dict[str, WriteValue] = {
        "qwen3.pooling_type": 4, "qwen3.classifier.output_labels": ["yes", "no"], "tokenizer.ggml.add_eos_token": True,
        **({"tokenizer.chat_template.rerank": template} if template else {}),
    }  # fmt: skip
    tensors = {**_llama_tensors(64, weights), **norms, "cls.output.weight": weights((2, 64))}
    return _write(path, "ranking", 64, tensors, more, arch="qwen3")


def write_mixing_adapter(path: Path, seed: int) -> Path:
    """A LoRA for that model, of random weights."""
    generator, tensors = np.random.default_rng(seed), dict[str, Array]()
    for name in ("attn_q", "attn_v", "attn_output", "ffn_down"):
        n_out, n_in = {"attn_v": (8, 64), "ffn_down": (64, 32)}.get(name, (64, 64))
        tensors[f"blk.0.{name}.weight.lora_a"] = generator.normal(0, 0.3, (2, n_in)).astype(np.float32)
        tensors[f"blk.0.{name}.weight.lora_b"] = generator.normal(0, 0.3, (n_out, 2)).astype(np.float32)
    metadata: dict[str, WriteValue] = {
        "general.type": "adapter", "general.architecture": "llama", "adapter.type": "lora", "adapter.lora.alpha": 2.0,
    }  # fmt: skip
    return _write_file(path, metadata, tensors)


def _llama_tensors(n_embd: int, weights: Callable[[tuple[int, int]], Array]) -> dict[str, Array]:
    """The tensors of one layer with 8 heads, 1 of them for keys and values."""
    n_embd_kv = n_embd // 8
    shapes = {
        "token_embd": (N_VOCAB, n_embd),
        "output": (N_VOCAB, n_embd),
        "blk.0.attn_q": (n_embd, n_embd),
        "blk.0.attn_k": (n_embd_kv, n_embd),
        "blk.0.attn_v": (n_embd_kv, n_embd),
        "blk.0.attn_output": (n_embd, n_embd),
        "blk.0.ffn_gate": (32, n_embd),
        "blk.0.ffn_up": (32, n_embd),
        "blk.0.ffn_down": (n_embd, 32),
    }
    norms = ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm")
    return {f"{name}.weight": weights(shape) for name, shape in shapes.items()} | {
        f"{name}.weight": np.ones(n_embd, dtype=np.float32) for name in norms
    }


def _write(
    path: Path, name: str, n_embd: int, tensors: dict[str, Array], more: dict[str, WriteValue], *, arch: str = "llama"
) -> Path:
    metadata: dict[str, WriteValue] = {
        "general.architecture": arch,
        "general.name": name,
        f"{arch}.context_length": 512,
        f"{arch}.embedding_length": n_embd,
        f"{arch}.block_count": 1,
        f"{arch}.feed_forward_length": 32,
        f"{arch}.attention.head_count": 8,
        f"{arch}.attention.head_count_kv": 1,  # few bytes a cell, so that a long context is cheap
        f"{arch}.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))],
        "tokenizer.ggml.scores": [0.0] * N_VOCAB,
        "tokenizer.ggml.token_type": Typed([2, 3, 3, *([6] * 256)], ValueType.INT32),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": EOS,
        "tokenizer.ggml.add_space_prefix": False,
        **more,
    }
    return _write_file(path, metadata, tensors)


def _write_file(path: Path, metadata: dict[str, WriteValue], tensors: dict[str, Array]) -> Path:
    specs = [TensorSpec(key, tuple(reversed(data.shape)), GGMLType.F32) for key, data in tensors.items()]
    with path.open("wb") as file:
        file.write(encode_header(metadata, specs))
        for data in tensors.values():
            raw = data.tobytes()
            file.write(raw + bytes(padded(len(raw)) - len(raw)))
    return path
