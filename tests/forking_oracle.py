"""llama.cpp's own bytes for many files, one configuration after the other, whatever ends the process.

`python tests/forking_oracle.py` reads a question a line and answers each in a process of its own, forked with the
library loaded, so that one that aborts costs milliseconds. `tests/oracle.py` says what is asked of llama.cpp.
"""

import json
import os
import resource
import select
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ggufphys.params import Params
from tests.asked_child import AskedChild

SECONDS = 30
MEMORY_BYTES = 24 << 30


class ForkingOracle(AskedChild):
    """A child with llama.cpp in it; closes with the block."""

    script = __file__

    def ask(self, path: Path, params: Params, loras: Sequence[Path] = ()) -> dict[str, Any]:
        """Bytes by quantity, and `by_buffer`; {"error": ...} where it refuses, {"aborts": ...} where it ends.

        With LoRA adapters, bytes of their `buffers` and of the `compute` buffer, once a token was decoded.
        """
        question = [os.fspath(path), asdict(params), [os.fspath(lora) for lora in loras]]
        answer: dict[str, Any] = json.loads(self.answer(json.dumps(question)))
        return answer


def main() -> None:
    """Answer until there is no more input."""
    from tests.load_oracle import told_api

    api, said, _keep = told_api()
    for line in sys.stdin:
        path, params, loras = json.loads(line)
        print(json.dumps(_answer(api, path, Params.from_json(params), loras, said)), flush=True)


def _answer(api: Any, path: str, params: Params, loras: list[str], said: list[str]) -> dict[str, Any]:
    from tests.attachment_oracle import adapters_in
    from tests.oracle import Oracle

    read, write = os.pipe()
    read_error, write_error = os.pipe()
    pid = os.fork()
    if not pid:
        os.dup2(write_error, 2)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if loras:
            result = adapters_in(api, path, params, loras)
        else:
            result = Oracle(api, path, params.no_alloc).breakdown(params)
        os.write(write, json.dumps(result or {"error": said[-3:]}).encode())
        os._exit(0)
    os.close(write)
    os.close(write_error)
    answer, slow = _read(read), False
    if answer is None:
        slow, answer = True, b""
        os.kill(pid, 9)
    words = _read(read_error) or b""
    os.close(read)
    os.close(read_error)
    os.waitpid(pid, 0)
    if answer:
        said_by_child: dict[str, Any] = json.loads(answer)
        return said_by_child
    return {"aborts": "slow" if slow else words.decode(errors="replace")[-400:].strip()}


def _read(descriptor: int) -> bytes | None:
    """Everything that comes; None where nothing does for too long."""
    found = b""
    while select.select([descriptor], [], [], SECONDS)[0]:
        chunk = os.read(descriptor, 65536)
        if not chunk:
            return found
        found += chunk
    return None


if __name__ == "__main__":
    main()
