"""`ggufphys serve` as a user has it: a process, its output, its exit codes, its signals."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

import refengine
from ggufphys import open_gguf
from ggufphys.cli import main
from ggufphys.embedded import MODEL
from ggufphys.machine.host import MainMemory
from ggufphys.memory.attachments import Draft
from ggufphys.memory.prediction import MemoryPrediction
from ggufphys.params import Params
from ggufphys.speed.kept import keep
from server.access.keys import Keys, key_id, read_keys
from server.engine.tiny_model import write_tiny_model
from server.flags.serve import ENGINES
from server.start import beforehand
from server.start.beforehand import HostMemory, fits, predicted_rates, prediction, too_large, unwise
from server.start.signals import Signals
from tests import archs
from tests.server.chain_model import write_chain_model
from tests.server.encoder_model import write_encoder

TIMEOUT_S = 30.0
ROOT = Path(__file__).resolve().parents[3]
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")


@dataclass
class Serving:
    """A running `ggufphys serve`."""

    process: subprocess.Popen[str]
    url: str
    lines: list[str]
    extra: list[str] = field(default_factory=list)  # what stands between the two

    def post(self, **body: object) -> urllib.request.Request:
        return urllib.request.Request(
            f"{self.url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )

    def status(self, target: str | urllib.request.Request) -> int:
        try:
            with urllib.request.urlopen(target, timeout=TIMEOUT_S) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while self.status(f"{self.url}/health") != 200:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@contextmanager
def serving(*arguments: str) -> Iterator[Serving]:
    """Start the server on a free port, and end it whatever happens."""
    command = [sys.executable, "-m", "ggufphys", "serve", *arguments, "--port", "0", "-t", "1"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline(), process.stdout.readline()]
            extra = []
            while lines[1].startswith("  "):
                extra.append(lines[1])
                lines[1] = process.stdout.readline()
            assert " serves " in lines[1], (lines, process.stderr.read() if process.stderr else "")
            yield Serving(process=process, url=lines[1].split()[0], lines=lines, extra=extra)
        finally:
            process.kill()


@POSIX
def test_drain(chain_path: Path) -> None:
    """After SIGTERM the stream under way comes to its end, new work and /health are refused, and the exit code is 0."""
    with serving(str(chain_path), "-c", "100000", "--alias", "mine") as server:
        server.wait_until_ready()
        request = server.post(prompt="0", max_tokens=2500, temperature=0, stream=True)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as stream:
            first = stream.readline()
            server.process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + TIMEOUT_S
            while server.status(f"{server.url}/health") != 503:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            refused = server.status(server.post(prompt="a"))
            rest = stream.read().decode()
        code = server.process.wait(TIMEOUT_S)
        assert server.process.stderr is not None
        errors = server.process.stderr.read()

    assert json.loads(first[6:])["model"] == "mine"
    assert refused == 503
    assert rest.endswith("data: [DONE]\n\n")
    assert rest.count("data: ") == 2500 + 2 - 1  # the pieces but the first, the last chunk, [DONE]
    assert code == 0, errors
    assert re.match(r"predicted: .* resident and the HTTP side's [\d.]+ MiB$", server.lines[0])


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


@POSIX
def test_drain_deadline(chain_path: Path) -> None:
    """Generations that do not end in time are cut off, and their clients told; the exit code is still 0."""
    whole = list[Any]()
    with serving(str(chain_path), "-c", "100000", "--drain-timeout", "1") as server:
        server.wait_until_ready()

        def ask() -> None:
            with urllib.request.urlopen(server.post(prompt="0", temperature=0), timeout=TIMEOUT_S) as answer:
                whole.append(json.load(answer))

        asking = threading.Thread(target=ask)
        asking.start()
        with urllib.request.urlopen(server.post(prompt="0", temperature=0, stream=True), timeout=TIMEOUT_S) as stream:
            stream.readline()
            server.process.send_signal(signal.SIGINT)
            rest = stream.read().decode()
            code = server.process.wait(TIMEOUT_S)
        asking.join()
        assert server.process.stderr is not None
        errors = server.process.stderr.read()

    assert code == 0
    assert "cut off" in errors
    assert whole[0]["choices"][0]["finish_reason"] == "cancelled"
    assert '"finish_reason":"cancelled"' in rest
    assert rest.endswith("data: [DONE]\n\n")
    assert "Traceback" not in errors


@POSIX
def test_second_signal(chain_path: Path) -> None:
    """The second signal ends the process at once, with the signal in its exit code."""
    with serving(str(chain_path), "-c", "100000") as server:
        server.wait_until_ready()
        with urllib.request.urlopen(server.post(prompt="0", temperature=0, stream=True), timeout=TIMEOUT_S) as stream:
            stream.readline()
            server.process.send_signal(signal.SIGTERM)
            assert server.process.stderr is not None
            said = [server.process.stderr.readline() for _ in range(2)]
            assert "trained on" in said[0]
            assert "finishing 1 request(s)" in said[1]
            server.process.send_signal(signal.SIGTERM)
            code = server.process.wait(TIMEOUT_S)

    assert code == 128 + signal.SIGTERM


@POSIX
def test_keys_are_read_again(chain_path: Path, tmp_path: Path) -> None:
    """SIGHUP: the file's keys of now open the server; a file without any leaves them as they are."""
    file = tmp_path / "keys"
    file.write_text("old\n")
    with serving(str(chain_path), "-c", "256", "--api-key-file", str(file)) as server:
        server.wait_until_ready()

        def status(key: str) -> int:
            return server.status(urllib.request.Request(f"{server.url}/v1/models", headers={"X-Api-Key": key}))

        def hang_up() -> str:
            server.process.send_signal(signal.SIGHUP)
            assert server.process.stderr is not None
            return server.process.stderr.readline()

        assert (status("old"), status("new")) == (200, 401)
        file.write_text("new\n")
        assert "1 API keys" in hang_up()
        assert (status("old"), status("new")) == (401, 200)
        file.write_text("\n")
        assert "stay as they are" in hang_up()
        assert (status("old"), status("new")) == (401, 200)


