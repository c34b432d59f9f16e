"""`ggufphys serve` as a user has it: a process, its output, its exit codes, its signals."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from ggufphys.cli import main
from ggufphys.embedded import MODEL
from server.engine.llama.tiny_model import write_tiny_model
from server.flags.serve import ENGINES
from tests import archs
from tests.server.chain_model import write_chain_model
from tests.server.encoder_model import write_encoder
from tests.server.start.serving import ROOT, TIMEOUT_S, serving


@pytest.mark.skipif(sys.platform != "linux", reason="what is resident is told by Linux, and given back by glibc")
def test_memory_behind_many_vectors(tmp_path: Path) -> None:
    """What long texts' vectors took in the worker, a row for each token, is not kept when they have been sent."""
    path = write_encoder(tmp_path / "bert.gguf", "bert", pooling=0)
    with serving(str(path)) as server:
        server.wait_until_ready()
        body = json.dumps({"content": "x" * 2000}).encode()
        asked = urllib.request.Request(f"{server.url}/embedding", body, {"Content-Type": "application/json"})
        for _ in range(3):
            with urllib.request.urlopen(asked, timeout=TIMEOUT_S) as answer:
                answer.read()

        def unexplained() -> float:
            with urllib.request.urlopen(f"{server.url}/v1/memory", timeout=TIMEOUT_S) as answer:
                return float(json.load(answer)["unexplained"]["share"])

        deadline = time.monotonic() + 10
        while (share := unexplained()) > 0.04 and time.monotonic() < deadline:
            time.sleep(0.2)
    assert abs(share) < 0.04


