"""Is our server as fast as llama-server, side by side on one machine?

`python -m bench.serve_compare MODEL --against BINARY-or-URL [-c 1,8,32] [--rounds 3] [--intruder 3000] [--json]`

Both serve the model with the same context, slots and threads, each with its own best settings otherwise; rounds are
interleaved, every prompt is distinct, figures are medians over the rounds. `--against` is a llama-server binary, which
is started here, or the address of any OpenAI-compatible server that runs already. Load and waiting policy are printed,
since they move the ratios most. `--intruder N`: eight readers, then a prompt of N tokens arrives; the p95 of their
gaps. Exit code 1 when `--fail-below R` is given and some ratio of tokens a second is less.
"""

import argparse
import http.client
import itertools
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from ggufphys.machine.children import module_command

START_S: Final = 300.0
N_READERS: Final = 8
FIGURES: Final = {"tok_per_s": ("tok_per_s",), "ttft_p50_s": ("ttft_s", "p50"), "ttft_p95_s": ("ttft_s", "p95")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure of both servers; `ratio` is ours by theirs."""

    level: str
    figure: str
    ours: float
    theirs: float

    @property
    def ratio(self) -> float:
        """Ours by theirs."""
        return self.ours / self.theirs if self.theirs else float("nan")


def wait_until_ready(url: str) -> None:
    """Wait for /health to be 200. Raises RuntimeError when it takes too long."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"{url} is not ready after {START_S:.0f} s")


@contextmanager
def started(command: Sequence[str], url: str, variables: dict[str, str]) -> Iterator[str]:
    """A server as a child process, ended in the end."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=variables) as process:
        try:
            wait_until_ready(url)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def flags(args: argparse.Namespace) -> list[str]:
    """What both are told."""
    return ["-c", str(args.ctx_size), "-np", str(args.parallel), "-t", str(args.threads), "--host", "127.0.0.1"]


def load_round(url: str, n_clients: int, args: argparse.Namespace) -> dict[str, Any]:
    """One round of `ggufphys bench load` at one level."""
    command = module_command(
        "ggufphys", "bench", "load", url, "-c", str(n_clients), "-n", str(max(2 * n_clients, args.requests)),
        "-p", str(args.prompt), "-g", str(args.predict), "--extra", '{"ignore_eos": true, "temperature": 0}', "--json",
    )  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"bench load on {url}: {done.stderr.strip()}")
    level: dict[str, Any] = json.loads(done.stdout)["levels"][0]
    return level


def figure(level: dict[str, Any], path: Sequence[str]) -> float:
    """A figure of a level."""
    value: Any = level
    for key in path:
        value = value[key]
    return float(value)


def gaps(url: str, prompt: str, n_tokens: int, stamps: list[float]) -> None:
    """Stream an answer and note when pieces come."""
    address = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=600)
    body = {"prompt": prompt, "max_tokens": n_tokens, "stream": True, "temperature": 0, "ignore_eos": True}
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    while line := response.readline():
        if line.startswith(b"data: {"):
            stamps.append(time.perf_counter())
    connection.close()


def intruder_round(url: str, n_tokens: int, seed: int) -> float:
    """Eight readers, then a long prompt: the p95 of the readers' gaps from its arrival on."""
    stamps: list[list[float]] = [[] for _ in range(N_READERS)]
    threads = [
        threading.Thread(target=gaps, args=(url, f"{seed} {i} once upon a time", 160, stamps[i]))
        for i in range(N_READERS)
    ]  # fmt: skip
    for thread in threads:
        thread.start()
    while not all(len(each) > 8 for each in stamps):
        time.sleep(0.01)
    arrived_at = time.perf_counter()
    gaps(url, f"{seed} " + " ".join(f"word{i % 97}" for i in range(n_tokens // 3)), 2, [])
    done_at = time.perf_counter()
    for thread in threads:
        thread.join()
    found = sorted(
        later - earlier
        for each in stamps
        for earlier, later in itertools.pairwise(each)
        if later > arrived_at and earlier < done_at
    )
    return found[int(0.95 * (len(found) - 1))]


def compare(ours: str, theirs: str, args: argparse.Namespace) -> Iterator[Row]:
    """All figures, level by level; a level's rounds are interleaved."""
    for n_clients in args.clients:
        rounds: dict[str, list[dict[str, Any]]] = {ours: [], theirs: []}
        for number in range(args.rounds):
            for url in (ours, theirs) if number % 2 == 0 else (theirs, ours):
                rounds[url].append(load_round(url, n_clients, args))
        for name, path in FIGURES.items():
            of_ours, of_theirs = (median(figure(level, path) for level in rounds[url]) for url in (ours, theirs))
            yield Row(level=f"{n_clients} clients", figure=name, ours=of_ours, theirs=of_theirs)
    if args.intruder:
        found: dict[str, list[float]] = {ours: [], theirs: []}
        for number in range(args.rounds):
            for url in (ours, theirs):
                found[url].append(intruder_round(url, args.intruder, number))
        level = f"{N_READERS} readers, {args.intruder} arrive"
        yield Row(level=level, figure="gap_p95_s", ours=median(found[ours]), theirs=median(found[theirs]))


def main(argv: Sequence[str] | None = None) -> int:
    """Start what is to be started, compare, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.serve_compare", description=__doc__)
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("--against", required=True, metavar="BINARY|URL", help="llama-server, or a server's address")
    parser.add_argument("-c", "--clients", type=lambda t: [int(n) for n in t.split(",")], default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=8, help="a round at least (and two a client)")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of a prompt")
    parser.add_argument("--predict", type=int, default=64, help="tokens of an answer")
    parser.add_argument("--parallel", type=int, default=32, help="slots of both")
    parser.add_argument("--ctx-size", type=int, default=32 * 512)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--port", type=int, default=18080, help="ours; theirs is the next one")
    parser.add_argument("--intruder", type=int, default=0, metavar="N", help="a prompt of N tokens among eight readers")
    parser.add_argument("--fail-below", type=float, metavar="R")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    plain = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    with ExitStack() as stack:
        port = str(args.port)
        command = module_command("ggufphys", "serve", str(args.model), *flags(args), "--port", port)
        ours = stack.enter_context(started(command, f"http://127.0.0.1:{port}", plain))
        if args.against.startswith("http"):
            theirs, policy = args.against.rstrip("/"), "as it was started"
        else:
            port = str(args.port + 1)
            command = [args.against, "-m", str(args.model), *flags(args), "--port", port]
            policy = "OMP_WAIT_POLICY unset, libgomp's default"
            theirs = stack.enter_context(started(command, f"http://127.0.0.1:{port}", plain))
        rows = list(compare(ours, theirs, args))
    if args.json:
        document = {
            "schema_version": 1, "load": load, "ours_waits": "switched by measurement", "theirs_waits": policy,
            "rows": [asdict(row) | {"ratio": row.ratio} for row in rows],
        }  # fmt: skip
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        sys.stdout.write(f"load {load:.1f} before; waiting: ours switched by measurement, theirs {policy}\n")
        for row in rows:
            sys.stdout.write(f"{row.level:28} {row.figure:12} {row.ours:10.3f} {row.theirs:10.3f} {row.ratio:7.2f}\n")
    slow = [row for row in rows if row.figure == "tok_per_s" and row.ratio < (args.fail_below or 0)]
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
