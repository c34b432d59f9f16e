"""`ggufphys demo`: inspect, predict, measure, verify and serve the embedded model, and say whether every step held."""

import argparse
import contextlib
import io
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

from bench.derive import derived
from ggufphys.builds.asked import installed_build
from ggufphys.cli import main as ggufphys
from ggufphys.embedded import MODEL
from ggufphys.errors import GGUFPhysError
from ggufphys.report.inspection import SCHEMA_VERSION, dumps
from server.engine.llama.library import require_library

FILE_TYPE: Final = "Q4_K_M"
N_CTX: Final = "1024"
PROMPT: Final = "def read_lines(path):"
START_TIMEOUT_S: Final = 30.0
SIGNALLED: Final = 128  # more than this: what ended a subcommand, as `ggufphys.cli.interrupted` has it


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """How one step went."""

    name: str
    held: bool
    seconds: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--json."""
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def run(args: argparse.Namespace) -> int:
    """Run all steps, also behind one that failed; exit 0 only if every one held."""
    require_library()
    steps = [_run(name, title, step, quiet=args.json) for name, title, step in STEPS]
    if args.json:
        print(dumps({"schema_version": SCHEMA_VERSION, "steps": [asdict(s) for s in steps], "ok": _all(steps)}))
    else:
        print("\n" + "\n".join(f"{'held' if s.held else 'FAILED':7}{s.name:10}{s.seconds:6.1f} s" for s in steps))
    return 0 if _all(steps) else 1


def _all(steps: list[Step]) -> bool:
    return all(step.held for step in steps)


def _run(name: str, title: str, step: Callable[[], bool], *, quiet: bool) -> Step:
    started = time.monotonic()
    with contextlib.redirect_stdout(io.StringIO()) if quiet else contextlib.nullcontext():
        print(f"\n== {title}\n", flush=True)
        try:
            held = step()
        except (GGUFPhysError, OSError, ValueError, subprocess.SubprocessError) as error:
            print(f"ggufphys: error: {error}", file=sys.stderr)
            held = False
    return Step(name=name, held=held, seconds=time.monotonic() - started)


def _command(*arguments: object) -> bool:
    """Run a subcommand as a user would, showing its command line first."""
    words = [str(a) for a in arguments]
    print("$ ggufphys " + " ".join(words) + "\n", flush=True)
    code = ggufphys(words)
    print(flush=True)
    if code > SIGNALLED:
        raise SystemExit(code)  # Ctrl-C is the demo's as well, and has been told
    return code == 0


def _inspect() -> bool:
    """For the llama.cpp that is measured next, so that both have the same figures."""
    return _command("inspect", MODEL, "-c", N_CTX, "--llama-build", f"b{installed_build()}")


def _derive() -> bool:
    path = derived(FILE_TYPE)
    print(f"{MODEL.name}: {MODEL.stat().st_size:,} bytes\n{path.name}: {path.stat().st_size:,} bytes")
    return path.is_file()


def _measure() -> bool:
    return all([_command("measure", path, "-c", N_CTX, "--check") for path in (MODEL, derived(FILE_TYPE))])


def _verify() -> bool:
    return all([_command("verify", derived(FILE_TYPE)), _command("verify", MODEL, "--logits")])


def _serve() -> bool:
    """Start a server on a free port, complete a prompt over HTTP, and end it as a service manager would."""
    command = [sys.executable, "-m", "ggufphys", "serve", str(derived(FILE_TYPE)), "--port", "0", "--json", "-c", N_CTX]
    print("$ " + " ".join(["ggufphys", *command[3:]]), flush=True)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", errors="replace"
    ) as server:
        try:
            assert server.stdout is not None
            url = _url(server.stdout.read, server)
            _wait_until_ready(url)
            body = {"prompt": PROMPT, "max_tokens": 64, "temperature": 0.5, "repeat_penalty": 1.1, "seed": 1}
            print(f"\n$ curl {url}/v1/completions -d '{json.dumps(body)}'\n", flush=True)
            answer = _post(f"{url}/v1/completions", body)
        finally:
            server.terminate()
            code = server.wait(timeout=START_TIMEOUT_S)
    text = answer["choices"][0]["text"]
    print(PROMPT + text)
    print(f"\nusage: {json.dumps(answer['usage'])}; the server ended with {code}")
    return bool(text.strip()) and answer["usage"]["completion_tokens"] > 0 and code == 0


def _url(read: Callable[[int], str], server: "subprocess.Popen[str]") -> str:
    """The address from the one JSON document that `serve --json` prints."""
    text = ""
    while server.poll() is None:
        text += read(1)
        with contextlib.suppress(ValueError):
            return str(json.loads(text)["url"])
    stderr = server.stderr.read().strip() if server.stderr is not None else ""
    raise GGUFPhysError(f"the server ended with {server.returncode}: {stderr}")


def _wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except OSError:  # 503 while the model loads
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


STEPS: Final[tuple[tuple[str, str, Callable[[], bool]], ...]] = (
    ("inspect", "inspect: what is in the file, and what will it cost?", _inspect),
    ("derive", f"derive: the same model as {FILE_TYPE}, by llama.cpp's quantiser", _derive),
    ("measure", "measure: was the prediction right?", _measure),
    ("verify", "verify: do our numbers equal ggml's, bit for bit?", _verify),
    ("serve", "serve: a completion over HTTP", _serve),
)
