"""Measuring: rows that agree with llama.cpp, and a harness that outlives its child."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.measure import llama as measure
from bench.measure.measurement import PEAKS
from bench.measure.report import plot
from bench.measure.supervise import PHASES, child_command, run_child
from ggufphys import Params
from ggufphys.cli import main
from ggufphys.embedded import MODEL
from tests.ggufphys.models import tiny_llama

Command = Callable[[dict[str, Any]], list[str]]


@pytest.mark.parametrize("use_mmap", [True, False])
@pytest.mark.parametrize("use_extra_bufts", [True, False])
def test_embedded_model(use_mmap: bool, use_extra_bufts: bool) -> None:
    """On the embedded model every buffer is exact and the process within 3 %, mapped or not, repacked or not."""
    params = Params(n_ctx=1024, use_mmap=use_mmap, use_extra_bufts=use_extra_bufts)
    result = measure.measure(MODEL, params, n_predict=4)
    rows = {row.quantity: row for row in result.rows}

    assert [phase.name for phase in result.child.phases] == list(PHASES)
    assert [rows[f"{q}_bytes"].difference for q in measure.QUANTITIES] == [0, 0, 0, 0]
    assert result.holds, rows["process_bytes"]
    kinds = [rows[f"process_{kind}_bytes"] for kind in ("anon", "file")]
    peaks = [rows[f"peak_{phase}_bytes"] for phase in PEAKS]
    assert all(row.difference is not None and abs(row.difference) <= 4 << 20 for row in (*kinds, *peaks)), result.rows
    assert (result.retries, result.notes) == (0, ())


def crashing(phase: int, signal_name: str, *, always: bool = False) -> Command:
    """A child that reaches `phase` phases and then kills itself, at least when extra buffers are on."""
    script = (
        "import json, os, signal, sys\n"
        f"for name in {PHASES[:phase]!r}:\n"
        "    print(json.dumps({'phase': name, 'log': []}), flush=True)\n"
        "    sys.stdin.readline()\n"
        f"os.kill(os.getpid(), signal.{signal_name})\n"
    )

    def command(config: dict[str, Any]) -> list[str]:
        if always or config["params"]["use_extra_bufts"]:
            return [sys.executable, "-c", script]
        return child_command(config)

    return command


def test_crash_is_retried_without_extra_buffers(tmp_path: Path) -> None:
    """A wheel that dies by a signal is named with its phase, and the run is repeated without extra buffers."""
    model = tiny_llama(tmp_path / "tiny.gguf")
    result = measure.measure(model, Params(n_ctx=256), n_predict=2, command=crashing(4, "SIGSEGV"))

    assert result.child.ok
    assert result.retries == 1
    assert not result.params.use_extra_bufts
    assert "died by SIGSEGV in phase 'prefill'; ran it again without extra buffers" in result.notes[0]
    assert "issue 20824" in result.notes[0]
    assert {row.quantity: row.difference for row in result.rows}["context_bytes"] == 0


@pytest.mark.parametrize(("phase", "signal_name"), [(0, "SIGKILL"), (2, "SIGABRT"), (5, "SIGSEGV")])
def test_crash_twice(tmp_path: Path, phase: int, signal_name: str) -> None:
    """A child that dies both times leaves a result that says where and by what."""
    model = tiny_llama(tmp_path / "tiny.gguf")
    command = crashing(phase, signal_name, always=True)
    result = measure.measure(model, Params(n_ctx=256), n_predict=2, command=command)

    assert (result.child.exit, result.child.failed_in, result.retries) == (signal_name, PHASES[phase], 1)
    assert all(row.measured is None for row in result.rows if row.quantity == "process_bytes")
    assert not result.holds
    assert f"ended with {signal_name} in phase '{PHASES[phase]}'" in result.notes[-1]
    assert ("more memory than there is" in result.notes[0]) == (signal_name == "SIGKILL")


def test_a_file_that_is_cut_while_it_runs(tmp_path: Path) -> None:
    """SIGBUS is the file's fault, and neither run again nor advised to be rebuilt."""
    model = tiny_llama(tmp_path / "tiny.gguf")
    result = measure.measure(model, Params(n_ctx=256), n_predict=2, command=crashing(4, "SIGBUS"))

    assert (result.child.exit, result.retries) == ("SIGBUS", 0)
    assert result.notes == (
        f"llama.cpp died by SIGBUS in phase 'prefill': {model} was cut short while it was mapped, or cannot be read",
    )


