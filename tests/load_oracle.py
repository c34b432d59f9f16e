"""Does llama.cpp load a file and make a context of it? Its own answer, for tests to compare verdicts with.

`python tests/load_oracle.py` reads a path a line and answers each in a process of its own, forked with the library
loaded, since some files end it: one JSON object a line. Nothing is allocated and no weight read (`no_alloc`), so a
sparse file will do.
"""

import json
import os
import resource
import select
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.asked_child import AskedChild

N_CTX = 512
SECONDS = 20
LOADED = b"\0"
MEMORY_BYTES = 16 << 30


@dataclass(frozen=True, slots=True)
class Answer:
    """`outcome` is accepted, refused, ends (the process) or slow; `says` llama.cpp's last words.

    `loads`: there is a model, whatever becomes of its context.
    """

    outcome: str
    says: str
    loads: bool

    @property
    def accepted(self) -> bool:
        """Is there a context?"""
        return self.outcome == "accepted"


class LoadOracle(AskedChild):
    """A child with llama.cpp in it; closes with the block."""

    script = __file__

    def ask(self, path: Path) -> Answer:
        """What llama.cpp makes of the file."""
        return Answer(**json.loads(self.answer(str(path))))


def told_api() -> tuple[Any, list[str], object]:
    """llama.cpp, the errors that it will say, and what must live for as long."""
    from ggufphys.machine import llama_env

    llama_env.prepare()
    import llama_cpp as api

    said: list[str] = []

    @api.llama_log_callback  # type: ignore[untyped-decorator]
    def keep(level: int, text: bytes, user_data: object) -> None:
        if level == 4:  # GGML_LOG_LEVEL_ERROR
            said.append(text.decode(errors="replace").strip())

    api.llama_log_set(keep, None)
    api.llama_backend_init()
    return api, said, keep


def main() -> None:
    """Answer until there is no more input."""
    api, said, _keep = told_api()
    for line in sys.stdin:
        print(json.dumps(_answer(api, line.rstrip("\n"), said)), flush=True)


def _answer(api: Any, path: str, said: list[str]) -> dict[str, str | bool]:
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.dup2(write, 1)
        os.dup2(write, 2)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        model = _load(api, path)
        os.write(write, LOADED if model else b"")
        accepted = model and _has_context(api, model)
        os.write(write, " | ".join(said[-3:]).encode())
        os._exit(0 if accepted else 1)
    os.close(write)
    says, slow = b"", False
    while not slow:
        ready, _, _ = select.select([read], [], [], SECONDS)
        chunk = os.read(read, 65536) if ready else b""
        slow = not ready
        if not chunk:
            break
        says += chunk
    os.close(read)
    if slow:
        os.kill(pid, 9)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    outcome = "slow" if slow else {0: "accepted", 1: "refused"}.get(status, "ends")
    loads = says.startswith(LOADED)
    says = says.removeprefix(LOADED)
    return {"outcome": outcome, "says": says.decode(errors="replace")[-400:].strip(), "loads": loads}


def _load(api: Any, path: str) -> Any:
    params = api.llama_model_default_params()
    params.no_alloc, params.load_mode, params.use_extra_bufts = True, 0, False
    return api.llama_model_load_from_file(path.encode(), params)


def _has_context(api: Any, model: Any) -> bool:
    native = api.llama_context_default_params()
    native.n_ctx = N_CTX
    return bool(api.llama_init_from_model(model, native))


if __name__ == "__main__":
    main()
