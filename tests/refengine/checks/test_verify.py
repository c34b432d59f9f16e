"""`ggufphys verify`: exit codes, the table, the JSON document."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ggufphys import GGUFError, MissingExtraError, UnsupportedError
from ggufphys.gguf import GGMLType
from ggufphys.gguf.reader import padded
from ggufphys.gguf.writer import TensorSpec, encode_header
from refengine.blocks import F32, Blocks
from refengine.checks import blocks as checks
from refengine.checks import verify
from refengine.checks.samples import random_samples
from refengine.dequant import table as dequant
from refengine.peers import ggml, gguf_py

Write = Callable[..., Path]
BLOCKS = ["--blocks", "50"]


def verified(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    verify.add_arguments(parser)
    return verify.run(parser.parse_args([str(a) for a in arguments]))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a GGUF with a tensor of each type named, 1024 random weights in each, less the last `cut` bytes."""

    def to_file(*types: GGMLType, cut: int = 0, byte_order: Any = "little") -> Path:
        specs = [TensorSpec(f"{t.name.lower()}.{i}", (256, 4), t) for i, t in enumerate(types)]
        data = b""
        for spec in specs:
            (sample,) = random_samples(spec.ggml_type, 1024, seed=0)
            raw = sample.raw.tobytes()[: spec.nbytes]
            data += raw + bytes(padded(spec.nbytes) - spec.nbytes)
        content = encode_header({"general.architecture": "llama"}, specs, byte_order=byte_order) + data
        path = tmp_path / "model.gguf"
        path.write_bytes(content[: len(content) - cut])
        return path

    return to_file


@pytest.fixture
def wrong_q8_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Q8_0 kernel that is off by one in the last weight of a block."""
    right = dequant.FORMATS[GGMLType.Q8_0]

    def wrong(blocks: Blocks, w: F32) -> None:
        right(blocks, w)
        w[:, 31] = np.nextafter(w[:, 31], np.float32(np.inf))

    monkeypatch.setitem(dequant.FORMATS, GGMLType.Q8_0, wrong)


@pytest.fixture
def fresh_imports() -> Iterator[None]:
    """Forgets which packages were found, before and after."""
    ggml._llama_cpp.cache_clear()
    gguf_py._gguf.cache_clear()
    yield
    ggml._llama_cpp.cache_clear()
    gguf_py._gguf.cache_clear()


def test_without_model(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a model every type has a random and a special row, and all are bit-exact."""
    code = verified(*BLOCKS)
    lines = capsys.readouterr().out.splitlines()

    assert code == 0
    assert lines[0].startswith(f"llama_cpp {ggml.version()}, gguf {gguf_py.version()}, numpy {np.__version__}")
    assert 2 + 2 * len(dequant.FORMATS) == len(lines)
    assert all(line.endswith("bit-exact") for line in lines[2:])


