"""Writing what the package knows of recorded builds, from the records."""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from ggufphys.builds import rules_of
from ggufphys.builds.proven import require_known
from ggufphys.memory import judged
from scripts import list_builds
from tests import archs, builds

BUILDS = [11548, 11739]
MODELS = ("bert", "jina-bert-v2")


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A module of two builds and few models to write."""
    path = tmp_path / "records.py"
    path.write_text(list_builds.TARGET.read_text())
    records, rows = archs.records(), builds.rows

    def few(of: Mapping[str, object], names: Iterable[str] = MODELS) -> dict[str, object]:
        return {name: of[name] for name in names}

    monkeypatch.setattr(list_builds, "TARGET", path)
    monkeypatch.setattr(archs, "records", lambda: few(records))
    monkeypatch.setattr(builds, "rows", lambda build: few(rows(build)))
    monkeypatch.setattr(builds, "recorded", lambda: BUILDS)
    monkeypatch.setattr(sys, "argv", ["list_builds", "-v"])
    return path


def test_two_builds_are_listed(target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of two records the module says commits and what moved, the command how many rows are exact."""
    assert list_builds.main() == 0

    module: dict[str, object] = {}
    exec(target.read_text(), module)
    assert module["RECORDED"] == {11548: "781dbc5ac", 11739: "0ce8cd114"}
    assert module["MOVED"] == {11739: frozenset(MODELS)}
    assert module["UNEXPLAINED"] == {}
    assert "b11739: 44 of 44 rows exact; not of none" in capsys.readouterr().out
    assert type(rules_of(BUILDS[0])) is frozenset
    assert judged.__dict__["require_known"] is require_known


def test_a_row_that_is_not_as_predicted_is_told(
    target: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A record that says something else than is predicted makes its architecture unexplained, row by row."""
    rows = builds.rows

    def another(build: int) -> builds.Rows:
        found = dict(rows(build))
        if build == BUILDS[1]:
            found["bert"] = ((1, 2, 3), *found["bert"][1:])
        return found

    monkeypatch.setattr(builds, "rows", another)

    assert list_builds.main() == 0

    module: dict[str, object] = {}
    exec(target.read_text(), module)
    assert module["UNEXPLAINED"] == {11739: frozenset({"bert"})}
    assert "    bert: row 0: llama.cpp (1, 2, 3), ours (" in capsys.readouterr().out
