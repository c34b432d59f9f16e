"""Programs of `bench/` and `scripts/`: what goes wrong is told in a line, never as a traceback."""

import argparse
import ast
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from bench.running.program import existing_program, run_program
from ggufphys.embedded import MODEL
from ggufphys.errors import GGUFError, UnsupportedError

ROOT = Path(__file__).parents[3]
ENDINGS = ("run_program(main)", "run_telling(main)")
OPENING = "drafts engine pages process serve_profile serve_ways start token_speed waiting node_speed report.readme"
NAMING = {  # scripts that are to read what an argument names, with a wrong one
    "build_paper": ["{folder}", "nowhere"],
    "record_build": ["1", "--wheel", "nowhere"],
    "record_newer": ["1", "--wheels", "nowhere"],
    "record_older": ["1", "--c-library", "nowhere"],
    "record_paper": ["{folder}", "nowhere"],
    "record_variants": ["nowhere"],
    "record_vulkan": ["nowhere"],
    "check_logits": ["nowhere"],
    "check_quality": ["nowhere", "nowhere", "--text", "nowhere"],
    "record_oracle": ["nowhere"],
}


def programs() -> dict[str, ast.If]:
    """The last statement of each module that is run by itself, by name."""
    found = {}
    for path in (*ROOT.glob("bench/**/*.py"), *ROOT.glob("scripts/**/*.py")):
        last = ast.parse(path.read_text(encoding="utf-8")).body[-1:]
        if last and isinstance(last[0], ast.If) and "__main__" in ast.unparse(last[0].test):
            found[".".join(path.relative_to(ROOT).with_suffix("").parts)] = last[0]
    return found


def test_every_program_tells_its_errors() -> None:
    """Those with a command line end by `run_program`, and children by `run_telling`."""
    plain = {name for name, last in programs().items() if "; ".join(map(ast.unparse, last.body)) not in ENDINGS}
    assert plain == {
        "bench.running.launcher", "bench.derive", "bench.running.rpc_worker", "bench.clip.measure",  # our own children
        "scripts.build_llama", "scripts.build_oracle",  # run where nothing of ours is installed
    }  # fmt: skip


