"""What does it cost to hand an answer out, by endpoint, streamed and whole? This checkout's server beside another's.

`python -m bench.serve_ways MODEL --against CHECKOUT [-c 1] [--rounds 3] [--turns 5] [--only whole] [--json]`

Both servers start anew in each round, and answer in turn, a request of each client's at a time. Tokens a second, and
processor time a token of the process that serves HTTP, by what the kernel counts (/proc/PID/task/*/schedstat): medians
of a round's turns, and of the rounds. Linux.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.running.against import HERE, compile_code
from bench.running.program import existing_checkout, existing_file, numbers, run_program
from bench.serve_compare.http import GREEDY, send, words, words_per_token
from bench.serve_compare.servers import Server, running
from bench.serve_profile import threads

N_PROMPT: Final = 32
N_CTX_SLOT: Final = 512
PATHS: Final = {
    "completions": "/v1/completions",
    "chat": "/v1/chat/completions",
    "completion": "/completion",
    "messages": "/v1/messages",
    "responses": "/v1/responses",
}
WAYS: Final = [f"{name}, {how}" for how in ("whole", "streamed") for name in PATHS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one way in one server, in one round or turn."""

    way: str
    clients: int
    tok_per_s: float
    http_ms: float  # of processor time, a token


def body_of(name: str, prompt: str, n_predict: int, *, stream: bool) -> dict[str, Any]:
    """What an endpoint is asked for so many tokens."""
    asked: dict[str, Any] = {**GREEDY, "stream": stream}
    if name in ("completions", "completion"):
        return {**asked, "prompt": prompt, "max_tokens": n_predict}
    if name == "responses":
        return {**asked, "input": prompt, "max_output_tokens": n_predict}
    return {**asked, "messages": [{"role": "user", "content": prompt}], "max_tokens": n_predict}


def one_turn(server: Server, way: str, n_clients: int, n_predict: int, seed: str) -> Cost:
    """A request of each client's. Raises RuntimeError when one fails."""
    name, _, how = way.partition(", ")
    per_token = words_per_token(server.url)
    bodies = [
        body_of(name, words(f"{seed}, {i}", N_PROMPT, per_token), n_predict, stream=how == "streamed")
        for i in range(n_clients)
    ]

    def ask(body: dict[str, Any]) -> None:
        answer = send(server.url, PATHS[name], body)
        if answer.status != 200 or b'"error":{' in answer.body:
            raise RuntimeError(f"{server.name}, {way}: {answer.status}, {answer.body[-200:]!r}")

    before, began = threads(server), time.perf_counter()
    with ThreadPoolExecutor(n_clients) as pool:
        list(pool.map(ask, bodies))
    seconds = time.perf_counter() - began
    ran_s = sum(
        ran.ran_s - (before[which].ran_s if which in before else 0.0)
        for which, ran in threads(server).items()
        if not which[0].startswith("worker")
    )
    n = n_clients * n_predict
    return Cost(way=way, clients=n_clients, tok_per_s=n / seconds, http_ms=ran_s / n * 1e3)


def costs(checkouts: Sequence[Path], ways: Sequence[str], args: argparse.Namespace) -> Iterator[list[list[Cost]]]:
    """Of each way, with so many clients, and each round: of the checkouts' servers.

    Both start anew in each round, since a process keeps the pages that it got, and some are faster than others.
    """
    found: dict[tuple[int, str], list[list[Cost]]] = {(n, way): [] for n in args.clients for way in ways}
    for number in range(args.rounds):
        order = list(enumerate(checkouts))[:: 1 if number % 2 == 0 else -1]
        with ExitStack() as stack:
            servers: dict[int, Server] = {}
            for at, checkout in order:
                command, url = serving(checkout, args, args.port + at), f"http://127.0.0.1:{args.port + at}"
                name = f"checkout {at + 1}"
                servers[at] = stack.enter_context(running(name, command, url))
                one_turn(servers[at], ways[0], 2, 16, "before")
            for (n_clients, way), rounds in found.items():
                turns = [
                    {at: one_turn(server, way, n_clients, args.predict, f"{way}, {number}, {turn}")
                     for at, server in servers.items()}
                    for turn in range(args.turns)
                ]  # fmt: skip
                rounds.append([middle([of[at] for of in turns]) for at in range(len(checkouts))])
    yield from found.values()


def middle(of: Sequence[Cost]) -> Cost:
    """The medians of some turns."""
    speed, http_ms = median(each.tok_per_s for each in of), median(each.http_ms for each in of)
    return replace(of[0], tok_per_s=speed, http_ms=http_ms)


def serving(checkout: Path, args: argparse.Namespace, port: int) -> list[str]:
    """The command of a checkout's server, with this interpreter and its packages."""
    n = max(args.clients)
    flags = ["-c", str(n * N_CTX_SLOT), "-np", str(n), "-t", str(args.threads), "--port", str(port)]
    command = [sys.executable, "-P", "-m", "ggufphys", "serve", str(args.model), "--host", "127.0.0.1", *flags]
    return ["env", f"PYTHONPATH={checkout.absolute()}", *command]


def line_of(rounds: Sequence[Sequence[Cost]]) -> str:
    """A way's figures: medians, and that of the rounds' ratios between the least and the greatest of them."""
    line = f"{rounds[0][0].way:22} {rounds[0][0].clients} at once:"
    for at, name in enumerate(("", "; the other checkout")[: len(rounds[0])]):
        speed, http_ms = (median(getattr(of[at], what) for of in rounds) for what in ("tok_per_s", "http_ms"))
        line += f"{name} {speed:7.1f} tokens/s, HTTP {http_ms:.3f} ms a token"
    if len(rounds[0]) > 1:
        ratios = [ours.tok_per_s / other.tok_per_s for ours, other in rounds]
        line += f"; ratio {median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    return line


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.serve_ways", description=__doc__)
    add = parser.add_argument
    add("model", type=existing_file, metavar="MODEL")
    add(
        "--against",
        type=existing_checkout,
        metavar="CHECKOUT",
        help="another checkout, whose server is beside this one's",
    )
    add("-c", "--clients", type=numbers, default=[1], metavar="N,N", help="at once (default 1)")
    add("--rounds", type=int, default=3)
    add("--turns", type=int, default=5, help="a round (default 5)")
    add("--predict", type=int, default=128, help="tokens of an answer (default 128)")
    add("--only", default="", metavar="WORDS", help="ways whose name has this, such as whole, or 'chat, whole'")
    add("--threads", type=int, default=os.cpu_count() or 1)
    add("--port", type=int, default=18094)
    add("--json", action="store_true")
    args = parser.parse_args(argv)
    ways = [way for way in WAYS if args.only in way]
    if not ways:
        parser.error(f"--only {args.only}: expected a part of one of {'; '.join(WAYS)}")
    checkouts = [HERE, *([args.against] if args.against else [])]
    for checkout in checkouts:
        compile_code(checkout)
    for rounds in costs(checkouts, ways, args):
        found = [[vars_of(cost) for cost in of] for of in rounds]
        print(json.dumps(found) if args.json else line_of(rounds), flush=True)
    return 0


def vars_of(cost: Cost) -> dict[str, Any]:
    """The cost's fields, as JSON has them."""
    return {name: getattr(cost, name) for name in Cost.__slots__}


if __name__ == "__main__":
    run_program(main)
