"""How long do answers take when several ask at once? `bench load` against our server, each in a process."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench.running.served import ServingError, served
from ggufphys.machine.children import environment

REQUESTS_EACH: Final = 4
ENOUGH_S: Final = 20  # after so long no more are sent: of a slow model fewer answers have to do


def load_levels(
    model: Path, levels: Sequence[int], n_prompt: int, n_predict: int, *, flags: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """What `bench load --json` says of each number of users at once: `tok_per_s`, `e2e_s`, ...; `flags` go to `serve`.

    Raises:
        ServingError: a request failed, or nothing came.
    """
    slots = max(levels)
    with served(model, "-c", str(slots * 2 * (n_prompt + n_predict)), "-np", str(slots), *flags) as url:
        command = [
            sys.executable, "-m", "ggufphys", "bench", "load", url, "--json", "-c", ",".join(map(str, levels)),
            "-n", str(REQUESTS_EACH * slots), "--duration", str(ENOUGH_S), "-p", str(n_prompt), "-g", str(n_predict),
            "--endpoint", "completions", "--extra", '{"ignore_eos": true}',
        ]  # fmt: skip
        done = subprocess.run(
            command, env=environment(), capture_output=True, encoding="utf-8", errors="replace", check=False
        )
    if done.returncode:
        raise ServingError(f"bench load ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return list(json.loads(done.stdout)["levels"])
