"""What is written down: notes, and a line for each request, as text or as JSON."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from server.app import create_app
from server.config import ServerConfig
from server.engine.events import Piece, Started, Timings
from server.journal import open_journal, warn
from tests.server.fake_engine import ANSWER, FakeEngine, finished

BODY = {"prompt": "abc"}


def test_json_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A request's line has its id, client, status, times and tokens; notes are lines too; the key is in neither."""
    file = tmp_path / "log"
    close = open_journal(file=file, as_json=True, access=True)
    try:
        client = create_app(ServerConfig(api_keys=("secret",)), FakeEngine()).test_client()
        headers = {"X-Api-Key": "secret", "X-Request-Id": "mine-1"}
        response = client.post("/v1/completions", json=BODY, headers=headers, buffered=True)
        client.get("/v1/models", buffered=True)
        warn("a note")
    finally:
        close()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    on_stderr = [json.loads(line) for line in capsys.readouterr().err.splitlines()]

    assert response.headers["X-Request-Id"] == "mine-1"
    assert lines == on_stderr
    done, refused, note = lines
    assert (done["request_id"], done["path"], done["status"], done["method"]) == (
        "mine-1",
        "/v1/completions",
        200,
        "POST",
    )
    assert (done["n_prompt"], done["n_generated"], done["queue_ms"]) == (3, 2, 500.0)
    assert done["ms"] >= 0
    assert refused["status"] == 401
    assert len(refused["request_id"]) == 32
    assert (note["level"], note["message"]) == ("warning", "a note")
    assert "secret" not in file.read_text()


def test_texts_to_embed(tmp_path: Path) -> None:
    """Their tokens and their time stand in the line as a prompt's do."""
    file = tmp_path / "log"
    close = open_journal(file=file, as_json=True, access=True)
    try:
        client = create_app(ServerConfig(), FakeEngine()).test_client()
        client.post("/v1/embeddings", json={"input": [[1, 2, 3], [4]]}, buffered=True)
    finally:
        close()
    (line,) = map(json.loads, file.read_text().splitlines())

    assert (line["path"], line["n_prompt"], line["n_generated"]) == ("/v1/embeddings", 4, 0)
    assert line["prompt_ms"] >= 0


def test_why_a_prompt_was_evaluated_again(tmp_path: Path) -> None:
    """A request's line says why, each reason once, and how many guesses were right; where there is none, nothing."""
    times = Timings(queue_s=0, prompt_s=1, decode_s=1, reevaluated="window", n_drafted=7, n_draft_accepted=5)
    fake = FakeEngine([Started(), Piece(text="a"), replace(finished(), timings=times)])
    file = tmp_path / "log"
    close = open_journal(file=file, as_json=False, access=False)
    try:
        client = create_app(ServerConfig(poll_s=0.01), fake).test_client()
        client.post("/v1/completions", json={"prompt": ["a", "b"]}, buffered=True)
        fake.events = ANSWER
        client.post("/v1/completions", json={"prompt": "a"}, buffered=True)
    finally:
        close()
    evaluated_again, plain = file.read_text().splitlines()

    assert evaluated_again.endswith("reevaluated=window n_drafted=14 n_draft_accepted=10")
    assert "reevaluated" not in plain
    assert "n_drafted" not in plain


def test_text_and_rotation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without JSON a line is words; a log that was renamed goes on in a new file; stderr has notes alone."""
    file = tmp_path / "log"
    close = open_journal(file=file, as_json=False, access=False)
    try:
        client = create_app(ServerConfig(), FakeEngine()).test_client()
        client.get("/v1/models", buffered=True)
        file.rename(tmp_path / "log.1")
        warn("a note")
    finally:
        close()

    assert "path=/v1/models status=200" in (tmp_path / "log.1").read_text()
    assert file.read_text().endswith("WARNING a note\n")
    assert capsys.readouterr().err == "a note\n"


def test_ids_cannot_forge_lines() -> None:
    """An id with anything but plain characters is replaced."""
    client = create_app(ServerConfig(), FakeEngine()).test_client()
    for given in ("a b", "x" * 200, "{"):
        assert client.get("/health", headers={"X-Request-Id": given}).headers["X-Request-Id"] != given


def test_paths_cannot_forge_lines(tmp_path: Path) -> None:
    """Nor can a path that spells a line's end, a space or a terminal's escape: the request's line stays one line."""
    file = tmp_path / "log"
    close = open_journal(file=file, as_json=False, access=False)
    try:
        client = create_app(ServerConfig(), FakeEngine()).test_client()
        client.get("/v1/x%0Arequest_id=forged%20status=200%1b[31m%00", buffered=True)
    finally:
        close()
    (line,) = file.read_text().splitlines()

    assert line.isprintable()
    assert line.count("status=") == 1
    assert " status=404 " in line
    assert " status=200" not in line


def test_metrics_have_bytes_and_speeds() -> None:
    """Resident bytes by process and kind are there, and llama-server's speeds once something was generated."""
    client = create_app(ServerConfig(), FakeEngine()).test_client()
    before = client.get("/metrics").get_data(as_text=True)
    client.post("/v1/completions", json=BODY)
    after = client.get("/metrics").get_data(as_text=True)

    assert 'ggufphys:resident_bytes{kind="anon",role="server"}' in before
    assert "llamacpp:predicted_tokens_seconds" not in before
    assert "llamacpp:predicted_tokens_seconds 4.0" in after  # one token in a quarter of a second
    assert "llamacpp:prompt_tokens_seconds 1.0" in after


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_full_disk_costs_lines_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    """A log that cannot be written is told of once, without a traceback, and requests are answered."""
    close = open_journal(file=Path("/dev/full"), as_json=False, access=False)
    try:
        client = create_app(ServerConfig(), FakeEngine()).test_client()
        statuses = [client.post("/v1/completions", json=BODY, buffered=True).status_code for _ in range(3)]
    finally:
        close()
    said = capsys.readouterr().err

    assert statuses == [200] * 3
    assert said.count("lines of the log are lost") == 1
    assert "Traceback" not in said


def test_a_folder_that_is_gone_costs_lines_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A log whose folder was removed under way is told of, and requests are answered."""
    folder = tmp_path / "logs"
    folder.mkdir()
    close = open_journal(file=folder / "log", as_json=False, access=False)
    try:
        (folder / "log").unlink()
        folder.rmdir()
        client = create_app(ServerConfig(), FakeEngine()).test_client()
        status = client.post("/v1/completions", json=BODY, buffered=True).status_code
    finally:
        close()

    assert status == 200
    assert "lines of the log are lost" in capsys.readouterr().err
