"""All that a report is made of is recorded by one command, as a whole or not at all."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.hypotheses.experiment import SHIPPED, read_experiments
from bench.hypotheses.quantities import QUANTITIES
from bench.report.command import SECTIONS
from bench.results import everything
from bench.results.records import Record, read_records
from ggufphys.cli import main
from ggufphys.embedded import MODEL
from tests.bench.report.samples import measured

Ran = list[tuple[str, ...]]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Ran:
    """The commands that were run, and the servers that were started for them, none of it in earnest."""
    found: Ran = []

    def run_recorded(words: tuple[str, ...]) -> Record:
        found.append(words)
        if "fails" in words:
            raise ValueError("exit code 3 and no JSON: no")
        return replace(measured(), command=" ".join(words))

    def running(name: str, command: tuple[str, ...], url: str) -> AbstractContextManager[Any]:
        found.append(command)
        return nullcontext()

    monkeypatch.setattr(everything, "run_recorded", run_recorded)
    monkeypatch.setattr(everything, "running", running)
    return found


def test_everything_is_recorded(ran: Ran, tmp_path: Path) -> None:
    """In place of what was there; the calibration first, since the speeds that follow are predicted from it."""
    path, server = tmp_path / "results.jsonl", tmp_path / "llama-server"
    path.write_text("what was there\n")
    server.touch(mode=0o755)

    assert everything.main([str(MODEL), "--llama-server", str(server), "-o", str(path)]) == 0
    commands = [record.command for record in read_records([path])]
    assert commands[0] == "bench calibrate"
    assert len(commands) == len(ran) - 2
    servers = [words for words in ran if "--port" in words]
    assert [str(server) in words for words in servers] == [False, True]
    for words in (words for words in ran if words[0] == "bench"):
        with pytest.raises(SystemExit) as raised:  # each is one that the command line knows
            main([*words, "--help"])
        assert raised.value.code == 0


def test_every_section_and_every_claim_is_there(ran: Ran, tmp_path: Path) -> None:
    """No section of the report is without its commands, and no shipped claim is left out."""
    assert everything.main([str(MODEL), "-o", str(tmp_path / "results.jsonl")]) == 0
    kinds = {" ".join(words[: 2 if words[0] == "bench" else 1]) for words in ran}
    assert len(SECTIONS) == 8
    assert kinds >= {
        "measure", "inspect", "bench speed", "bench calibrate", "bench load", "bench quality", "bench hypotheses",
    }  # fmt: skip
    only = tuple(f"{everything.ON_MODEL},{everything.ON_EMBEDDED}".split(","))
    claims = read_experiments(SHIPPED)
    assert [c.id for c in claims if QUANTITIES[c.quantity].measured and not c.id.startswith(only)] == []


def test_what_is_not_whole_replaces_nothing(ran: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A command without a record leaves the file as it was; the others are kept beside it, and it is told."""
    path = tmp_path / "results.jsonl"
    path.write_text("what was there\n")
    step = everything.Step(("inspect", "it"))

    assert everything.record([step, everything.Step(("fails",)), step], path) == 1
    assert path.read_text() == "what was there\n"
    assert len(read_records([tmp_path / "results.partial.jsonl"])) == 2
    said = capsys.readouterr().err
    assert "2 of 3 commands left a record" in said
    assert "no JSON: no" in said


def test_kinds_are_recorded_anew_beside_others(ran: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With `--only` the other kinds stay as they were recorded, and what is no kind is told."""
    path = tmp_path / "results.jsonl"
    runs = [replace(measured(), kind=kind, command=f"an earlier {kind}") for kind in ("measure", "quality", "load")]
    path.write_text("".join(f"{run.to_json()}\n" for run in runs))

    assert everything.main([str(MODEL), "-o", str(path), "--only", "measure,calibrate"]) == 0
    commands = [record.command for record in read_records([path])]
    assert [c for c in commands if c.startswith("an earlier")] == ["an earlier quality", "an earlier load"]
    assert [words[:2] for words in ran] == [("bench", "calibrate"), ("measure", str(MODEL))]
    with pytest.raises(SystemExit):
        everything.main([str(MODEL), "--only", "speeds"])
    assert "--only speeds: expected measure, " in capsys.readouterr().err


def test_commands_can_be_read_beforehand(capsys: pytest.CaptureFixture[str]) -> None:
    """`--list` prints them as they are typed."""
    assert everything.main([str(MODEL), "--list"]) == 0
    assert f"ggufphys measure {MODEL} -c 4096 --as library\n" in capsys.readouterr().out
