"""Typing errors, odd values and odd streams: what the console script says to them."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from ggufphys.cli import COMMANDS, main
from ggufphys.embedded import MODEL
from tests.ggufphys.models import llama_metadata, llama_tensors, tiny_llama, write_model
from tests.ggufphys.test_cli import inspect_json, run


def test_what_was_meant(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A subcommand or flag that is nearly one is named, and a file that looks like a flag."""
    assert "did you mean inspect?" in run(capsys, "inspct", "x")[2]
    assert "did you mean bench speed?" in run(capsys, "bench", "speeed")[2]
    assert "did you mean --json?" in run(capsys, "inspect", "x", "--jsn")[2]
    monkeypatch.chdir(tmp_path)
    tiny_llama(tmp_path / "-dash.gguf")
    assert "a file of that name is ./-dash.gguf" in run(capsys, "inspect", "-dash.gguf")[2]


def test_the_list_of_subcommands_has_columns(capsys: pytest.CaptureFixture[str]) -> None:
    """Names and help texts stand apart, however long a name is."""
    _, out, _ = run(capsys, "--help")
    rows = [line for line in out.splitlines() if line.startswith("  ")]
    starts = {line.index(COMMANDS[name].help) for name, line in zip(COMMANDS, rows, strict=True)}
    assert len(starts) == 1
    assert starts.pop() > 2 + max(map(len, COMMANDS))


def test_ctrl_c_where_python_drops_it() -> None:
    """Raised in a callback, as one of the import lock's is, Ctrl-C ends the command all the same."""
    code = (
        "import sys, time, weakref, ggufphys.cli, ggufphys.__main__ as door\n"
        "def interrupt(_): raise KeyboardInterrupt\n"
        "def process():\n"
        "    lock = type('Lock', (), {})()\n"
        "    kept = weakref.ref(lock, interrupt)\n"
        "    del lock\n"
        "    for _ in range(6000): time.sleep(0.01)\n"
        "ggufphys.cli.process = process\n"
        "sys.exit(door.main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (130, "ggufphys: interrupted\n")


@pytest.mark.parametrize("command", ["inspect", "fit", "tensors", "verify"])
def test_an_empty_name_is_no_model(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`verify "$MODEL"` with MODEL unset is an error, not the answer to another question."""
    if command == "verify":
        pytest.importorskip("llama_cpp")
    code, out, err = run(capsys, command, "")
    assert (code, out) == (2, "")
    assert "name is empty" in err


@pytest.mark.parametrize(
    ("word", "meant"), [("1", "on"), ("true", "on"), ("disabled", "off"), ("0", "off"), ("-1", "auto")]
)
def test_llama_cpps_words_for_on_and_off(
    word: str, meant: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """-fa takes all the words that llama.cpp does, and -fit, too."""
    path = tiny_llama(tmp_path / "m.gguf")
    code, out, _ = run(capsys, "inspect", "--json", path, "-fa", word, *(() if meant == "auto" else ("-fit", word)))
    assert code == 0
    assert json.loads(out)["params"]["flash_attn"] == meant


def test_counts_without_bounds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """More layers than any model has cost nothing, and digits of other scripts are no numbers."""
    path = tiny_llama(tmp_path / "m.gguf")
    assert run(capsys, "inspect", path, "-ncffn", str(10**20))[0] == 0
    for flag in ("-c", "-ncffn"):
        assert "\u00b2" in run(capsys, "inspect", path, flag, "\u00b2")[2]
        assert run(capsys, "inspect", path, flag, "\u0663")[0] == 2


def test_safetensors_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The most frequent other format is told from garbage."""
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", 8) + b"{}      ")
    code, _, err = run(capsys, "inspect", path)
    assert code == 3
    assert "convert_hf_to_gguf.py" in err


def test_a_log_without_an_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file whose lines never end is no log, and is not read into memory."""
    path = tiny_llama(tmp_path / "m.gguf")
    code, _, err = run(capsys, "inspect", path, "--log", "/dev/zero")
    assert code == 2
    assert "no log of llama.cpp" in err


@pytest.mark.parametrize(
    ("redirection", "file", "code"),
    [(">&-", "m.gguf", 0), ("2>&-", "none.gguf", 3), (">&- 2>&-", "none.gguf", 3), ("--log - <&-", "m.gguf", 2),
     (">/dev/full", "m.gguf", 1), ("--help >/dev/full", "m.gguf", 1), ("2>/dev/full", "none.gguf", 3)],
)  # fmt: skip
def test_streams_that_are_closed(redirection: str, file: str, code: int, tmp_path: Path) -> None:
    """A stream that is closed or full ends in an exit code, and errors never go to stdout."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    tiny_llama(tmp_path / "m.gguf")
    line = f"exec {sys.executable} -m ggufphys inspect {tmp_path / file} {redirection}"
    answer = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, env=dict(os.environ), check=False)
    assert answer.returncode == code, answer.stderr
    assert "Traceback" not in answer.stderr
    assert answer.stdout == ""
    if redirection.endswith(">/dev/full") and "2>" not in redirection:
        assert answer.stderr == "ggufphys: error: cannot write to standard output: No space left on device\n"


def test_another_pipe_that_breaks_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that is gone, or a server, is not the reader of the answer, who has seen enough."""

    def broken(*_: object) -> NoReturn:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("ggufphys.commands.inspect.run", broken)
    assert main(["inspect", "m.gguf"]) == 3


@pytest.mark.parametrize("words", ["--help", "--version", "bench --help"])
def test_no_room_for_help(words: str) -> None:
    """What needs no subcommand ends in the same words."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    line = f"exec {sys.executable} -m ggufphys {words} >/dev/full"
    answer = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, env=dict(os.environ), check=False)
    assert answer.returncode == 1
    assert answer.stderr == "ggufphys: error: cannot write to standard output: No space left on device\n"


