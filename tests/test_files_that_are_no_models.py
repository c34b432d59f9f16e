"""A file that is no model: the same exit code of every command that takes one, and a message that names it once."""

from pathlib import Path
from typing import Final

import pytest

from ggufphys.cli import main
from ggufphys.embedded import MODEL
from tests.ggufphys.models import llama_metadata, llama_tensors, tiny_llama, write_model

pytest.importorskip("llama_cpp")

# Command lines, FILE for the file, GOOD for a model that can be read.
LINES: Final = (
    "inspect FILE", "inspect FILE --json", "inspect FILE --explain", "inspect FILE --sweep ctx=1k,2k",
    "inspect GOOD --diff FILE", "inspect GOOD --lora FILE", "inspect GOOD --mmproj FILE", "inspect GOOD -md FILE",
    "fit FILE --ram 8GiB", "tensors FILE", "metadata FILE", "doctor FILE", "verify FILE", "verify FILE --logits",
    "verify FILE --logits --trace", "verify GOOD --logits --trace --against FILE", "measure FILE",
    "measure FILE --engine numpy", "serve FILE", "serve FILE --engine numpy", "bench speed FILE --calibrate",
    "bench quality FILE", "bench quality F16 FILE", "bench hypotheses --model FILE",
)  # fmt: skip
CONTENTS: Final = {
    "none": None,
    "empty": b"",
    "a text": b"a text, and longer than any magic number at a file's beginning",
    "cut off": MODEL.read_bytes()[:5000],
}
DEEP: Final = "[" * 100_000
RUN_IT: Final = (
    "measure",
    "serve",
    "bench speed",
    "verify FILE --logits",
    "--against",
)  # which a header is not enough for


def words(line: str, file: Path, good: Path) -> list[str]:
    """The command line with its files."""
    return [{"FILE": str(file), "GOOD": str(good)}.get(word, word) for word in line.split()]


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("line", LINES)
def test_not_readable(
    line: str,
    content: bytes | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Missing, empty, another format, ended within its header: exit code 3."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path, good = tmp_path / "file.gguf", tiny_llama(tmp_path / "good.gguf")
    if content is not None:
        path.write_bytes(content)
    assert main(words(line, path, good)) == 3
    out, err = capsys.readouterr()
    assert err.count("file.gguf") == 1
    assert "good.gguf" not in out + err


@pytest.mark.parametrize("line", [line for line in LINES if any(word in line for word in RUN_IT)])
def test_unknown_architecture_and_missing_weights(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs a model refuses one whose weights are not there with 3, an architecture that nobody knows with 4."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    unknown = write_model(tmp_path / "new.gguf", llama_metadata("llama9"), llama_tensors())
    header = tmp_path / "header.gguf"
    header.write_bytes(MODEL.read_bytes()[:6_000_000])
    for path, code, message in ((unknown, 4, "'llama9'"), (header, 3, "tensor data is missing")):
        assert main(words(line, path, MODEL)) == code
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["imatrix", "adapter"])
@pytest.mark.parametrize(
    "line",
    ["fit FILE --ram 8GiB", "verify FILE --logits", "verify FILE --logits --trace", "measure FILE",
     "measure FILE --engine numpy", "serve FILE", "serve FILE --engine numpy", "bench speed FILE --calibrate",
     "bench quality FILE", "bench hypotheses --model FILE"],
)  # fmt: skip
def test_no_model_by_itself(kind: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be run is refused by its name before anything is, whether or not it says an architecture."""
    metadata = {"general.type": kind} | ({"general.architecture": "llama"} if kind == "adapter" else {})
    path = write_model(tmp_path / "file.gguf", {**metadata}, llama_tensors()[:1])
    assert main(words(line, path, path)) == 4
    err = capsys.readouterr().err
    assert err.count("file.gguf") == 1
    assert f"of kind {kind!r}" in err


@pytest.mark.parametrize(
    ("line", "content"),
    [
        ("bench compare FILE FILE", DEEP), ("bench report FILE -o PAGE", DEEP),
        ("bench quality F16 --suite FILE", DEEP), ("bench hypotheses FILE", f"x = {DEEP}"),
        ("bench load http://127.0.0.1:9 --extra @", DEEP),
    ],
)  # fmt: skip
def test_nested_without_end(line: str, content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is read as JSON or TOML and is nested more deeply than Python reads is a mistake of usage, and named."""
    path = tmp_path / "file"
    path.write_text(content)
    names = {"FILE": str(path), "PAGE": str(tmp_path / "page.html"), "@": content}
    try:
        code: str | int | None = main([names.get(word, word) for word in line.split()])
    except SystemExit as exit_:  # the parser's
        code = exit_.code
    assert code == 2
    err = capsys.readouterr().err
    assert "nested too deeply" in err
    assert len(err) < 1000
    assert list(tmp_path.iterdir()) == [path]


def test_a_calibration_nested_without_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer stands all the same, and says why it has no speed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "ggufphys" / "speed"
    folder.mkdir(parents=True)
    (folder / "calibration.json").write_text(DEEP)
    assert main(["inspect", str(MODEL)]) == 0
    assert "nested too deeply" in capsys.readouterr().out