def test_an_encoder(tmp_path: Path) -> None:
    """It is served without a flag: the line says for what, and behind a long text its memory is explained."""
    path = write_encoder(tmp_path / "bert.gguf", "bert", pooling=1)
    with serving(str(path)) as server:
        server.wait_until_ready()
        body = json.dumps({"input": ["hi", "x" * 2000]}).encode()
        asked = urllib.request.Request(f"{server.url}/v1/embeddings", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=TIMEOUT_S) as answer:
            found = json.load(answer)
        with urllib.request.urlopen(f"{server.url}/v1/memory", timeout=TIMEOUT_S) as answer:
            memory = json.load(answer)
        refused = server.status(server.post(prompt="hi"))

    assert "bert generates no text: embeddings (pooling mean) of texts of up to 2,048 tokens" in server.lines[1]
    assert [len(each["embedding"]) for each in found["data"]] == [256, 256]
    assert refused == 501
    assert abs(memory["unexplained"]["share"]) < 0.04
    ours, theirs = memory["predicted"], memory["llama_cpp"]
    for name in ("compute_bytes", "output_bytes"):
        assert ours[name] == pytest.approx(theirs[name], abs=theirs["rounding_bytes"])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["none.gguf"], 3, "none.gguf"),
        (["text.gguf"], 3, "text.gguf"),
        ([""], 2, "name is empty"),
        (["-m", ""], 2, "name is empty"),
        (["tiny.gguf"], 4, "no tokenizer"),
        (["-m", "a=tiny.gguf", "-c", "300"], 4, "no tokenizer"),
        (["t5.gguf"], 4, "an encoder with a decoder behind it (t5)"),
        (["bert.gguf", "--rerank"], 4, "the file has no classifier"),
        (["bert.gguf", "--spec-type", "ngram-simple"], 2, "no token is generated"),
        (["bert.gguf", "--engine", "numpy", "-np", "2"], 2, "it runs one sequence"),
        (["chain.gguf", "--engine", "numpy", "--embeddings"], 2, "the numpy engine runs encoders so alone"),
        (["chain.gguf", "--rerank"], 4, "the file has no classifier"),
        (["tiny.gguf", "-c", "300", "--n-outputs-max", "2", "-np", "4"], 2, "n_outputs_max is 2"),
        (["tiny.gguf", "-c", "300", "-t", "600"], 2, "at most 512"),
        (["tiny.gguf", "-c", "2000000000", "-ctk", "f32", "-ctv", "f32"], 1, "--ctx-size"),
        (["tiny.gguf", "--api-key-file", "empty.txt"], 2, "empty.txt"),
        (["tiny.gguf", "--api-key", ""], 2, "an API key was asked for"),
        (["tiny.gguf", "--ssl-key-file", "a", "--ssl-cert-file", "b"], 2, "--ssl-cert-file is not supported"),
        (["tiny.gguf", "--mmproj", "a"], 3, "a: "),
        (["tiny.gguf", "--mmproj", "tiny.gguf"], 2, "expected an mmproj file"),
        (["tiny.gguf", "--mmproj", "a", "--batch-invariant"], 2, "--mmproj: not with --batch-invariant"),
        (["-m", "a=tiny.gguf", "-m", "b=tiny.gguf", "--mmproj", "c=a"], 2, "--mmproj c=a: expected NAME=FILE"),
        (["tiny.gguf", "--mmproj-url", "a"], 2, "--mmproj-url is not supported: nothing is downloaded"),
        (["tiny.gguf", "--media-path", "a"], 2, "--media-path is not supported: no files are read"),
        (["tiny.gguf", "-m", "none.gguf"], 2, "several models"),
        (["tiny.gguf", "--hold", "f32"], 2, "--engine numpy"),
        (["-m", "a=tiny.gguf", "-m", "b=tiny.gguf", "--hold", "f32"], 2, "--engine numpy"),
        (["tiny.gguf", "-md", "none.gguf"], 3, "none.gguf"),
        (["tiny.gguf", "-md", "text.gguf"], 3, "text.gguf"),
        (["tiny.gguf", "-md", "head.gguf"], 4, "head.gguf (eagle3) goes on from what the model it was made for"),
        (["tiny.gguf", "-c", "300", "-md", "tiny.gguf", "-td", "600"], 2, "at most 512"),
        (["tiny.gguf", "--spec-type", "draft-simple"], 2, "name the draft model"),
        (["tiny.gguf", "--draft-max", "8"], 2, "it is --spec-draft-n-max now"),
        (["tiny.gguf", "-hfd", "someone/something"], 3, "`hf download someone/something`"),
        (["-hf", "someone/something", "-hff", "a.gguf"], 3, "`hf download someone/something a.gguf`"),
        (["tiny.gguf", "-hf", "someone/something"], 2, "several models"),
        (["-hff", "a.gguf"], 2, "of which repository?"),
        (["-m", "a=tiny.gguf", "-m", "b=tiny.gguf", "-hf", "c/d"], 2, "-m NAME=hf:OWNER/REPO"),
        (["-mu", "http://localhost:1/a.gguf"], 2, "nothing is downloaded here"),
        (["tiny.gguf", "--engine", "numpy", "-md", "tiny.gguf"], 2, "take --engine llama.cpp"),
        (["-m", "a=tiny.gguf", "-m", "b=tiny.gguf", "-md", "tiny.gguf"], 2, "expected NAME=FILE"),
        (["-m", "a=tiny.gguf", "-m", "b=tiny.gguf", "-md", "c=tiny.gguf"], 2, "NAME one of a, b"),
        (["-m", "a=tiny.gguf", "-m", "b=tiny.gguf", "--spec-type", "draft-simple"], 2, "--model-draft NAME=FILE"),
        (["-m", "a=tiny.gguf", "-m", "b=tiny.gguf", "--lora", "tiny.gguf"], 2, "NAME:ADAPTER=FILE"),
        (["-m", "a=tiny.gguf", "-m", "b=tiny.gguf", "--lora", "c:x=tiny.gguf"], 2, "NAME one of a, b"),
        (["tiny.gguf", "--temp", "-1"], 2, "--temp: temperature is -1.0, expected 0 to 100"),
        (["tiny.gguf", "--samplers", "top_k;foo"], 2, "--samplers: samplers has 'foo'"),
        (["tiny.gguf", "--grammar", "root ::= ("], 2, "--grammar: grammar: the grammar cannot be used"),
        (["tiny.gguf", "-j", '{"type": "foo"}'], 2, "--json-schema: "),
        (["tiny.gguf", "-n", "-2"], 2, "--predict: n_predict is -2"),
        (["tiny.gguf", "--embd-normalize", "-2"], 2, "--embd-normalize: "),
        (["tiny.gguf", "--chat-template", "{{ a"], 2, "--chat-template: the model's chat template is not valid"),
        (["-m", "a=tiny.gguf", "-m", "b=tiny.gguf", "--top-p", "7"], 2, "--top-p: top_p is 7.0"),
        (["-m", "a=tiny.gguf", "-m", "b=tiny.gguf", "-a", "x"], 2, "--alias: several models have the names"),
        (["tiny.gguf", "--api-key-file", "none.txt"], 2, "--api-key-file none.txt: No such file"),
        (["tiny.gguf", "--api-key-file", "tiny.gguf"], 2, "--api-key-file tiny.gguf: "),
        (["none.gguf", "--engine", "numpy"], 3, "none.gguf"),
        (["text.gguf", "--engine", "numpy"], 3, "text.gguf"),
        (["tiny.gguf", "--engine", "numpy"], 4, "no tokenizer"),
        (["tiny.gguf", "--engine", "numpy", "-np", "2"], 2, "it runs one sequence"),
        (["tiny.gguf", "--engine", "numpy", "--rpc", "localhost:1"], 2, "it computes on the host"),
    ],
)
def test_errors(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    """What cannot be served is a line on stderr and an exit code, never a traceback."""
    monkeypatch.chdir(tmp_path)
    Path("text.gguf").write_text("hello")
    Path("empty.txt").write_text("\n")
    write_tiny_model(Path("tiny.gguf"))
    archs.write(Path("t5.gguf"), "t5", archs.records()["t5"].tensors)
    write_encoder(Path("bert.gguf"), "nomic-bert")
    write_chain_model(Path("chain.gguf"))
    archs.write(Path("head.gguf"), "eagle3/borrowed", archs.records()["eagle3/borrowed"].tensors)

    assert main(["serve", *arguments, "--port", "0"]) == code
    written = capsys.readouterr()
    assert message in written.err.splitlines()[-1]
    assert "serves" not in written.out


def test_a_log_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A --log-file in no folder, or one that is a folder, is a mistake of usage, told by the flag's name."""
    for file in (tmp_path / "none" / "log", tmp_path):
        assert main(["serve", "--log-file", str(file), "--port", "0"]) == 2
        assert f"--log-file {file}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["--port", "70000"], ["--port", "x"], ["--max-queue", "0"], ["-c", "many"], ["--host", ""], ["--host", " , "]],
)
def test_usage(arguments: list[str]) -> None:
    """A flag's value that makes no sense is refused by the parser."""
    with pytest.raises(SystemExit) as exit_:
        main(["serve", "x.gguf", *arguments])

    assert exit_.value.code == 2


