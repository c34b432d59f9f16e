"""Clients of OpenAI's API and of llama-server, unchanged, against this server: `make test-slow`, with a network.

They are installed into two environments of their own, in the versions of `clients/requirements.txt` and
`requirements_newer.txt`, unless one that has all is named: GGUFPHYS_CLIENTS=venv/bin/python. They need a model that
follows instructions, so it is named: GGUFPHYS_CHAT_MODEL=smollm2-135m-instruct.gguf.
"""

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import refengine
from ggufphys.params import Params
from server.app import create_app
from server.config import ServerConfig
from server.engine.protocol import EngineStatus
from server.engine.worker.supervised import SupervisedEngine
from server.net.http import HttpServer
from tests.server.scores import scored

HERE = Path(__file__).with_name("clients")
LM_EVAL = "use_lm_eval.py"
CLOSE = 1e-3
SHARED = Params(n_ctx=8192, n_seq_max=4, kv_unified=True, n_outputs_max=4)
NEWER = ("use_openai.py", "use_openai_agents.py", "use_outlines.py", "use_smolagents.py", "use_haystack.py")
OLDER = sorted({path.name for path in HERE.glob("use_*.py")} - {LM_EVAL, *NEWER[1:]})
JAVASCRIPT = {
    "use_openai.mjs": ("openai@7.59.0",),
    "use_anthropic.mjs": ("@anthropic-ai/sdk@1.14.0",),
    "use_ai_sdk.mjs": ("ai@7.0.173", "@ai-sdk/openai-compatible@3.0.92"),
}
MODEL = os.environ.get("GGUFPHYS_CHAT_MODEL", "")
CLIENTS = os.environ.get("GGUFPHYS_CLIENTS", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not MODEL, reason="GGUFPHYS_CHAT_MODEL names no model that follows instructions"),
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server of the model."""
    with serving(Path(MODEL), SHARED) as found:
        yield found


@contextmanager
def serving(path: Path, params: Params) -> Iterator[str]:
    """The address of a server of a model."""
    engine = SupervisedEngine(path, params)
    try:
        assert engine.wait_until_settled(300) is EngineStatus.READY, engine.error
        with HttpServer(
            create_app(ServerConfig(), engine), host="127.0.0.1", port=0, max_streams=16, max_body_bytes=1 << 24
        ) as http:
            yield http.url
    finally:
        engine.close()


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the pinned clients."""
    return installed(tmp_path_factory, "requirements.txt")


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with those that want a newer openai."""
    return installed(tmp_path_factory, "requirements_newer.txt")


def installed(tmp_path_factory: pytest.TempPathFactory, requirements: str) -> Path:
    """The interpreter of an environment with these requirements."""
    if CLIENTS:
        return Path(CLIENTS)
    where = tmp_path_factory.mktemp("clients") / "venv"
    venv.create(where, with_pip=True)
    found = where / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    subprocess.run([found, "-m", "pip", "install", "-q", "-r", HERE / requirements], check=True, timeout=1800)
    return found


@pytest.mark.parametrize("script", OLDER)
def test_client(url: str, python: Path, script: str) -> None:
    """Each script uses a client as its documentation says, and what comes back is what it asked for."""
    use(python, script, url)


@pytest.mark.parametrize("script", NEWER)
def test_newer_client(url: str, newer: Path, script: str) -> None:
    """So do those beside a newer openai."""
    use(newer, script, url)


def test_lm_eval(python: Path, tmp_path: Path) -> None:
    """lm-eval's log-likelihoods of the model with F32 weights are the reference engine's within 1e-3, greedy as there.

    With others llama.cpp rounds activations too, by kernels that depend on the batch: no two runs are so close.
    """
    model, found = tmp_path / "f32.gguf", tmp_path / "scored.json"
    write_f32(Path(MODEL), model)
    params = Params(n_ctx=2048, n_seq_max=4, n_outputs_max=64, type_k="f32", type_v="f32", flash_attn="off")
    with serving(model, params) as url:
        use(python, LM_EVAL, url, str(found))
    reference = refengine.load(model, type_k="f32", type_v="f32", flash_attn=False, n_ctx=512)
    scores = json.loads(found.read_text())
    assert scores
    for begin, ending, total, is_greedy in scores:
        blank = begin[len(begin.rstrip()) :]  # lm-eval counts it to the ending
        n_context = len(reference.tokenize(begin.removesuffix(blank)))
        expected, is_likeliest = scored(reference, reference.tokenize(begin + ending), n_context)
        assert abs(total - expected) < CLOSE, (begin, ending)
        assert bool(is_greedy) == is_likeliest, (begin, ending)


def use(python: Path, script: str, *arguments: str) -> None:
    """Run a script of `clients/`, which must not fail."""
    done = subprocess.run([python, HERE / script, *arguments], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def write_f32(source: Path, target: Path) -> None:
    """The model with its weights dequantised, by llama.cpp."""
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize = llama_cpp.LLAMA_FTYPE_ALL_F32, True
    assert llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), params) == 0


@pytest.mark.skipif(shutil.which("npm") is None, reason="there is no npm here")
@pytest.mark.parametrize("name", JAVASCRIPT)
def test_client_of_javascript(url: str, tmp_path: Path, name: str) -> None:
    """The same of JavaScript's clients."""
    script = Path(shutil.copy(HERE / name, tmp_path))
    npm, node = shutil.which("npm"), shutil.which("node")
    assert npm is not None
    assert node is not None
    subprocess.run([npm, "install", "--silent", *JAVASCRIPT[name]], cwd=tmp_path, check=True, timeout=600)
    done = subprocess.run([node, script, url], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
