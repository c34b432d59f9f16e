"""The worked examples of docs/physics.md are what the rules say of models of these shapes."""

from pathlib import Path

import pytest

import ggufphys
from ggufphys import Params, open_gguf
from ggufphys.arch import read_hparams, rule_for
from ggufphys.context import resolve
from ggufphys.gguf.writer import WriteValue
from ggufphys.memory.context import context_terms
from tests.ggufphys.models import llama_metadata, write_model

PHYSICS = (Path(ggufphys.__file__).parent.parent / "docs" / "physics.md").read_text()

HEADS: dict[str, WriteValue] = {"head_count": 32, "head_count_kv": 8, "key_length": 128, "value_length": 128}
MLA: dict[str, WriteValue] = {
    "head_count": 128, "head_count_kv": 1, "key_length": 576, "value_length": 512, "key_length_mla": 192,
    "value_length_mla": 128, "kv_lora_rank": 512,
}  # fmt: skip
DELTA: dict[str, WriteValue] = {
    "ssm__conv_kernel": 4, "ssm__inner_size": 4096, "ssm__state_size": 128, "ssm__group_count": 16,
}  # fmt: skip


def attention(**keys: WriteValue) -> dict[str, WriteValue]:
    """Keys of attention, as `llama_metadata` wants them."""
    return {f"attention__{name}": value for name, value in keys.items()}


EXAMPLES: dict[str, tuple[str, dict[str, WriteValue], Params]] = {
    "Llama 3.1 8B": ("llama", {"block_count": 32, **attention(**HEADS)}, Params(n_ctx=8192)),
    "Llama 3.1 8B in Q8_0": (
        "llama",
        {"block_count": 32, **attention(**HEADS)},
        Params(n_ctx=8192, type_k="q8_0", type_v="q8_0"),
    ),
    "Gemma 3 4B": (
        "gemma3",
        {
            "block_count": 34,
            **attention(head_count=8, head_count_kv=4, key_length=256, value_length=256, sliding_window=1024),
        },
        Params(n_ctx=32768),
    ),
    "Gemma 3 4B for four": (
        "gemma3",
        {
            "block_count": 34,
            **attention(head_count=8, head_count_kv=4, key_length=256, value_length=256, sliding_window=1024),
        },
        Params(n_ctx=32768, n_seq_max=4),
    ),
    "Gemma 3n E4B": (
        "gemma3n",
        {
            "block_count": 35,
            **attention(head_count=8, head_count_kv=2, key_length=256, value_length=256, sliding_window=512),
        },
        Params(n_ctx=32768),
    ),
    "DeepSeek V3": ("deepseek2", {"block_count": 61, **attention(**MLA)}, Params(n_ctx=32768)),
    "Mamba 2 2.7B": (
        "mamba2",
        {
            "block_count": 64, "embedding_length": 2560, "attention__head_count": 0, "ssm__conv_kernel": 4,
            "ssm__inner_size": 5120, "ssm__state_size": 128, "ssm__group_count": 1,
        },
        Params(n_ctx=32768),
    ),
    "Qwen3-Next 80B": (
        "qwen3next",
        {"block_count": 48, **attention(head_count=16, head_count_kv=2, key_length=256, value_length=256), **DELTA},
        Params(n_ctx=32768),
    ),
    "DeepSeek V3.2": (
        "deepseek32",
        {"block_count": 61, **attention(**MLA, indexer__key_length=128)},
        Params(n_ctx=32768),
    ),
    "a layer of DeepSeek V4": (
        "deepseek4",
        {
            "block_count": 1, "hyper_connection.count": 4,
            **attention(
                head_count=64, head_count_kv=1, key_length=512, value_length=512, sliding_window=128,
                indexer__key_length=128, compress_ratios=[4],
            ),
        },
        Params(n_ctx=65536),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXAMPLES)
def test_worked_examples(tmp_path: Path, name: str) -> None:
    """The sum that the document works out is the context of such a model."""
    arch, keys, params = EXAMPLES[name]
    path = write_model(tmp_path / "model.gguf", llama_metadata(arch, **keys), [])
    with open_gguf(path) as gguf:
        h = read_hparams(gguf)
    rule = rule_for(arch)
    context = resolve(params, n_ctx_train=h.n_ctx_train)
    context_bytes = sum(term.nbytes for term in context_terms(h, rule, context))

    assert f"= {context_bytes:,}" in PHYSICS
