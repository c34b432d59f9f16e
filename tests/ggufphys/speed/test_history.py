"""What is kept of predictions and their outcomes."""

from pathlib import Path

import pytest

from ggufphys.speed import history


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing more can be written, what was kept stays as it was, and no half file beside it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    history.add([("decode", 1.0, 2.0)], model="a", build=1)
    write = Path.write_text

    def full(self: Path, text: str, **options: str) -> int:
        write(self, text[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    history.add([("decode", 1.0, 2.0)], model="b", build=1)

    assert [entry.model for entry in history.entries()] == ["a"]
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [history.NAME]