@pytest.mark.parametrize("name", [r"a$\foo$.gguf", "_a\udcff.gguf"])
def test_a_stranger_s_name_in_the_picture(name: str, tmp_path: Path) -> None:
    """A file's name is no formula, and need not be text."""
    result = measure.measure(tiny_llama(tmp_path / name), Params(n_ctx=256), n_predict=1)
    plot(result, tmp_path / "bars.png")
    assert (tmp_path / "bars.png").stat().st_size > 10_000


def test_assertion(tmp_path: Path) -> None:
    """A child that llama.cpp ended itself is told by its assertion, and neither run again nor advised to be rebuilt."""
    script = (
        "import os, signal, sys\n"
        "print('ggml/src/ggml.c:1: GGML_ASSERT(n_outputs <= n_max) failed', file=sys.stderr, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGABRT)\n"
    )
    model = tiny_llama(tmp_path / "tiny.gguf")
    result = measure.measure(
        model, Params(n_ctx=256), n_predict=2, command=lambda config: [sys.executable, "-c", script]
    )

    assert (result.child.exit, result.retries) == ("SIGABRT", 0)
    assert result.notes == (
        "llama.cpp died by SIGABRT in phase 'interpreter': ggml/src/ggml.c:1: GGML_ASSERT(n_outputs <= n_max) failed",
    )


def test_error_in_the_child(tmp_path: Path) -> None:
    """An ordinary failure in the child is quoted, not retried."""
    model = tiny_llama(tmp_path / "tiny.gguf")

    def command(config: dict[str, Any]) -> list[str]:
        return child_command({**config, "path": str(tmp_path / "gone.gguf")})

    result = measure.measure(model, Params(n_ctx=256), n_predict=2, command=command)

    assert (result.child.exit, result.child.failed_in, result.retries) == (1, "weights", 0)
    assert "gone.gguf" in result.notes[0]


def test_noise_on_stdout() -> None:
    """Text that is no event does not disturb the harness, nor does a child that is not Python."""
    seen: list[dict[str, Any]] = []
    result = run_child(["sh", "-c", "echo hello; echo '[1]'; echo oops >&2; exit 7"], seen.append)

    assert seen == [{"text": "hello\n"}, {"text": "[1]\n"}]
    assert (result.exit, result.stderr, result.failed_in) == (7, "oops\n", "interpreter")


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--json prints one document with the promised keys, --plot draws, --check passes."""
    plot = tmp_path / "bars.svg"
    arguments = ["measure", str(MODEL), "-c", "512", "-n", "2", "-p", "64", "--json", "--plot", str(plot), "--check"]
    code = main(arguments)
    document = json.loads(capsys.readouterr().out)

    assert code == 0
    assert {"quantity", "predicted", "measured", "source"} <= set(document["rows"][0])
    assert {"name", "rss_bytes", "anon_bytes", "file_bytes"} <= set(document["phases"][0])
    assert {"prefill_tok_per_s", "decode_tok_per_s"} <= set(document["speed"])
    assert document["child"]["exit"] == document["child"]["retries"] == 0
    assert "<svg" in plot.read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{model}", "--plot", "bars.gif"], 2, "expected a name ending in .png or .svg"),
        (["{model}", "-c", "256", "-p", "1000"], 2, "a prompt of 1000 tokens and 16 more: expected 1 to 240"),
        (["{model}", "-c", "256", "-n", "256"], 2, "256 tokens to decode do not fit into a sequence of 256"),
        (["{folder}/nothing.gguf"], 3, "No such file"),
        (["{folder}/nothing.gguf", "--engine", "numpy"], 3, "No such file"),
        (["{header}", "--engine", "numpy"], 3, "cannot be run: tensor data is missing"),
        (["{model}", "--engine", "numpy", "-c", "256", "-n", "256"], 2, "do not fit into a sequence of 256"),
        (["{model}", "--hold", "f32"], 2, "it is for --engine numpy"),
        (["{header}"], 3, "cannot be run: tensor data is missing"),
    ],
)
def test_refusals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    """What cannot be measured is refused before anything runs."""
    header = tmp_path / "header.gguf"
    header.write_bytes(tiny_llama(tmp_path / "tiny.gguf").read_bytes()[:3000])
    arguments = [a.format(model=tmp_path / "tiny.gguf", folder=tmp_path, header=header) for a in arguments]

    assert main(["measure", *arguments]) == code
    assert message in capsys.readouterr().err