def test_main_without_stdout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where a program has no stdout at all (pythonw), `main` answers as well."""
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["tensors", str(tiny_llama(tmp_path / "m.gguf"))]) == 0


@pytest.mark.parametrize("command", ["inspect", "fit"])
def test_the_list_of_machines(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--on list needs no model, of either command that takes --on, and is JSON where that is asked for."""
    code, out, _ = run(capsys, command, "--on", "list")
    assert code == 0
    assert out.startswith("--on ")
    code, out, _ = run(capsys, command, "--on", "list", "--json")
    names = [machine["name"] for machine in json.loads(out)["machines"]]
    assert (code, "rtx-4090" in names) == (0, True)


@pytest.mark.parametrize(("argv", "code"), [("-m", 2), ("program", 1)])
def test_a_python_that_is_too_old(argv: str, code: int) -> None:
    """`python3.10 -m ggufphys` says in a line what it needs; who imports it there gets an ImportError."""
    program = f"import sys; sys.version_info = (3, 10, 13); sys.argv = [{argv!r}]; import ggufphys"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stderr.splitlines()[-1].endswith("ggufphys needs Python 3.11 or newer, and this is 3.10.13")
    assert ("Traceback" in done.stderr) == (argv != "-m")


def test_fit_needs_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a model the usage says what is missing."""
    assert run(capsys, "fit")[0] == 2


@pytest.mark.parametrize("module", ["argparse", "ggufphys.cli", "ggufphys.commands.inspected", "ggufphys.gguf.reader"])
def test_ctrl_c_while_importing(module: str, tmp_path: Path) -> None:
    """Ctrl-C ends the process with 130 and no traceback, also while its modules are still being imported."""
    path = tiny_llama(tmp_path / "m.gguf")
    program = (
        "import sys, importlib.abc\n"
        "class Pressed(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}:\n"
        "            raise KeyboardInterrupt\n"
        "for name in [n for n in sys.modules if n == 'argparse' or n.startswith('ggufphys')]:\n"
        "    del sys.modules[name]\n"
        "sys.meta_path.insert(0, Pressed())\n"
        f"sys.argv = ['ggufphys', 'inspect', {str(path)!r}]\n"
        "from ggufphys.__main__ import main\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("-dev=", "names nothing, expected NAME[=SIZE]"),
        ("-dev none,CUDA0=8GiB", "none is no device"),
        ("-dev CUDA0=8", "that is 8 B, expected a size such as 24GiB"),
        ("-dev CUDA0=1e30", "--device CUDA0: not a size: '1e30'"),
        ("-dev CUDA0=99999999TiB", "8192.00 PiB at most"),
        ("--rpc=", "names nothing, expected HOST:PORT"),
        ("--lora=", "names nothing, expected FILE"),
        ("--lora-scaled ,", "names nothing, expected FILE:SCALE"),
        ("--log=", "--log: the name is empty"),
        ("--rpc host:99999=1GiB", "1 to 65535"),
        ("-dev A=1GiB,B=1GiB -ts 1e39,1", "expected a sum that a 32-bit float holds"),
        ("-dev A=1GiB -ngl 1_0", "is not a number of layers"),
        ("-mg 1_0", "is not a whole number"),
        ("-ts 1_0,1", "expected proportions such as 3,1"),
        ("-fitt \u0663", "expected MiB, such as 1024,512"),
        ("-t 513", "expected at most 512"),
        ("-b 1", "n_batch is 1, expected at least n_seq_max = 4"),
        ("--prefill 0", "--prefill: '0': expected a whole number of at least 1"),
        ("--assert-fits 24", "--assert-fits 24: that is 24 B"),
        ("--log {log}", "the log has no lines about buffers"),
    ],
)
def test_values_that_nobody_means(flags: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sizes without a unit, devices without a name, numbers beyond what llama.cpp holds: exit code 2, and what is."""
    path, log = tiny_llama(tmp_path / "m.gguf"), tmp_path / "server.log"
    log.write_text("no log")
    code, out, err = run(capsys, "inspect", path, *flags.format(log=log).split())
    assert (code, out) == (2, ""), err
    assert message in err
    if "{log}" in flags:
        assert str(log) in err


