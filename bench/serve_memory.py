"""Is what the server holds under load what was predicted? Its own ledger, before and behind so many requests.

`python -m bench.serve_memory [MODEL] [--requests 2000] [--clients 16] [--idle 0] [--drawn] [--check]`. Ours alone is
started, with a slot for each client (16 at most), and asked short requests, half of them streamed, by so many clients
at a time. `--idle`: so many connections stay open beside. `--drawn`: tokens are drawn, not the likeliest. Exit code 1
with `--check` when what is unexplained in the end is more than 3 % of what is expected, or resident memory over 1.02
times that behind 100 requests.
"""

import argparse
import itertools
import os
import socket
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from bench.running.program import existing_file, run_program
from bench.serve_compare.http import completion, send, words, words_per_token
from bench.serve_compare.servers import Pair, Server
from ggufphys.embedded import MODEL
from ggufphys.report.inspection import table

Json = dict[str, Any]
SLOTS_MAX: Final = 16
N_CTX_SLOT: Final = 256
SHARE_MAX: Final = 0.03
RSS_MAX: Final = 1.02
N_FIRST: Final = 100
MIB: Final = 1 << 20
HEADER: Final = ("requests", "server", "worker", "all", "expected", "of it by load", "unexplained", "%")


def ledger(server: Server) -> Json:
    """What the server says of its memory."""
    return send(server.url, "/v1/memory").document


def cells(label: str, memory: Json) -> tuple[str, ...]:
    """A row of the table, MiB."""
    measured, rest = memory["measured"], memory["unexplained"]
    by_role = {role: sum(parts.values()) for role, parts in measured["processes"].items()}
    expected = measured["resident_bytes"] - rest["resident_bytes"]
    figures = (
        by_role["server"], by_role.get("worker", 0), measured["resident_bytes"], expected, rest["grown_bytes"],
        rest["resident_bytes"],
    )  # fmt: skip
    return (label, *(f"{n / MIB:,.1f}" for n in figures), f"{100 * rest['share']:+.2f}")


def connected(server: Server, n: int, stack: ExitStack) -> None:
    """Open so many connections that have had an answer, and leave them open."""
    host, port = server.url.removeprefix("http://").split(":")
    for _ in range(n):
        client = stack.enter_context(socket.create_connection((host, int(port))))
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        client.recv(4096)


def watched(server: Server, args: argparse.Namespace) -> list[tuple[str, Json]]:
    """The ledger at the start, and behind more and more requests."""
    per_token = words_per_token(server.url)

    def one(number: int) -> None:
        body = completion(words(f"memory {number}", args.prompt, per_token), args.predict, stream=number % 2 == 0)
        if args.drawn:
            del body["temperature"]
        reply = send(server.url, "/v1/completions", body)
        if reply.status != 200:
            raise RuntimeError(f"request {number}: {reply.status} {reply.body[:200]!r}")

    found, numbers, n_done = [("0", ledger(server))], itertools.count(), 0
    marks = sorted({n for n in (N_FIRST, 500, args.requests) if n <= args.requests})
    with ThreadPoolExecutor(args.clients) as pool:
        for mark in marks:
            list(pool.map(one, itertools.islice(numbers, mark - n_done)))
            n_done = mark
            found.append((f"{mark:,}", ledger(server)))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Serve, ask, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.serve_memory", description=__doc__)
    add = parser.add_argument
    add("model", nargs="?", type=existing_file, default=MODEL, metavar="MODEL", help="a GGUF file")
    add("--requests", type=int, default=2000, metavar="N", help="all of them (2000)")
    add("--clients", type=int, default=16, metavar="N", help="at a time (16)")
    add("--idle", type=int, default=0, metavar="N", help="connections that stay open beside (0)")
    add("--prompt", type=int, default=12, metavar="N", help="tokens of a prompt, about (12)")
    add("--predict", type=int, default=4, metavar="N", help="tokens of an answer (4)")
    add("--drawn", action="store_true", help="tokens are drawn, not the likeliest")
    add("--threads", type=int, default=os.cpu_count() or 1, metavar="N", help="llama.cpp's threads")
    add("--port", type=int, default=18470)
    add("--check", action="store_true", help="exit code 1 when a bar is not met")
    args = parser.parse_args(argv)
    pair = Pair(model=Path(args.model), against="", threads=args.threads, port=args.port)
    n_slots = min(args.clients, SLOTS_MAX)
    with ExitStack() as stack:
        server = stack.enter_context(pair.started_alone(n_slots=n_slots, n_ctx_slot=N_CTX_SLOT, port=args.port))
        connected(server, args.idle, stack)
        found = watched(server, args)
    idle = f", {args.idle:,} idle connections" if args.idle else ""
    lines = table(HEADER, [cells(*each) for each in found], right=range(len(HEADER)))
    first, last = (memory["measured"]["resident_bytes"] for _, memory in (found[1], found[-1]))
    growth, share = last / first, found[-1][1]["unexplained"]["share"]
    sys.stdout.write(
        "\n".join((f"{args.model.name}, {args.clients} clients{idle}, MiB", *lines, f"resident: {growth:.3f} times"))
        + f" that behind {found[1][0]} requests (bar {RSS_MAX}); unexplained {share:+.2%} (bar {SHARE_MAX:.0%})\n"
    )
    return int(args.check and (abs(share) > SHARE_MAX or growth > RSS_MAX))


if __name__ == "__main__":
    run_program(main)
