"""How is a model reached over HTTP by what measures it? Our server in a process of its own, for as long as a block."""

import json
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Final

from ggufphys.errors import GGUFPhysError
from ggufphys.machine.children import environment, module_command

START_S: Final = 60.0


class ServingError(GGUFPhysError):
    """The server did not come up, or a request to it did not go through; the message says what was said."""


@contextmanager
def served(model: Path, *flags: str) -> Iterator[str]:
    """The address of a server of the model, started with llama-server's flags; it ends with the block.

    Raises:
        ServingError: it does not come up.
    """
    command = module_command("ggufphys", "serve", str(model), "--port", "0", "--json", *flags)
    with subprocess.Popen(
        command, env=environment(), stdout=PIPE, stderr=PIPE, encoding="utf-8", errors="replace"
    ) as child:
        late = threading.Timer(START_S, child.kill)
        late.start()
        try:
            address = _address(child)
            _wait_until_ready(address)
            late.cancel()
            yield address
        finally:
            late.cancel()
            child.terminate()
            child.communicate()


def _wait_until_ready(address: str) -> None:
    """Ask until the model is loaded; `served` kills a server that takes too long, and then nobody answers."""
    while True:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return
        except urllib.error.HTTPError:  # 503 while it loads
            time.sleep(0.05)
        except OSError as error:
            raise ServingError(f"the server at {address} did not load its model: {error}") from error


def _address(child: "subprocess.Popen[str]") -> str:
    """The address from the one JSON document that `serve --json` prints when it listens."""
    assert child.stdout is not None
    text = ""
    for line in child.stdout:
        text += line
        try:
            return str(json.loads(text)["url"])
        except ValueError:
            continue
    _, said = child.communicate()
    raise ServingError(f"the server did not come up: {said.strip()[-500:]}")
