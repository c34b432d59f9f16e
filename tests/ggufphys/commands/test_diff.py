"""`inspect A --diff B`: what differs is told, what is equal is counted."""

import json
from pathlib import Path
from typing import Any

import pytest

from ggufphys import GGMLType
from ggufphys.cli import main
from ggufphys.gguf.values import ValueType
from ggufphys.gguf.writer import TensorSpec, Typed, WriteValue
from tests.ggufphys.models import llama_metadata, llama_tensors, tiny_llama, write_model


def document(capsys: pytest.CaptureFixture[str], a: Path, b: Path, *flags: str) -> dict[str, Any]:
    """The JSON of a comparison."""
    assert main(["inspect", str(a), "--diff", str(b), "--json", *flags]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_same_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file does not differ from a copy of itself, and all is counted as equal."""
    a, b = tiny_llama(tmp_path / "a.gguf"), tiny_llama(tmp_path / "b.gguf")
    found = document(capsys, a, b)

    assert found["equal"] is True
    assert found["keys"] == {"n_equal": len(llama_metadata()), "only_in_a": {}, "only_in_b": {}, "changed": []}
    assert (found["tensors"]["n_equal"], found["tensors"]["changed"]) == (20, [])
    assert all(row["a"] == row["b"] for row in found["sizes"])


def test_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Keys of one file alone, other values, other types of the same value, and where arrays part are told."""
    words: dict[str, WriteValue] = {"words": ["a", "b", "c"], "numbers": [1, 2], "same": [0.5], "flag": True, "a": 1}
    other: dict[str, WriteValue] = {"words": ["a", "x"], "numbers": [1, 2, 3], "same": [0.5], "flag": 1, "b": "new"}
    a = write_model(tmp_path / "a.gguf", llama_metadata() | words, llama_tensors())
    b = write_model(tmp_path / "b.gguf", llama_metadata() | other, llama_tensors())
    keys = document(capsys, a, b)["keys"]

    assert (keys["only_in_a"], keys["only_in_b"]) == ({"a": 1}, {"b": "new"})
    assert {c["key"]: c["index"] for c in keys["changed"]} == {"words": 1, "numbers": 2, "flag": None}
    assert main(["inspect", str(a), "--diff", str(b)]) == 0
    out = capsys.readouterr().out
    assert "3 string, [1] 'b'" in out
    assert "3 int32, [2] 3" in out
    assert "2 int32, [2] ends" in out


def test_types_of_equal_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A value that only its type sets apart is different: llama.cpp may load one of the files and refuse the other."""
    b_values: dict[str, WriteValue] = {
        "llama.block_count": Typed(2, ValueType.UINT64),
        "llama.context_length": Typed(2048, ValueType.INT32),
        "llama.attention.layer_norm_rms_epsilon": Typed(0.5, ValueType.FLOAT64),
    }
    a = write_model(tmp_path / "a.gguf", llama_metadata(attention__layer_norm_rms_epsilon=0.5), llama_tensors())
    b = write_model(tmp_path / "b.gguf", llama_metadata() | b_values, llama_tensors())
    found = document(capsys, a, b)

    assert found["equal"] is False
    assert {c["key"]: (c["a_type"], c["b_type"]) for c in found["keys"]["changed"]} == {
        "llama.block_count": ("UINT32", "UINT64"),
        "llama.context_length": ("UINT32", "INT32"),
        "llama.attention.layer_norm_rms_epsilon": ("FLOAT32", "FLOAT64"),
    }
    assert main(["inspect", str(a), "--diff", str(b)]) == 0
    assert "llama.block_count                       2 (uint32)     2 (uint64)" in capsys.readouterr().out


def test_tensors_and_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Other types and shapes, and tensors of one file alone, are told; layers share a line; memory stands below."""
    a = tiny_llama(tmp_path / "a.gguf")
    spare = TensorSpec("spare.weight", (256,), GGMLType.F32)
    b = write_model(tmp_path / "b.gguf", llama_metadata(), [*llama_tensors(GGMLType.Q8_0), spare])
    found = document(capsys, a, b, "-c", "512")

    tensors, sizes = found["tensors"], {row["quantity"]: (row["a"], row["b"]) for row in found["sizes"]}
    assert (tensors["n_equal"], len(tensors["changed"]), [t["name"] for t in tensors["only_in_b"]]) == (
        5, 15, ["spare.weight"],
    )  # fmt: skip
    assert tensors["changed"][0]["a"]["type"] == "F16"
    assert sizes["file"] == (a.stat().st_size, b.stat().st_size)
    assert sizes["context"][0] == sizes["context"][1] > 0
    assert sizes["model"][0] > sizes["model"][1]
    assert main(["inspect", str(a), "--diff", str(b)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "attn_q.weight 0-1 F16 Q8_0 0.25 0.13" in lines
    assert "spare.weight - F32 256 0.00 0.00" in lines


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Other questions, several models and a file that is none are refused."""
    a = str(tiny_llama(tmp_path / "a.gguf"))

    assert main(["inspect", a, "--diff", a, "--explain"]) == 2
    assert main(["inspect", str(tmp_path), "--diff", a]) == 2
    assert main(["inspect", a, "--diff", str(tmp_path / "gone.gguf")]) == 3
    assert "gone.gguf" in capsys.readouterr().err