def test_every_program_is_named() -> None:
    """A program that nobody is told of is nobody's: each with a command line stands in a page or the Makefile."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "Makefile"]
    pages += [*ROOT.glob("docs/*.md"), *ROOT.glob("scripts/*/*.md")]
    said = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    ours = {name.removesuffix(".__main__") for name, last in programs().items() if "run_program" in ast.unparse(last)}
    assert len(ours) > 30
    assert {name for name in ours if name not in said} == set()


@pytest.mark.parametrize("name", OPENING.split())
def test_no_such_file(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A model that is not there is told by the program that was called, before any child opens it."""
    monkeypatch.setattr(sys, "argv", ["program", "nowhere.gguf"])
    monkeypatch.delitem(sys.modules, f"bench.{name}", raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"bench.{name}", run_name="__main__", alter_sys=True)
    assert ended.value.code == 2
    assert "nowhere.gguf: no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        "bench.speed_peer MODEL --llama-bench nowhere",
        "bench.serve_profile MODEL --against nowhere",
        "bench.serve_compare MODEL --against nowhere",
        "bench.quality_speed nowhere MODEL MODEL",
        "bench.load_peers http://localhost:9 --peer nowhere --tokenizer MODEL",
        "bench.results.everything MODEL --llama-server nowhere",
        "ggufphys bench speed MODEL --mdl nowhere",
        "ggufphys bench speed MODEL --llama-bench nowhere",
    ],
)
def test_no_such_program(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A program to compare with that is not there is told before minutes of measuring are lost with it."""
    name, *arguments = line.replace("MODEL", str(MODEL)).split()
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    assert ended.value.code == 2
    assert "nowhere: no such program" in capsys.readouterr().err


def test_a_program_is_found_as_a_shell_finds_it(tmp_path: Path) -> None:
    """By its name on the path or by its own path; a folder and what can't be run are told apart."""
    plain = tmp_path / "plain"
    plain.write_text("")

    assert existing_program("sh").is_absolute()
    assert existing_program(sys.executable) == Path(sys.executable)
    for text, why in ((str(tmp_path), "a directory"), (str(plain), "not executable")):
        with pytest.raises(argparse.ArgumentTypeError, match=why):
            existing_program(text)


@pytest.mark.parametrize("name", ["engine", "predict", "reader", "serve_ways", "start"])
def test_no_checkout(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder without our packages is told: children started there would take this checkout's, beside themselves."""
    monkeypatch.setattr(sys, "argv", ["program", "--against", str(tmp_path)])
    monkeypatch.delitem(sys.modules, f"bench.{name}", raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"bench.{name}", run_name="__main__", alter_sys=True)
    assert ended.value.code == 2
    assert f"{tmp_path}: no checkout of ggufphys" in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMING)
def test_a_script_told_of_nothing_that_is_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says so before it begins."""
    monkeypatch.setattr(sys, "argv", [name, *(word.format(folder=tmp_path) for word in NAMING[name])])
    monkeypatch.delitem(sys.modules, f"scripts.{name}", raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"scripts.{name}", run_name="__main__", alter_sys=True)
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert "nowhere" in said.err
    assert not said.out


def test_devices_on_paper_that_were_not_built(tmp_path: Path) -> None:
    """A folder without them is said to be one, with the command that makes them, and no record is written."""
    command = [sys.executable, "-m", "scripts.record_paper", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert f"python -m scripts.build_paper {tmp_path}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (GGUFError("x.gguf: no magic"), 3, "x.gguf: no magic"),
        (FileNotFoundError(2, "No such file", "x"), 3, "x: No such file"),
        (UnsupportedError("no rule"), 4, "no rule"),
        (ValueError("n_ctx: 0"), 2, "n_ctx: 0"),
        (RuntimeError("the server has ended"), 1, "the server has ended"),
        (subprocess.CalledProcessError(3, ["a", "b"]), 1, "returned non-zero exit status 3"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_become_exit_codes(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As those of the console script."""

    def main() -> int:
        raise error

    with pytest.raises(SystemExit) as ended:
        run_program(main)
    assert ended.value.code == code
    assert said in capsys.readouterr().err


PRESSED = """
import importlib.abc, sys
class Pressed(importlib.abc.MetaPathFinder):
    def find_spec(self, name, *_):
        if "ggufphys.interrupts" in sys.modules and sys.excepthook is not sys.__excepthook__:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Pressed())
"""


@pytest.mark.parametrize("name", sorted(programs()))
def test_ctrl_c_while_importing(name: str, tmp_path: Path) -> None:
    """It ends each program, and each child, with 130 and without a traceback while modules are being imported."""
    (tmp_path / "sitecustomize.py").write_text(PRESSED)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, "-m", name, "--help"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signal for it that a test may send")
def test_ctrl_c_while_llama_cpp_loads_a_model() -> None:
    """It comes while llama.cpp tells us something, from where Python would drop it, and ends the program."""
    pytest.importorskip("llama_cpp")
    code = (
        "import os, runpy, signal, sys, server.engine.llama.log as log\n"
        "sys.argv = ['-m']\n"
        "import bench\n"
        "def receive(self, level, text, user_data=None):\n"
        "    if b'llama_model_loader' in (text or b'') and not told:\n"
        "        told.append(os.kill(os.getpid(), signal.SIGINT))\n"
        "told = []\n"
        "log.LogCapture.receive = receive\n"
        "sys.argv = ['program', 'llama-110m']\n"
        "runpy.run_module('bench.estimate', run_name='__main__', alter_sys=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.endswith("interrupted\n")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("answer", [0, 1, None])
def test_a_program_that_ends_well(answer: int | None, capsys: pytest.CaptureFixture[str]) -> None:
    """Its exit code is what its main function says."""
    with pytest.raises(SystemExit) as ended:
        run_program(lambda: answer)
    assert ended.value.code == answer
    assert capsys.readouterr().err == ""
