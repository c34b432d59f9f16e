"""Files of text that a flag names: whatever they are instead, they are told by their name, and at once."""

from pathlib import Path
from typing import Final

import pytest

from ggufphys import units
from ggufphys.cli import main

NAMING: Final = {
    "hypotheses": ["bench", "hypotheses", "{}"],
    "compare": ["bench", "compare", "{}", "{}"],
    "report": ["bench", "report", "{}"],
    "text": ["bench", "quality", "F16", "--text", "{}"],
    "suite": ["bench", "quality", "F16", "--suite", "{}"],
    "keys": ["serve", "--port", "0", "--api-key-file", "{}"],
    "template": ["serve", "--port", "0", "--chat-template-file", "{}"],
    "grammar": ["serve", "--port", "0", "--grammar-file", "{}"],
    "schema": ["serve", "--port", "0", "--json-schema-file", "{}"],
}
ZERO: Final = Path("/dev/zero")


def said(name: str, path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What is said of a file."""
    try:
        code = main([word.format(path) for word in NAMING[name]])
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    assert code in (2, 3)
    assert out == ""
    return err


@pytest.mark.parametrize("name", NAMING)
def test_no_text(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of other bytes, and none at all: the error names it, once."""
    for kind in ("binary", "gone"):
        path = tmp_path / kind
        if kind == "binary":
            path.write_bytes(b"ab\xff\x00")
        assert said(name, path, capsys).count(str(path)) == 1


@pytest.mark.parametrize("name", NAMING)
@pytest.mark.skipif(not ZERO.exists(), reason="no endless file here")
def test_endless(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Memory is not filled with it."""
    monkeypatch.setattr(units, "MAX_TEXT_BYTES", 1 << 16)
    assert f"{ZERO}: 65,536 bytes and more, expected a text" in said(name, ZERO, capsys)