@POSIX
def test_signals() -> None:
    """The first signal is noted, the second quits with its number; the handlers of before come back."""
    before = signal.getsignal(signal.SIGTERM)
    quits: list[int] = []
    with Signals(quits.append) as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received.wait(TIMEOUT_S)
        assert quits == []
        os.kill(os.getpid(), signal.SIGINT)
        deadline = time.monotonic() + TIMEOUT_S
        while not quits:
            assert time.monotonic() < deadline

    assert quits == [130]
    assert signal.getsignal(signal.SIGTERM) is before


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
        (["tiny.gguf", "--mmproj", "a"], 2, "--mmproj is not supported"),
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


def test_fits(chain_path: Path) -> None:
    """What must stay in memory and exceeds the machine is refused; what exceeds the free memory is warned of."""
    predicted = prediction(chain_path, Params(n_ctx=256, n_outputs_max=1))
    assert isinstance(predicted, MemoryPrediction)
    needed = predicted.context_bytes + predicted.compute_bytes + predicted.output_bytes
    free = predicted.process_bytes

    assert fits(predicted, HostMemory(available_bytes=free, installed_bytes=needed)) == ("", "")
    refusal, tight = fits(predicted, HostMemory(available_bytes=free - 1, installed_bytes=needed))
    assert (refusal, "free" in tight) == ("", True)
    refusal, tight = fits(predicted, HostMemory(available_bytes=0, installed_bytes=needed - 1))
    assert ("--ctx-size" in refusal, tight) == (True, "")