def test_no_prediction_by_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is wrong with a file is said, not which exception that led to, where --force cannot help."""
    path = write_model(tmp_path / "m.gguf", llama_metadata(attention__head_count=0), llama_tensors())
    code, _, err = run(capsys, "inspect", "--force", path)
    assert code == 3
    assert "layer 0 keeps nothing: heads of 0, expected some" in err
    assert "Error" not in err


def test_a_draft_is_told_by_its_own_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is wrong with a draft model is not said of the model."""
    draft = write_model(tmp_path / "draft.gguf", llama_metadata("llama9"), llama_tensors())
    _, _, err = run(capsys, "inspect", tiny_llama(tmp_path / "m.gguf"), "-md", draft)
    assert "draft.gguf" in err
    assert "m.gguf: llama.cpp would not" not in err


def test_threads_as_llama_cpp_counts_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """-t 0 and -t -1 are all threads that the system counts, as in llama.cpp."""
    path = tiny_llama(tmp_path / "m.gguf")
    flags = ("0", "-1", str(os.cpu_count()))
    assert len({json.dumps(inspect_json(capsys, path, "-t", text)["memory"]) for text in flags}) == 1


@pytest.mark.parametrize(
    "words", ["inspect", "inspect ollama:x", "bench quality F16 Q8_0", "inspect MODEL --llama-build ~nobody.here/x"]
)
def test_without_a_home(words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the user has no home folder, what needs one says so; everything else answers."""
    if "quality" in words:
        pytest.importorskip("llama_cpp")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as where the system knows no folder of the user's
    code, _, err = run(capsys, *(str(MODEL) if word == "MODEL" else word for word in words.split()))
    assert code == 2
    assert "home folder" in err or "~nobody.here/x" in err
    assert main(["inspect", str(MODEL)]) == 0


@pytest.mark.parametrize(
    "words",
    ["inspect MODEL --html", "inspect", "inspect MODEL --explain", "fit MODEL --ram 1GiB", "doctor", "metadata MODEL"],
)
def test_files_are_utf_8_whatever_the_locale_says(words: str, tmp_path: Path) -> None:
    """No file is read or written in the encoding of the locale: Python is told to end where one is."""
    line = [sys.executable, "-X", "warn_default_encoding", "-W", "error::EncodingWarning", "-m", "ggufphys"]
    answer = subprocess.run(
        [*line, *(str(MODEL) if word == "MODEL" else word for word in words.split())],
        capture_output=True, check=False, env={**os.environ, "HOME": str(tmp_path), "LC_ALL": "C", "PYTHONUTF8": "0"},
    )  # fmt: skip
    assert b"EncodingWarning" not in answer.stderr
    assert answer.returncode in (0, 1) or b"no model found on this machine" in answer.stderr


def test_a_model_without_a_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    """A file's name alone is answered with what to ask about it."""
    code, out, err = run(capsys, "models/m.gguf", "-c", "8k")
    assert (code, out) == (2, "")
    assert "did you mean ggufphys inspect models/m.gguf?\n" in err
