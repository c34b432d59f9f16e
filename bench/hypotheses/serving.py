"""How long do answers take when several ask at once? Our server, and `bench load` against it, each in a process."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Any, Final

from ggufphys.errors import GGUFPhysError
from ggufphys.machine.children import environment, module_command

START_S: Final = 60.0
REQUESTS_EACH: Final = 4


class ServingError(GGUFPhysError):
    """The server did not come up, or the load did not go through; the message says what was said."""


@contextmanager
def served(model: Path, *, n_ctx: int, n_slots: int) -> Iterator[str]:
    """The address of a server of the model, which ends with the block.

    Raises:
        ServingError: it does not come up.
    """
    command = module_command(
        "ggufphys", "serve", str(model), "--port", "0", "--json", "-c", str(n_ctx), "-np", str(n_slots)
    )
    with subprocess.Popen(command, env=environment(), stdout=PIPE, stderr=PIPE, text=True) as child:
        late = threading.Timer(START_S, child.kill)
        late.start()
        try:
            yield _address(child)
        finally:
            late.cancel()
            child.terminate()
            child.communicate()


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


def answer_seconds(model: Path, levels: Sequence[int], n_prompt: int, n_predict: int) -> list[dict[str, Any]]:
    """Of each number of users at once, seconds to an answer's end: `p50`, `p95`, `p99`.

    Raises:
        ServingError: a request failed, or nothing came.
    """
    slots = max(levels)
    with served(model, n_ctx=slots * 2 * (n_prompt + n_predict), n_slots=slots) as url:
        command = [
            sys.executable, "-m", "ggufphys", "bench", "load", url, "--json", "-c", ",".join(map(str, levels)),
            "-n", str(REQUESTS_EACH * slots), "-p", str(n_prompt), "-g", str(n_predict),
            "--endpoint", "completions", "--extra", '{"ignore_eos": true}',
        ]  # fmt: skip
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServingError(f"bench load ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return [level["e2e_s"] for level in json.loads(done.stdout)["levels"]]
