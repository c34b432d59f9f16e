"""Clients of OpenAI's API and of llama-server, unchanged, against this server: `make test-slow`, with a network.

They are installed into an environment of their own, in the versions of `clients/requirements.txt`, unless one that has
them is named: GGUFPHYS_CLIENTS=venv/bin/python. What they need of a model is one that follows instructions, so the
model is named: GGUFPHYS_CHAT_MODEL=smollm2-135m-instruct.gguf.
"""

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from ggufphys.params import Params
from server.app import create_app
from server.config import ServerConfig
from server.engine.protocol import EngineStatus
from server.engine.supervised import SupervisedEngine
from server.http import HttpServer

HERE = Path(__file__).with_name("clients")
OPENAI_JS = "openai@6.49.0"
MODEL = os.environ.get("GGUFPHYS_CHAT_MODEL", "")
CLIENTS = os.environ.get("GGUFPHYS_CLIENTS", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not MODEL, reason="GGUFPHYS_CHAT_MODEL names no model that follows instructions"),
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server of the model."""
    engine = SupervisedEngine(Path(MODEL), Params(n_ctx=8192, n_seq_max=4, kv_unified=True, n_outputs_max=4))
    assert engine.wait_until_settled(300) is EngineStatus.READY, engine.error
    with HttpServer(
        create_app(ServerConfig(), engine), host="127.0.0.1", port=0, max_streams=16, max_body_bytes=1 << 24
    ) as http:
        yield http.url
    engine.close()


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the pinned clients."""
    if CLIENTS:
        return Path(CLIENTS)
    where = tmp_path_factory.mktemp("clients") / "venv"
    venv.create(where, with_pip=True)
    found = where / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    subprocess.run([found, "-m", "pip", "install", "-q", "-r", HERE / "requirements.txt"], check=True, timeout=1800)
    return found


@pytest.mark.parametrize("script", sorted(path.name for path in HERE.glob("use_*.py")))
def test_client(url: str, python: Path, script: str) -> None:
    """Each script uses a client as its documentation says, and what comes back is what it asked for."""
    done = subprocess.run([python, HERE / script, url], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


@pytest.mark.skipif(shutil.which("npm") is None, reason="there is no npm here")
def test_openai_for_javascript(url: str, tmp_path: Path) -> None:
    """The same of the JavaScript client."""
    script = Path(shutil.copy(HERE / "use_openai.mjs", tmp_path))
    npm, node = shutil.which("npm"), shutil.which("node")
    assert npm is not None
    assert node is not None
    subprocess.run([npm, "install", "--silent", OPENAI_JS], cwd=tmp_path, check=True, timeout=600)
    done = subprocess.run([node, script, url], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
