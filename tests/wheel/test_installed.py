"""What a user has who installed the wheel: run by `make test-wheel` from an environment without the checkout."""

import importlib.util
import json
import re
import subprocess
import sys
import time
from importlib.metadata import files, metadata, version
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

import ggufphys
from ggufphys.embedded import MODEL

pytestmark = pytest.mark.wheel

HERE = Path(__file__).parents[2]
ROOMS = ("ggufphys", "refengine", "server", "bench")
BENCHES = ("calibrate", "speed", "quality", "hypotheses", "compare", "report")  # `load` is about its own packages
SNIPPET = re.compile(r"^```python\n(import ggufphys\n.*?)^```$", re.DOTALL | re.MULTILINE)


def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The console script's module, as installed, from another folder."""
    command = [sys.executable, "-m", "ggufphys", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=60)


def test_the_checkout_is_not_what_is_tested() -> None:
    """All four packages come from the environment's own site-packages."""
    for room in ROOMS:
        spec = importlib.util.find_spec(room)
        assert spec is not None
        assert spec.origin is not None
        assert Path(spec.origin).is_relative_to(sys.prefix), spec.origin


def test_contents() -> None:
    """The wheel has each package with its py.typed, the embedded model and the licence, and nothing else at the top."""
    names = [str(path) for path in files("ggufphys") or ()]

    assert {f"{room}/py.typed" for room in ROOMS} <= set(names)
    assert "ggufphys/embedded/stdlib-6m-f16.gguf" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    tops = {name.split("/")[0] for name in names if not name.startswith("..")}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(ROOMS)


def test_version() -> None:
    """The distribution's version is the package's, and the one that the command prints."""
    assert version("ggufphys") == ggufphys.__version__
    assert metadata("ggufphys")["License-Expression"] == "MIT"
    assert run("--version", cwd=Path(sys.prefix)).stdout.strip() == f"ggufphys {ggufphys.__version__}"


def test_inspect(tmp_path: Path) -> None:
    """The installed command predicts the installed model."""
    done = run("inspect", "--json", MODEL, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["memory"]["basis"]["compute"] == "exact"


def test_missing_packages(tmp_path: Path) -> None:
    """A subcommand whose packages are not there names the extra that has them, with exit code 2 and no traceback."""
    if importlib.util.find_spec("flask"):
        pytest.skip("this environment has the extra")
    of_all = "pip install '.[all]' in a clone, or 'WHEEL[all]'"
    for words, advice in (
        (("serve", MODEL), f"{of_all}; the extra 'serve' is enough for --engine numpy"),
        (("serve", MODEL, "--engine", "numpy"), "pip install '.[serve]' in a clone, or 'WHEEL[serve]'"),
        (("measure", MODEL), of_all),
        (("demo",), of_all),
    ):
        done = run(*words, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, ""), words
        assert done.stderr.endswith(f"{advice}\n"), words
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["measure", "demo", "verify", "doctor", *(f"bench {name}" for name in BENCHES)])
def test_help_needs_no_extra(command: str, tmp_path: Path) -> None:
    """Whether a subcommand is worth its packages can be read before they are installed."""
    done = run(*command.split(), "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: ggufphys {command}")


def wait_until_ready(url: str) -> None:
    """Return once the model is loaded."""
    for _ in range(600):
        try:
            with urlopen(f"{url}/health", timeout=60):
                return
        except HTTPError:  # 503 while it loads
            time.sleep(0.1)
    pytest.fail("the server did not become ready")


def test_numpy_server(tmp_path: Path) -> None:
    """With the extra `serve` the numpy engine answers over HTTP, and llama-cpp-python is not needed for it."""
    if not importlib.util.find_spec("flask"):
        pytest.skip("this environment lacks the extra: make test-wheel EXTRA=serve")
    command = [
        sys.executable,
        "-m",
        "ggufphys",
        "serve",
        str(MODEL),
        "--engine",
        "numpy",
        "--port",
        "0",
        "--json",
        "-c",
        "128",
    ]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = json.loads(server.stdout.readline())["url"]
            wait_until_ready(url)
            body = json.dumps({"prompt": "import", "max_tokens": 2}).encode()
            request = Request(f"{url}/v1/completions", body, {"Content-Type": "application/json"})
            with urlopen(request, timeout=60) as answer:
                assert json.loads(answer.read())["usage"]["completion_tokens"] == 2
        finally:
            server.terminate()
            server.communicate(timeout=60)


@pytest.mark.parametrize("shape", ["server.py", "server/__init__.py"])
def test_shadowed_package(tmp_path: Path, shape: str) -> None:
    """Another `server` in front of ours is named with its path, instead of a module that is missing in it."""
    (tmp_path / shape).parent.mkdir(exist_ok=True)
    (tmp_path / shape).write_text("")
    done = run("serve", MODEL, cwd=tmp_path)

    assert done.returncode == 2
    assert "'server' is something else here" in done.stderr
    assert str(tmp_path / shape) in done.stderr


def snippet() -> str:
    """README's example of the Python API."""
    (text,) = SNIPPET.findall((HERE / "README.md").read_text())
    return str(text)


def test_snippet_runs(tmp_path: Path) -> None:
    """README's example runs as it stands, on a model of the name it uses."""
    (tmp_path / "model.gguf").symlink_to(MODEL)
    done = subprocess.run(
        [sys.executable, "-c", snippet()], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode == 0, done.stderr
    assert "exact" in done.stdout


def test_snippet_is_typed(tmp_path: Path) -> None:
    """`mypy --strict` on README's example finds the installed packages typed, and nothing wrong with it."""
    (tmp_path / "snippet.py").write_text(snippet())
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "snippet.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)

    assert done.returncode == 0, done.stdout
    (tmp_path / "snippet.py").write_text(snippet() + "prediction.model_bytes + 'MiB'\n")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert "Unsupported operand types" in done.stdout  # it does look
