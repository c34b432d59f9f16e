"""Prompts with expected answers: the file, the comparison, and answers from our server."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bench.quality.suite import compared, read_tasks
from ggufphys.cli import main


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2 is not JSON"),
        ("3", "line 2 is '3', expected an object"),
        ('{"prompt": "a"}', "line 2: expected is None, expected text or a list of texts"),
        ('{"prompt": "a", "expected": []}', "line 2: expected is \\[\\], expected text"),
        ('{"expected": "a"}', "line 2: expected either prompt or messages"),
        ('{"prompt": "a", "expected": "b", "answer": "c"}', "line 2: unknown field 'answer', expected id, prompt"),
        ('{"prompt": 3, "expected": "b"}', "line 2: expected prompt to be text"),
        ('{"prompt": "a", "expected": "b", "max_tokens": 0}', "line 2: max_tokens is 0, expected a whole number above"),
        ('{"prompt": "a", "expected": "b", "max_tokens": "9"}', "line 2: max_tokens is '9'"),
        ('{"prompt": "a", "expected": "b", "stop": 3}', "line 2: stop is 3, expected text or a list"),
        ('{"messages": [], "expected": "b"}', "line 2: messages is \\[\\], expected objects"),
        ('{"messages": ["hi"], "expected": "b"}', "line 2: messages is \\['hi'\\], expected objects"),
    ],
)
def test_wrong_line_is_told(tmp_path: Path, line: str, said: str) -> None:
    """The message says which line, what was there and what was expected."""
    path = tmp_path / "suite.jsonl"
    path.write_text('{"prompt": "a", "expected": "b"}\n' + line + "\n")

    with pytest.raises(ValueError, match=said):
        read_tasks(path)


def test_answers_are_right_but_for_blanks(tmp_path: Path) -> None:
    """Any of the expected texts will do, with blanks around it or without; nothing else will."""
    path = tmp_path / "suite.jsonl"
    path.write_text('{"id": "x", "prompt": "2 + 2 =", "expected": ["4", "four"]}\n\n')
    (task,) = read_tasks(path)

    assert [task.is_right(answer) for answer in (" 4\n", "four", "4.", "Four")] == [True, True, False, False]


def test_texts_may_have_any_character(tmp_path: Path) -> None:
    """Line separators of other scripts stand inside of a task, a byte order mark in front; other encodings are told."""
    path = tmp_path / "suite.jsonl"
    path.write_text('{"prompt": "a\u2028b\x85c", "expected": "d\u2029"}\r\n', encoding="utf-8-sig")
    (task,) = read_tasks(path)

    assert task.asked["prompt"] == "a\u2028b\x85c"
    path.write_bytes(b'{"prompt": "\xe4", "expected": "b"}')
    with pytest.raises(ValueError, match="not UTF-8 .* at byte 12"):
        read_tasks(path)


class Strict(BaseHTTPRequestHandler):
    """A server that wants a key and a model's name; a chat's answer is null, a prompt's `b`."""

    def do_GET(self) -> None:
        """The models."""
        self._send({"data": [{"id": "its name"}]})

    def do_POST(self) -> None:
        """An answer, or what is wrong."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        is_right = body.get("model") == "its name" and self.headers["Authorization"] == "Bearer key"
        choice = {"message": {"content": None}} if "messages" in body else {"text": "b"}
        self._send({"choices": [choice if is_right else None]})

    def _send(self, document: object) -> None:
        data = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def test_any_server_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first model is named, its key sent, no content is an empty answer; a document of another form is told."""
    path = tmp_path / "suite.jsonl"
    path.write_text(
        '{"prompt": "a", "expected": "b"}\n{"messages": [{"role": "user", "content": "a"}], "expected": ""}\n'
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), Strict) as server:
        threading.Thread(target=server.serve_forever).start()
        address = f"http://127.0.0.1:{server.server_port}/v1/"
        monkeypatch.setenv("OPENAI_API_KEY", "key")
        assert main(["bench", "quality", address, "--suite", str(path), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["suite"][0]["exact"] == 1.0
        monkeypatch.delenv("OPENAI_API_KEY")
        assert main(["bench", "quality", address, "--suite", str(path)]) == 1
        assert "gave no answer to prompt" in capsys.readouterr().err
        server.shutdown()


def test_no_verdict_where_the_interval_spans_zero() -> None:
    """Two of twenty prompts more or less decide nothing; fifteen do."""
    right, wrong = [True] * 20, [False] * 20

    assert compared(right, [*right[:18], False, False])["verdict"] is None
    assert compared(right, [*right[:5], *wrong[:15]])["verdict"] == "worse"
    assert compared(wrong, [*wrong[:5], *right[:15]])["verdict"] == "better"
    assert compared([True], [False])["verdict"] is None  # one prompt has no interval


def test_a_server_judges_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    """Logits do not come over HTTP: the message says what a server can be asked."""
    assert main(["bench", "quality", "http://127.0.0.1:1"]) == 2
    assert "it may answer a --suite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("F16", "--chunks", "2"), "--chunks: not with --suite"),
        (("F16", "--max-ratio", "1"), "--max-ratio: not with --suite"),
        (("http://127.0.0.1:1", "--quantize", "Q8_0"), "is a server: other types and engines are made of a file"),
        (("http://127.0.0.1:1", "--base-engine", "refengine"), "is a server"),
    ],
)
def test_what_a_suite_cannot_have_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    """An option that would be overlooked is refused by name."""
    path = tmp_path / "suite.jsonl"
    path.write_text('{"prompt": "a", "expected": "b"}\n')
    assert main(["bench", "quality", *arguments, "--suite", str(path)]) == 2
    assert said in capsys.readouterr().err


def test_server_that_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1 and the address."""
    path = tmp_path / "suite.jsonl"
    path.write_text('{"prompt": "a", "expected": "b"}\n')

    assert main(["bench", "quality", "http://127.0.0.1:1", "--suite", str(path)]) == 1
    assert "http://127.0.0.1:1/v1 gave no answer to prompt 1" in capsys.readouterr().err


@pytest.mark.slow
def test_files_answer_through_our_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each file answers all prompts, in numpy too; answers of one file are the same, so none is shown to differ."""
    path = tmp_path / "suite.jsonl"
    lines = [
        {"prompt": "if __name__ == '__main", "expected": "__':", "max_tokens": 2, "stop": ["\n"]},
        {"messages": [{"role": "user", "content": "import sys\nimport o"}], "expected": "s", "max_tokens": 1},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    flags = ("--base-engine", "refengine", "--cache-types", "f32", "--json")
    assert main(["bench", "quality", "F16", "--suite", str(path), *flags]) == 0
    first, second, third = json.loads(capsys.readouterr().out)["suite"]
    assert [result["engine"] for result in (first, second, third)] == ["refengine", "llama.cpp", "llama.cpp"]
    assert first["answers"] == second["answers"] == third["answers"]
    assert len(first["answers"]) == 2
    assert first["against_base"] is None
    assert second["against_base"] == {"difference": 0.0, "difference_ci95": [0.0, 0.0], "verdict": None}
