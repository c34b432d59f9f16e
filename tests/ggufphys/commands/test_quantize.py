"""`inspect --quantize`: what the file would weigh and cost as other types."""

import json
from pathlib import Path
from typing import Any

import pytest

from ggufphys.cli import main
from ggufphys.gguf import GGMLType
from tests.ggufphys.models import llama_metadata, llama_tensors, tiny_llama, write_model


def rows_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    """The rows of the JSON document."""
    assert main(["inspect", "--json", *arguments]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["memory"]["total_bytes"] > 0
    rows: list[dict[str, Any]] = document["quantized"]
    return rows


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The document gets a row a type, in the order asked; memory follows the run's flags."""
    path = str(tiny_llama(tmp_path / "tiny.gguf"))
    small = rows_of(capsys, path, "--quantize", "q4_k_m,Q8_0", "-c", "512")
    large = rows_of(capsys, path, "--quantize", "q4_k_m,Q8_0", "-c", "2048")

    assert [row["file_type"] for row in small] == ["Q4_K_M", "Q8_0"]
    assert set(small[0]) == {
        "file_type", "tensor_bytes", "bpw", "file_bytes", "needs_imatrix", "types", "model_bytes", "total_bytes",
        "process_bytes", "refused",
    }  # fmt: skip
    for a, b in zip(small, large, strict=True):
        assert (a["tensor_bytes"], a["model_bytes"]) == (b["tensor_bytes"], b["model_bytes"])
        assert a["total_bytes"] < b["total_bytes"]


def test_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The report ends in a table, and says what is assumed of types that want an importance matrix."""
    assert main(["inspect", str(tiny_llama(tmp_path / "tiny.gguf")), "--quantize", "all"]) == 0
    out = capsys.readouterr().out

    assert "as " in out
    assert "\nQ4_K_M " in out
    assert max(map(len, out.splitlines())) <= 120
    assert "imatrix: llama-quantize insists on an importance matrix" in out


def test_refused_types_share_their_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a quantised file few types can be made: the table has these, and why not the others is said once."""
    path = write_model(tmp_path / "q8.gguf", llama_metadata(), llama_tensors(GGMLType.Q8_0))
    assert main(["inspect", str(path), "--quantize", "all"]) == 0
    out = capsys.readouterr().out

    table = out[out.index("\nas ") + 1 :].split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in table[2:5]] == ["Q8_0", "MXFP4_MOE", "not"]
    assert out.count("requantizing from type q8_0 is disabled") == 1
    assert "not F32, F16," in out


def test_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """llama-quantize's options are understood as it understands them."""
    path = str(tiny_llama(tmp_path / "tiny.gguf"))
    (mixed,) = rows_of(capsys, path, "--quantize", "Q4_K_M")
    (pure,) = rows_of(capsys, path, "--quantize", "Q4_K_M", "--pure")
    (chosen,) = rows_of(
        capsys, path, "--quantize", "Q4_K_M", "--tensor-type", "ATTN_V=q8_0", "--token-embedding-type", "bf16"
    )

    assert pure["types"] == {"Q4_K": 15, "F32": 5}
    assert set(mixed["types"]) > {"Q4_K", "F32"}
    assert (chosen["types"]["Q8_0"], chosen["types"]["BF16"]) == (2, 1)


def test_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file type may be named by its number, as llama-quantize reads it, and COPY keeps what there is."""
    rows = rows_of(capsys, str(tiny_llama(tmp_path / "tiny.gguf")), "--quantize", "15,7B,copy,0")

    assert [row["file_type"] for row in rows] == ["Q4_K_M", "Q8_0", "COPY", "F32"]
    assert rows[2]["types"] == {"F16": 15, "F32": 5}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--quantize", "Q4_Z"], "no file type of llama-quantize: 'Q4_Z'"),
        (["--quantize", "99"], "no file type of llama-quantize: '99'"),
        (
            ["--quantize", "Q4_0", "--tensor-type", "(?i)attn_v=q8_0"],
            "behind '(?' only ':', '=' and '!' have a meaning",
        ),
        (["--quantize", "Q4_0", "--tensor-type", "attn_v"], "'attn_v': expected PATTERN=TYPE"),
        (["--quantize", "Q4_0", "--output-tensor-type", "q9"], "no type that ggml quantises to: 'q9'"),
        (["--pure"], "--pure: for --quantize, which is not given"),
        (["--quantize", "Q4_0"], "requantizing from type q8_0 is disabled"),
    ],
)
def test_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    """What cannot be asked, and what llama-quantize would refuse, is an error of usage with the reason."""
    path = write_model(tmp_path / "q8.gguf", llama_metadata(), llama_tensors(GGMLType.Q8_0))

    assert main(["inspect", str(path), *arguments]) == 2
    assert message in capsys.readouterr().err
