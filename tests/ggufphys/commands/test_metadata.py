"""`ggufphys metadata`: every key of a header with its type and value, whole where it is asked for."""

import json
from pathlib import Path
from typing import Any

import pytest

from ggufphys.cli import main
from ggufphys.embedded import MODEL
from ggufphys.gguf import open_gguf
from ggufphys.gguf.values import ValueType
from ggufphys.gguf.writer import Typed, WriteValue
from tests.ggufphys.models import llama_metadata, llama_tensors, write_model

KEYS: dict[str, WriteValue] = {
    "a.f32": Typed(1e-6, ValueType.FLOAT32), "a.base": Typed(1e6, ValueType.FLOAT32),
    "a.third": Typed(1 / 3, ValueType.FLOAT32), "a.nan": Typed(float("nan"), ValueType.FLOAT64),
    "a.bool": True, "a.text": "two\nlines", "a.long": "x" * 3000,
    "a.list": Typed(tuple(range(3)), ValueType.INT32), "a.many": Typed(tuple(range(3000)), ValueType.UINT32),
    "tokenizer.ggml.tokens": ("<s>", "</s>", "a"), "tokenizer.ggml.eos_token_id": Typed(1, ValueType.UINT32),
    "tokenizer.ggml.bos_token_id": Typed(9, ValueType.UINT32),
}  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A model with keys of every sort."""
    return write_model(tmp_path / "m.gguf", llama_metadata() | KEYS, llama_tensors())


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    code = main(["metadata", *words])
    return code, *capsys.readouterr()


def test_a_row_a_key(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers have the digits that their type holds, long values are cut and counted, token ids say which token."""
    code, out, _ = answer(capsys, str(path))
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in out.splitlines()[2:-2]}

    assert code == 0
    assert list(rows) == [*llama_metadata(), *KEYS]
    assert max(map(len, out.splitlines())) < 160
    for key, row in {
        "a.f32": "float32 1e-06", "a.base": "float32 1000000", "a.third": "float32 0.33333334", "a.nan": "float64 nan",
        "a.bool": "bool true", "a.text": "string 'two\\nlines'", "a.list": "3 int32 0, 1, 2",
        "tokenizer.ggml.tokens": "3 string '<s>', '</s>', 'a'", "tokenizer.ggml.eos_token_id": "uint32 1, '</s>'",
        "tokenizer.ggml.bos_token_id": "uint32 9",
    }.items():  # fmt: skip
        assert " ".join(rows[key].split()) == row
    assert rows["a.long"].endswith("… (3,002 characters)")
    assert rows["a.many"].endswith("…")
    assert out.splitlines()[-1] == f"{len(rows)} keys, GGUF v3, little-endian"


def test_one_key_whole(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A text comes as it is, an array an element a line; a key that is not there is told with those alike."""
    assert answer(capsys, str(path), "--key", "a.text") == (0, "two\nlines\n", "")
    assert answer(capsys, str(path), "--key", "a.long") == (0, "x" * 3000 + "\n", "")
    assert answer(capsys, str(path), "--key", "a.many")[1].split() == [str(i) for i in range(3000)]
    code, out, err = answer(capsys, str(path), "--key", "llama.block_cuont")
    assert (code, out) == (2, "")
    assert "did you mean llama.block_count" in err


def test_document(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Values as they are; what is no number in JSON as text, and large arrays only where they are asked for."""

    def strict(text: str) -> Any:
        return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} in JSON"))

    rows = {row["key"]: row for row in strict(answer(capsys, str(path), "--json")[1])["metadata"]}
    assert rows["a.nan"]["value"] == "nan"
    assert rows["a.list"] == {"key": "a.list", "type": "int32", "length": 3, "value": [0, 1, 2]}
    assert rows["a.many"] == {"key": "a.many", "type": "uint32", "length": 3000, "value": None}
    assert rows["a.long"]["value"] == "x" * 3000
    (row,) = strict(answer(capsys, str(path), "--json", "--key", "a.many")[1])["metadata"]
    assert row["value"] == list(range(3000))


def test_the_embedded_models_vocabulary(capsys: pytest.CaptureFixture[str]) -> None:
    """All of a vocabulary, as the reader has it."""
    (row,) = json.loads(answer(capsys, str(MODEL), "--json", "--key", "tokenizer.ggml.tokens")[1])["metadata"]
    with open_gguf(MODEL) as gguf:
        tokens = gguf.get_array("tokenizer.ggml.tokens")
        assert tokens is not None
        assert row["value"] == list(tokens)
    assert "general.file_type" in answer(capsys, str(MODEL))[1]