def test_json(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` prints one document, with a row for each type of the model's tensors beside the synthetic ones."""
    path = write(GGMLType.Q4_K, GGMLType.F32, GGMLType.Q4_K)
    code = verified(path, "--json", *BLOCKS)
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    own = [row for row in document["rows"] if "tensor" in row["source"]]

    assert code == 0
    assert {"schema_version", "ok", "llama_cpp", "gguf", "numpy", "seed", "model", "rows"} == set(document)
    assert (1, True, str(path)) == (document["schema_version"], document["ok"], document["model"])
    assert [(r["type"], r["source"], r["n_blocks"]) for r in own] == [
        ("F32", "1 tensor", 1024),
        ("Q4_K", "2 tensors", 8),
    ]
    assert {"n_different": 0, "max_abs": 0.0, "first": None} == own[1]["ggml"] == own[1]["gguf"]
    assert {"bit-exact"} == {row["verdict"] for row in document["rows"]}


@pytest.mark.usefixtures("wrong_q8_0")
def test_wrong_kernel(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """One bit off in one weight of a block: exit 1, and the place is named; other types stay exact."""
    path = write(GGMLType.Q8_0, GGMLType.Q4_0)
    code = verified(path, *BLOCKS, "--types", "Q8_0,Q4_0")
    text = capsys.readouterr().out
    verified(path, "--types", "q8_0", "--json")
    document = json.loads(capsys.readouterr().out)
    (sample,) = random_samples(GGMLType.Q8_0, 32, seed=0)
    finite = np.isfinite(dequant.dequantize(GGMLType.Q8_0, sample.raw).reshape(32, 32)[:, 31])

    assert code == 1
    assert f"Q8_0: {finite.sum()} weights differ from ggml's, the first in q8_0.0, block 0, weight 31: " in text
    assert text.count("DIFFERS") == 3
    assert text.count("bit-exact") == 3
    assert document["ok"] is False
    assert document["rows"][-1]["gguf"]["n_different"] == finite.sum()


@pytest.mark.usefixtures("wrong_q8_0")
def test_infinite_difference_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    """A difference that is no number is null in JSON, which has no Infinity, and words in the table."""
    verified("--types", "Q8_0", "--json")
    document = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    verified("--types", "Q8_0")

    assert document["rows"][1]["ggml"]["max_abs"] is None
    assert "NaN or Inf" in capsys.readouterr().out


def test_unsupported_types_are_listed(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """A type without a kernel has a row that says so; it fails nothing while other tensors could be checked."""
    code = verified(write(GGMLType.Q8_0, GGMLType.I32), *BLOCKS)
    last = capsys.readouterr().out.splitlines()[-1]

    assert code == 0
    assert last.split()[:3] == ["I32", "1", "tensor"]
    assert last.endswith("no conversion")


@pytest.mark.parametrize("arguments", [(), ("--types", "I32")])
def test_only_unsupported_types(write: Write, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    """A model with nothing that can be checked: exit 4, its types still listed."""
    code = verified(write(GGMLType.I32), *BLOCKS, *arguments)

    assert code == 4
    assert "I32 1 tensor" in " ".join(capsys.readouterr().out.split())


def test_unsupported_type_without_model(capsys: pytest.CaptureFixture[str]) -> None:
    """Asking for a type without a kernel alone: exit 4 and a row that says so."""
    assert verified("--types", "I32") == 4
    assert "no conversion" in capsys.readouterr().out


def test_missing_data(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """Tensors beyond the end of an unfinished file: exit 3, the rest compared all the same."""
    code = verified(write(GGMLType.Q8_0, GGMLType.Q8_0, GGMLType.F32, cut=3000), *BLOCKS)
    text = capsys.readouterr().out

    assert code == 3
    assert "Q8_0     2 tensors" in text
    assert "F32      1 tensor " in text
    assert "F32: " in text
    assert "header-only file or unfinished download" in text


def test_missing_data_and_a_difference(
    write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A difference outranks missing data."""
    monkeypatch.setitem(checks.REFERENCES, "gguf", lambda t, raw: np.zeros_like(dequant.dequantize(t, raw)))

    assert verified(write(GGMLType.F32, GGMLType.Q8_0, cut=500), *BLOCKS) == 1
    assert "differ from gguf's" in capsys.readouterr().out


def test_large_model_is_sampled(
    write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """More data than the budget: a sample that is the same every time, unless --all."""
    monkeypatch.setattr(verify, "SAMPLE_BYTES", 1000)
    monkeypatch.setattr("refengine.checks.samples.PIECE_BYTES", 100)
    path = write(GGMLType.Q8_0, GGMLType.F32)

    def blocks(*arguments: str) -> list[tuple[str, int]]:
        assert verified(path, "--json", *BLOCKS, *arguments) == 0
        rows = json.loads(capsys.readouterr().out)["rows"]
        return [(row["source"], row["n_blocks"]) for row in rows if "tensor" in row["source"]]

    sampled = blocks()

    assert [source for source, _ in sampled] == ["1 tensor, sampled"] * 2
    assert sum(n for _, n in sampled) < 1056 / 3
    assert sampled == blocks()
    assert blocks("--all") == [("1 tensor", 1024), ("1 tensor", 32)]


def test_unreadable_file(tmp_path: Path) -> None:
    """What is no GGUF raises the reader's error, which the command line turns into exit 3."""
    path = tmp_path / "x.gguf"
    path.write_bytes(b"not a GGUF at all")

    with pytest.raises(GGUFError):
        verified(path)


def test_big_endian_file(write: Write) -> None:
    """A file of the other byte order is refused, not misread."""
    with pytest.raises(UnsupportedError, match="the file is big-endian, this machine little-endian"):
        verified(write(GGMLType.F32, byte_order="big"), *BLOCKS)


def test_no_such_tensors(write: Write) -> None:
    """Asking for types that the model lacks says what it has."""
    with pytest.raises(UnsupportedError, match="no tensors to verify; it holds F32"):
        verified(write(GGMLType.F32), *BLOCKS, "--types", "Q4_K")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--blocks", "0"), "'0': expected a whole number of at least 1"),
        (("--blocks", "many"), "'many' is not a count (expected a whole number"),
        (("--seed", "-1"), "'-1' is not a count (expected a whole number"),
        (("--types", "Q4_X"), "no such type: Q4_X; ggml's types are F32, F16, Q4_0"),
    ],
)
def test_usage(arguments: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Values that make no sense are a usage error, exit 2, with what was expected."""
    with pytest.raises(SystemExit) as exit_info:
        verified(*arguments)

    assert exit_info.value.code == 2
    assert expected in capsys.readouterr().err


@pytest.mark.usefixtures("fresh_imports")
@pytest.mark.parametrize("package", ["llama_cpp", "gguf"])
def test_missing_package(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without llama_cpp or gguf the error names the extra that installs them."""
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(MissingExtraError, match=rf"{package}.*extra 'all'"):
        verified(*BLOCKS)


def test_conversion_that_ggml_lacks() -> None:
    """A type that ggml can't convert is an UnsupportedError, not a missing symbol."""
    with pytest.raises(UnsupportedError, match=r"can't convert I32 to F32"):
        ggml.to_float(GGMLType.I32)
