"""What is kept of predictions and their outcomes."""

import json
from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize("name", ["RATES", "RULES"])
def test_older_rules_are_not_counted(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was predicted from another schema of rates, or by other rules, is in no count of errors."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with monkeypatch.context() as past:
        past.setattr(history, "PREDICTED_BY", "2.1" if name == "RATES" else "3.0")
        history.add([("decode", 1.0, 2.0)], model="a", build=1)
        assert history.errors() is not None
    assert history.errors() is None
    history.add([("decode", 1.0, 1.0)], model="a", build=1)

    errors = history.errors()
    assert errors is not None
    assert (errors.n, errors.worst) == (1, 0.0)


def test_a_newer_file_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a newer ggufphys keeps is neither counted nor overwritten; what makes no sense is."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    history.add([("decode", 1.0, 2.0)], model="a", build=1)
    (path,) = tmp_path.rglob(history.NAME)
    newer = f'{{"schema_version": {history.SCHEMA_VERSION + 1}, "runs": [1]}}'
    path.write_text(newer)
    history.add([("decode", 1.0, 2.0)], model="b", build=1)
    assert path.read_text() == newer
    path.write_text("{")
    history.add([("decode", 1.0, 2.0)], model="c", build=1)
    assert [entry.model for entry in history.entries()] == ["c"]


@pytest.mark.parametrize("field", ["predicted", "measured", "at", "build", "model", "quantity"])
def test_a_damaged_file(field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries that cannot be reckoned with are left out, and go when the next is added."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    history.add([("decode", 1.0, 2.0)], model="m", build=1)
    path = tmp_path / "ggufphys" / "speed" / history.NAME
    document = json.loads(path.read_text())
    values: list[Any] = [None, [], {}, 1e308, -1]
    for value in values:
        damaged = {**document["entries"][0], field: value}
        path.write_text(json.dumps({**document, "entries": [damaged, document["entries"][0]]}))
        assert (history.errors(), len(history.entries())) == (history.Errors(n=1, median=0.5, worst=0.5), 1)
