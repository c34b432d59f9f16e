"""Every command that README or a page of docs names can be run: it is, in its shortest form, on small files."""

import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from ggufphys.cli import COMMANDS, main
from ggufphys.embedded import MODEL
from tests.ggufphys.gguf.http_server import Site, serving
from tests.ggufphys.gguf.remote_files import model, without_environment
from tests.ggufphys.models import shape_header

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
FENCED: Final = re.compile(r"^```[a-z]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SPAN: Final = re.compile(r"`((?:ggufphys|python -m) [^`]+)`")

# Programs of others, and what sets an environment up, are not ours to run here.
OTHERS: Final = {
    "pipx",
    "pip",
    "make",
    "curl",
    "llama-server",
    "ls",
    "uv",
    "for",
    "docker",
    "kubectl",
    "systemctl",
    "pytest",
}
# What a line begins with that needs a device, or a build for one, which few machines have.
NEEDS_DEVICE: Final = "GGML_BACKEND_PATH="
# What does not end by itself, or is run by tests of its own: only that its flags are there is checked.
OF_A_MODEL: Final = ("inspect", "fit", "tensors", "metadata", "measure", "verify")
HELP_ALONE: Final = {
    "ggufphys serve": "a server does not end by itself; tests/server runs it",
    "ggufphys rpc-worker": "does not end by itself either; tests/server/test_rpc_worker.py runs it",
    "ggufphys demo": "tests/bench/test_demo.py runs it",
    "ggufphys bench calibrate": "takes a minute; tests/bench/calibrate runs it",
    "ggufphys bench speed": "calibrates; tests/bench/calibrate runs it",
    "ggufphys bench load": "needs a server; tests/bench/load runs it",
    "ggufphys bench report": "needs results; tests/bench/report runs it",
    "ggufphys bench compare": "needs two of its results; tests/bench/load runs it",
}
# Each module's shortest run; None where it writes into the repository, or needs other programs, sources or devices:
# then it is only there.
SHORTEST: Final[dict[str, str | None]] = {
    "bench.dequant": "--repetitions 1 --weights 65536",
    "bench.engine": "--repetitions 1",
    "bench.estimate": "llama-110m",
    "bench.estimate --devices": "--devices llama-110m",
    "bench.load_limit": "--seconds 0.2",
    "bench.load_peers": None,
    "bench.drafts": None,
    "bench.node_speed": None,
    "bench.paced": None,
    "bench.predict": "--runs 1",
    "bench.process": f"{MODEL} -c 512 --load-modes mmap",
    "bench.report.readme": None,
    "bench.results.everything": f"{MODEL} --list",
    "bench.results.run": None,
    "bench.quality_speed": None,
    "bench.reader": "--runs 1 --tokens 1000",
    "bench.synth.speed": "--shape llama-110m --runs 1",
    "bench.start": "--runs 1",
    "bench.token_speed": "--repetitions 1",
    "bench.pages": "--rounds 1",
    "bench.waiting": "--rounds 1 --spins 0 --busy 0",
    "bench.serve_compare": None,
    "bench.serve_memory": "--requests 8 --clients 2",
    "bench.serve_profile": None,
    "bench.serve_ways": None,
    "bench.speed_peer": None,
    "scripts.build_paper": None,
    "scripts.build_vulkan": None,
    "scripts.check_guesses": "llama",
    "scripts.check_loads": "-n 5",
    "scripts.check_logits": "llama",
    "scripts.check_published": "",
    "scripts.check_quality": None,
    "scripts.check_random": "-n 5 --model llama",
    "scripts.check_records": "",
    "scripts.check_templates": None,
    "scripts.list_archs": None,
    "scripts.list_builds": None,
    "scripts.record_build": None,
    "scripts.watch_builds": None,
    "scripts.record_newer": None,
    "scripts.record_oracle": None,
    "scripts.record_paper": None,
    "scripts.record_variants": None,
    "scripts.record_vulkan": None,
    "scripts.time_deep": "-n 8 llama",
    "scripts.write_cli_docs": None,
}
# Shapes for files that a page gives a name of their own; all other names are the embedded model.
SHAPES: Final = {
    "qwen3-next-80b-q4_k_m.gguf": "qwen3-next-80b-a3b",
    "qwen3-30b-a3b-q4_k_m.gguf": "qwen3-30b-a3b",
    "llama-3.1-8b-q4_k_m.gguf": "llama-3.1-8b",
    "Llama-3.1-8B-Q4_K_M.gguf": "llama-3.1-8b",
    "gemma-3-4b.gguf": "gemma-3-4b",
    "mistral-7b.gguf": "mistral-7b",
    "tinyllama.gguf": "tinyllama-1.1b",
}
# By subcommand, what makes it short.
SHORTER: Final = {
    "measure": ["-c", "256", "-p", "8", "-n", "2"],
    "verify": ["--blocks", "10"],
    "verify --logits": ["--prompt-tokens", "4", "--decode-tokens", "1"],
    "bench hypotheses": ["--help"],  # minutes; tests/bench/hypotheses runs it
    "bench quality": ["--help"],  # minutes on a text; tests/bench/quality runs it
}

LONG: Final = ("measure", "verify")  # seconds each: one of each is enough for the quick tests
ONCE: Final = ("ggufphys measure MODEL", "ggufphys verify MODEL")


def named() -> Iterator[tuple[str, str]]:
    """The page and the command, options in brackets and comments left out."""
    for page in PAGES:
        text = page.read_text()
        lines = [
            line
            for block in FENCED.findall(text)
            for line in re.sub(r"\\\n\s*", " ", block).splitlines()
            if line.startswith("$ ")
        ]
        for line in (*lines, *SPAN.findall(text)):
            if NEEDS_DEVICE in line:
                continue
            command = re.sub(r"\s+#\s.*", "", line.removeprefix("$ "))
            yield page.name, re.sub(r"\[[^\]]*\]", "", command).replace("...", "").strip()


COMMANDS_NAMED: Final = sorted({command for _, command in named() if command.split()[0] not in OTHERS})
OURS: Final = [command for command in COMMANDS_NAMED if command.startswith("ggufphys ")]
MODULES: Final = sorted(
    {
        " ".join(["".join(command.split()[2:3]), *(["--devices"] if "--devices" in command else [])])
        for command in COMMANDS_NAMED
        if command.startswith(("python -m bench.", "python -m scripts."))
    }
)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    """What the pages' addresses hold."""
    without_environment(monkeypatch, tmp_path)
    paths = ("/models/model-q4_k_m.gguf", "/owner/repo/resolve/main/model-Q4_K_M.gguf")
    files = dict.fromkeys((*paths, "/owner/repo/resolve/revision/folder/model.gguf"), model())
    tree = b'[{"type": "file", "path": "model-Q4_K_M.gguf", "size": 1}]'
    with serving(Site(files={**files, "/api/models/owner/repo/tree/main?recursive=1": tree})) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def test_all_kinds_are_found() -> None:
    """The search finds what it looks for, and nothing of a program that nobody knows."""
    assert {"ggufphys inspect", "ggufphys fit", "ggufphys measure", "ggufphys synth"} <= {
        " ".join(command.split()[:2]) for command in OURS
    }
    assert "bench.reader" in MODULES
    assert all(command.startswith(("ggufphys ", "python -m ")) for command in COMMANDS_NAMED), COMMANDS_NAMED


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command, marks=[pytest.mark.slow] if command.split()[1] in LONG and command not in ONCE else [])
        for command in OURS
    ],
)
def test_subcommands(
    command: str, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command line is taken, and ends without an error."""
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command.split(" > ")[0])[1:]
    name = next((n for n in COMMANDS if words[: len(n.split())] == n.split()), None)
    assert name is not None, f"no subcommand: {command}"
    arguments = [_small(word, tmp_path, site) for word in words[len(name.split()) :]]
    if f"ggufphys {name}" in HELP_ALONE:
        arguments = ["--help"]
    elif name in OF_A_MODEL and not arguments_name_a_model(arguments):
        arguments = [str(MODEL), *arguments]
    elif name == "synth" and "--list" not in arguments and "-o" not in arguments:
        arguments = ["--list"]
    if name == "synth" and "-o" in arguments:
        arguments = ["llama-110m", "-o", "made.gguf", "--sparse"]
    if name == "fit" and not {"--memory", "--ram"} & set(arguments):
        arguments += ["--ram", "4GiB"]
    shorter = SHORTER.get(f"{name} --logits" if "--logits" in arguments else name, [])
    code = _exit_code([*name.split(), *arguments, *shorter])
    out = capsys.readouterr()

    assert code in (0, 1), out.err  # 1: it does not fit, which a page may show
    assert "Traceback" not in out.err


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_modules(module: str, tmp_path: Path) -> None:
    """The module runs to its end; a benchmark that misses its bar on a busy machine has run, too."""
    assert module in SHORTEST, f"python -m {module} is named in docs and has no shortest form here"
    arguments = SHORTEST[module]
    if arguments is None:
        assert importlib.util.find_spec(module)
        return
    words = arguments.split()
    done = subprocess.run(
        [sys.executable, "-m", module.split()[0], *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )

    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode in (0, 1), done.stderr
    assert done.stdout


def arguments_name_a_model(arguments: list[str]) -> bool:
    """Is there a file, a folder or an address among them?"""
    return any(word.endswith(".gguf") or word.startswith(("hf:", "http")) or Path(word).is_dir() for word in arguments)


def _exit_code(arguments: list[str]) -> int:
    try:
        return main(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)


def _small(word: str, folder: Path, site: Site) -> str:
    """What stands for a page's word: a small file for a model, an address on this machine for one elsewhere."""
    if word == "models/":
        (folder / "models").mkdir(exist_ok=True)
        shape_header(folder / "models" / "a.gguf", "llama-110m")
        return str(folder / "models")
    if word.startswith("https://example.org"):
        return word.replace("https://example.org", site.url)
    if word.endswith(".log"):
        (folder / word).write_text(
            "llama_context: n_ctx = 512\nllama_kv_cache:        CPU KV buffer size =     1.00 MiB\n"
        )
        return str(folder / word)
    name = word.rpartition("/")[2]
    if name in SHAPES:
        return str(shape_header(folder / name, SHAPES[name]))
    if word.startswith("~/"):  # a program that this machine need not have
        return "pinned"
    if word in ("MODEL", "A", "B") or (word.endswith(".gguf") and not word.startswith(("hf:", "http"))):
        return str(MODEL)
    return word