def test_port_in_use(chain_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A port that is taken is named, with what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])

        assert main(["serve", str(chain_path), "-c", "256", "--port", port]) == 2
    error = capsys.readouterr().err
    assert f"127.0.0.1:{port}" in error
    assert "--port" in error


def test_json(chain_path: Path) -> None:
    """With --json stdout is one document that says where it listens and what was predicted."""
    command = [sys.executable, "-m", "ggufphys", "serve", str(chain_path), "-c", "256", "--port", "0", "--json"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        document = json.loads(process.stdout.readline())
        process.terminate()
        rest, _ = process.communicate(timeout=TIMEOUT_S)

    assert document["url"].startswith("http://127.0.0.1:")
    assert document["pid"] == process.pid
    assert document["memory"]["total_bytes"] > 0
    assert rest == ""


def test_json_of_several(chain_path: Path) -> None:
    """With --json stdout is one document for several models, too."""
    models = ["-m", f"a={chain_path}", "-m", f"b={chain_path}", "-c", "256"]
    command = [sys.executable, "-m", "ggufphys", "serve", *models, "--port", "0", "--json"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        document = json.loads(process.stdout.readline())
        process.terminate()
        rest, _ = process.communicate(timeout=TIMEOUT_S)

    assert document["url"].startswith("http://127.0.0.1:")
    assert list(document["models"]) == ["a", "b"]
    assert document["models"]["a"]["process_bytes"] > 0
    assert rest == ""


@pytest.mark.parametrize("engine", ENGINES)
def test_embedded_model(engine: str) -> None:
    """Without a MODEL the embedded one is served, and goes on with a Python text; a signal ends it in order."""
    with serving("-c", "256", "--engine", engine) as server:
        server.wait_until_ready()
        request = server.post(prompt="def main(", max_tokens=8, temperature=0)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            choice = json.load(response)["choices"][0]
        server.process.terminate()
        code = server.process.wait(TIMEOUT_S)

    assert choice["text"]
    assert code == (0 if os.name == "posix" else 1)


def test_a_draft_model() -> None:
    """A model that is its own draft: all guesses are right, answers say how many, and llama.cpp's account of its memory
    and the draft's is what was predicted, to the rounding of its log.
    """
    draft = ("-md", str(MODEL), "-ctkd", "q8_0", "-ctvd", "q8_0", "--spec-always", "--spec-draft-n-max", "4")
    with serving(str(MODEL), "-c", "512", *draft) as server:
        server.wait_until_ready()
        answers = []
        for more in ({}, {"speculative.n_max": 0}):
            request = server.post(prompt="def main(", max_tokens=30, temperature=0, **more)
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                answers.append(json.load(response))
        with urllib.request.urlopen(f"{server.url}/v1/memory", timeout=TIMEOUT_S) as response:
            memory = json.load(response)

    timings = answers[0]["timings"]
    assert answers[0]["choices"][0]["text"] == answers[1]["choices"][0]["text"]
    assert 16 <= timings["draft_n_accepted"] <= timings["draft_n"] <= 30
    assert "draft_n" not in answers[1]["timings"]
    found = memory["llama_cpp"]
    for quantity in ("model", "context", "compute", "output", "attachment"):
        name = f"{quantity}_bytes"
        assert abs(memory["predicted"][name] - found[name]) <= found["rounding_bytes"], quantity


def test_unreachable_rpc_server(chain_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An RPC server that does not answer ends the start with its address, after its share was predicted."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    assert main(["serve", str(chain_path), "-c", "256", "--port", "0", "--rpc", f"{address}=1GiB"]) == 1
    said = capsys.readouterr()

    assert f"RPC0[{address}]: " in said.out
    assert f"RPC server {address} does not answer" in said.err
