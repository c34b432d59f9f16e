"""Vocabularies as llama.cpp reads them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import ggufphys
from ggufphys.gguf.values import ValueType
from ggufphys.gguf.writer import encode_header
from ggufphys.loads.check import reasons
from tests import archs
from tests.ggufphys.loads.header import BPE, I32, N_VOCAB, refusals, typed


def _of(folder: Path, **changes: Any) -> tuple[str, ...]:
    keys = {key.replace(".", "__"): value for key, value in BPE.items()}
    given = {f"tokenizer__ggml__{name}": value for name, value in changes.items()}
    return tuple(map(str, refusals(folder, **{**keys, **given})))


def test_a_good_vocabulary(tmp_path: Path) -> None:
    """Byte pairs with tokens, types and merges are no reason, without a pre-tokenizer and scores neither."""
    assert _of(tmp_path) == ()
    assert _of(tmp_path, pre=None) == ()
    assert _of(tmp_path, token_type=None) == ()
    assert _of(tmp_path, scores=[0.0] * (N_VOCAB + 1)) == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "nonesuch"}, "tokenizer that llama.cpp does not know: found 'nonesuch'"),
        ({"model": None}, "tokenizer.ggml.model: a key that llama.cpp needs is missing"),
        ({"pre": "deepseek-r9-qwen"}, "pre-tokenizer that llama.cpp does not know: found 'deepseek-r9-qwen'"),
        ({"merges": None}, "tokenizer.ggml.merges: a key that llama.cpp needs is missing"),
        ({"merges": typed([1], I32)}, "found arr[i32, 1], expected arr[str]"),
        ({"tokens": None}, "tokenizer.ggml.tokens: a key that llama.cpp needs is missing"),
        ({"token_type": [1] * (N_VOCAB - 1)}, "found 299 elements, expected at least 300"),
        ({"scores": [0.0]}, "found 1 elements, expected at least 300"),
        ({"scores": typed([1] * N_VOCAB, ValueType.INT16)}, "expected arr[i32] or arr[f32]"),
        ({"eos_token_id": typed(2, I32)}, "tokenizer.ggml.eos_token_id: the value has another type"),
        ({"add_bos_token": 1}, "tokenizer.ggml.add_bos_token: the value has another type"),
        ({"suppress_tokens": ["a"]}, "tokenizer.ggml.suppress_tokens: the value has another type"),
        ({"tokens": ["a", "b", "a", *(f"t{i}" for i in range(297))]}, "occurs more than once: found 'a'"),
        ({"tokens": [f"t{i}" for i in range(299)], "token_type": None}, "token_embd.weight"),
        ({"model": "plamo2"}, "a byte has no token: found none, expected <0x00>"),
        ({"token_type": [6] * N_VOCAB}, "a byte's token is too short"),
        ({"model": "bert", "token_type": [6] * N_VOCAB}, "a byte as a token"),
        ({"model": "t5", "precompiled_charsmap": typed([1, 2], ValueType.UINT8)}, "shorter than it says"),
        ({"model": "t5", "precompiled_charsmap": [1, 2]}, "expected arr[i8] or arr[u8]"),
    ],
)  # fmt: skip
def test_reasons(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    """Each of these alone is a reason, with the key and what is expected there."""
    assert any(words in reason for reason in _of(tmp_path, **changes))


def test_odd_but_good(tmp_path: Path) -> None:
    """Empty tokens get names of their own; token ids out of range and merges for kimi-k2 do not matter."""
    assert _of(tmp_path, tokens=["", "", *(f"t{i}" for i in range(298))]) == ()
    assert _of(tmp_path, eos_token_id=999_999) == ()
    assert _of(tmp_path, pre="kimi-k2", merges=None) == ()


def test_without_a_vocabulary_nothing_else_is_read(tmp_path: Path) -> None:
    """A file that says no_vocab may hold lists of any kind."""
    assert refusals(tmp_path, tokenizer__ggml__model="no_vocab", tokenizer__ggml__tokens=typed([1], I32)) == ()


def test_a_model_named_phi_3(tmp_path: Path) -> None:
    """llama.cpp looks for four tokens in a model whose name has phi-3 in it, and dies of none of them silently."""
    keys: dict[str, Any] = {key.replace(".", "__"): value for key, value in BPE.items()}
    reasons = refusals(tmp_path, **keys, general__name="Phi-3 mini")
    assert [reason.expected for reason in reasons] == ["'</s>'", "'<s>'", "'<unk>'", "'<|endoftext|>'"]


@pytest.mark.parametrize("twice", [True, False])
def test_large_vocabularies(twice: bool, tmp_path: Path) -> None:
    """Above 100,000 tokens their texts are read when the verdict is asked for, not when memory is predicted."""
    tokens = [f"t{i}" for i in range(100_001)]
    if twice:
        tokens[77_777] = "t5"
    model, record = archs.models()["llama"], archs.records()["llama"]
    wide = ("token_embd.weight", "output.weight")
    tensors = [replace(t, ne=(t.ne[0], len(tokens))) if t.name in wide else t for t in record.tensors]
    path = tmp_path / "model.gguf"
    keys = {**BPE, "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": [1] * len(tokens)}
    path.write_bytes(encode_header({**model.metadata, **keys}, tensors))
    with ggufphys.open_gguf(path) as gguf:
        found = [str(refusal) for refusal in ggufphys.check_loads(gguf)]
        assert reasons(gguf) == ()
    assert len(found) == twice
    assert all("a token occurs more than once: found 't5'" in reason for reason in found)