def test_a_draft_must_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands beside the model counts: in what must stay in memory, in the footprint, and in what would fit."""
    params = Params(n_ctx=16384, n_seq_max=4, n_outputs_max=16, kv_unified=True)
    with open_gguf(MODEL) as gguf:
        draft = Draft(gguf=gguf)
        alone, beside = (prediction(MODEL, params, draft=each) for each in (None, draft))
        assert isinstance(alone, MemoryPrediction)
        assert isinstance(beside, MemoryPrediction)
        own = alone.context_bytes + alone.compute_bytes + alone.output_bytes
        drafts = beside.attachment_bytes - alone.model_bytes  # whose weights are mapped
        memory = HostMemory(available_bytes=1 << 40, installed_bytes=own + drafts)
        assert fits(beside, memory) == ("", "")
        refusal, _ = fits(beside, replace(memory, installed_bytes=own + drafts - 1))
        assert "what stands beside need" in refusal

        monkeypatch.setattr(
            beforehand, "main_memory", lambda: MainMemory(total_bytes=beside.process_bytes - 1, available_bytes=0)
        )
        assert too_large(MODEL, params, alone) == ""
        refusal = too_large(MODEL, params, beside, draft=draft)
        n_ctx = int(refusal.split("it fits with -c ")[1].split()[0])
        fitting = prediction(MODEL, replace(params, n_ctx=n_ctx), draft=draft)
        assert isinstance(fitting, MemoryPrediction)
        assert 0 < n_ctx < 16384
        assert fitting.process_bytes < beside.process_bytes


def test_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """A footprint beyond the machine is told with settings that fit, by prediction, or with what would help."""
    params = Params(n_ctx=16384, n_seq_max=4, n_outputs_max=4, kv_unified=True)
    predicted = prediction(MODEL, params)
    assert isinstance(predicted, MemoryPrediction)
    total = [predicted.process_bytes]
    monkeypatch.setattr(beforehand, "main_memory", lambda: MainMemory(total_bytes=total[0], available_bytes=0))

    assert too_large(MODEL, params, predicted) == ""
    total[0] -= 1
    refusal = too_large(MODEL, params, predicted)
    n_ctx = int(refusal.split("it fits with -c ")[1].split()[0])
    assert 0 < n_ctx < 16384
    total[0] = 10 << 20
    assert "it would fit with" in too_large(MODEL, params, predicted)


def test_weights_held_as_f32_must_fit() -> None:
    """Weights that are kept dequantised cannot be read again: where they do not fit, the refusal says what to do."""
    model = refengine.load(MODEL, n_ctx=64)
    predicted = refengine.predict_footprint(model, n_prompt=8)
    needed = predicted.context_bytes + predicted.compute_bytes
    held = sum(term.nbytes for term in predicted.terms if term.buffer == "F32")

    assert held > 0
    assert fits(predicted, HostMemory(available_bytes=1 << 40, installed_bytes=needed + held)) == ("", "")
    refusal, _ = fits(predicted, HostMemory(available_bytes=1 << 40, installed_bytes=needed + held - 1))
    assert "--hold quantised" in refusal


def test_unwise() -> None:
    """A server open to the network without a key is warned of."""
    assert list(unwise("127.0.0.1", ())) == []
    assert list(unwise("0.0.0.0", ("key",))) == []
    assert ["0.0.0.0" in line for line in unwise("0.0.0.0", ())] == [True]
    assert ["reaches 10.0.0.1 may" in line for line in unwise("127.0.0.1,10.0.0.1,/run/a.sock", ())] == [True]


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


def test_rates_of_another_schema_are_told(chain_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a calibration is kept that can't be used, the line that says where it listens says so, and the log why."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert predicted_rates(chain_path, Params()) == ""  # never calibrated: not worth a word
    keep('{"schema_version": 1}')
    with serving(str(chain_path), "-c", "256") as server:
        server.process.terminate()
        _, log = server.process.communicate(timeout=TIMEOUT_S)

    assert "; no speed is predicted, for the reason above; Ctrl-C ends it" in server.lines[1]
    assert log.count("no speed is predicted: a calibration of schema 1, expected") == 1


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


def test_keys(tmp_path: Path) -> None:
    """Keys come from the flag, several by commas, and from the lines of a file."""
    file = tmp_path / "keys"
    file.write_text("# ours\nc\n\n d \n")

    assert read_keys(["a,b,", "a"], file) == ("a", "b", "c", "d")
    assert read_keys([], None) == ()


@pytest.mark.parametrize("given", [[""], [" , "], ["a", ""]])
def test_empty_keys_are_refused(given: list[str]) -> None:
    """A key that was asked for and is empty, as an unset variable in a unit file makes it, never opens the server."""
    with pytest.raises(ValueError, match="LLAMA_API_KEY"):
        read_keys(given, None)


def test_matching_keys() -> None:
    """Each key opens, by an id that is not the key; nothing else does; keys can be replaced."""
    keys = Keys(("one", "zwei€"))

    assert keys.match("zwei€") == key_id("zwei€") != keys.match("one")
    assert "one" not in keys.match("one")
    assert [keys.match(wrong) for wrong in ("", "on", "onee", "ONE")] == [""] * 4
    keys.replace(("other",))
    assert not keys.match("one")


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


@POSIX
def test_overwritten_model_is_told(chain_path: Path, tmp_path: Path) -> None:
    """A model file that is overwritten in place under a server is noticed, and what to do is said."""
    model = tmp_path / "model.gguf"
    model.write_bytes(chain_path.read_bytes())
    with serving(str(model), "-c", "256", "--no-mmap") as server:
        server.wait_until_ready()
        with model.open("r+b") as file:
            file.seek(0, os.SEEK_END)
            file.write(b"x")
        assert server.process.stderr is not None
        line = server.process.stderr.readline()

    assert "overwritten in place" in line
    assert "renaming" in line


def test_unreachable_rpc_server(chain_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An RPC server that does not answer ends the start with its address, after its share was predicted."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    assert main(["serve", str(chain_path), "-c", "256", "--port", "0", "--rpc", f"{address}=1GiB"]) == 1
    said = capsys.readouterr()

    assert f"RPC0[{address}]: " in said.out
    assert f"RPC server {address} does not answer" in said.err
