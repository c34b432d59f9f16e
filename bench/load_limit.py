"""How many requests and pieces a second can `bench load`'s client take, on one core, from a server that costs nothing?

`python -m bench.load_limit [--concurrency 50] [--seconds 3] [--json]`

A stub in a process of its own answers at once with bytes that were made beforehand: as many requests as the client
sends, each with an answer of one token, then long answers whose tokens come a write each and several in a write. What
is printed is the rate, the client's own share of a core, and the rate by that share: what a whole core of it would do.
Where the share is 80 % or more the client was the limit, as `bench load` says then too; else the stub was. Exit code 1
when a core of it is good for less than 5,000 requests or 100,000 pieces a second.
"""

import argparse
import asyncio
import json
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Final

from bench.load.client import Client
from bench.load.lengths import Lengths
from bench.load.loops import Level, drive
from bench.load.prompts import Mix
from bench.load.summary import SATURATED
from bench.running.program import run_program

REQUESTS_BAR: Final = 5_000
PIECES_BAR: Final = 100_000
_HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One way of answering: what came a second, and the client's share of a core meanwhile."""

    answers: str
    n_requests: int
    n_ok: int
    req_per_s: float
    pieces_per_s: float
    client_share: float

    @property
    def req_per_core_s(self) -> float:
        """Requests a second of the client's processor time."""
        return self.req_per_s / self.client_share

    @property
    def pieces_per_core_s(self) -> float:
        """Pieces a second of the client's processor time."""
        return self.pieces_per_s / self.client_share

    @property
    def limit(self) -> str:
        """What set the limit: the client, or the stub that answered it."""
        return "client" if self.client_share >= SATURATED else "stub"

    @property
    def holds(self) -> bool:
        """Is it as fast as it should be, by requests or by pieces, without a fault?"""
        fast = self.req_per_core_s >= REQUESTS_BAR or self.pieces_per_core_s >= PIECES_BAR
        return fast and self.n_ok == self.n_requests


def measure(n_tokens: int, per_write: int, concurrency: int, seconds: float) -> Limit:
    """Drive the stub for so long."""
    with stub(n_tokens, per_write) as url:
        return asyncio.run(_measure(url, n_tokens, per_write, concurrency, seconds))


async def _measure(url: str, n_tokens: int, per_write: int, concurrency: int, seconds: float) -> Limit:
    mix = Mix(prompt=Lengths(16, 16), answer=Lengths(n_tokens, n_tokens))
    client = Client(url, model="stub", endpoint="chat/completions", extra={}, api_key="", timeout_s=60.0)
    level = Level(concurrency=concurrency, n_requests=1 << 30, duration_s=seconds)
    try:
        found = await drive(client, level, mix.requests(0), seed=0, on_answer=lambda answer: None)
    finally:
        await client.close()
    ok = [answer for answer in found.answers if answer.ok]
    return Limit(
        answers=f"{n_tokens} tokens, {per_write} a write" if n_tokens > 1 else "1 token",
        n_requests=len(found.answers),
        n_ok=len(ok),
        req_per_s=len(ok) / found.wall_s,
        pieces_per_s=sum(len(answer.pieces) for answer in ok) / found.wall_s,
        client_share=found.client_cpu_s / found.wall_s,
    )


class _Stub(asyncio.Protocol):
    """One connection: each request is answered with the same writes."""

    def __init__(self, writes: Sequence[bytes]) -> None:
        self.writes = writes
        self.rest = b""
        self.waits = 0  # bytes of a body that are still to come

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer when a body is complete."""
        self.rest += data
        if not self.waits:
            head, end, _ = self.rest.partition(b"\r\n\r\n")
            if not end:
                return
            at = head.lower().index(b"content-length:") + 15
            self.waits = len(head) + 4 + int(head[at:].split(b"\r\n", 1)[0])
        if len(self.rest) < self.waits:
            return
        self.rest, self.waits = self.rest[self.waits :], 0
        self._write(0)

    def _write(self, i: int) -> None:
        self.transport.write(self.writes[i])
        if i + 1 < len(self.writes):
            asyncio.get_running_loop().call_soon(self._write, i + 1)


def _writes(n_tokens: int, per_write: int) -> list[bytes]:
    """What an answer is written as: head with the first tokens, further tokens, the end."""
    events = [
        _event({"id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 1700000000, "model": "stub",
                "choices": [{"index": 0, "delta": {"content": f" word{i}"}, "finish_reason": None}]})
        for i in range(n_tokens)
    ]  # fmt: skip
    usage = {"prompt_tokens": 16, "completion_tokens": n_tokens, "total_tokens": 16 + n_tokens}
    end = [
        _event({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}),
        _event({"choices": [], "usage": usage}), _chunk(b"data: [DONE]\n\n"), b"0\r\n\r\n",
    ]  # fmt: skip
    groups = [b"".join(events[i : i + per_write]) for i in range(0, n_tokens, per_write)]
    return [_HEAD + groups[0], *groups[1:-1], *([groups[-1]] if len(groups) > 1 else []), b"".join(end)]


def _event(value: object) -> bytes:
    return _chunk(f"data: {json.dumps(value)}\n\n".encode())


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def _serve(writes: Sequence[bytes], address: Connection) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(lambda: _Stub(writes), "127.0.0.1", 0)
        address.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


@contextmanager
def stub(n_tokens: int, per_write: int) -> Iterator[str]:
    """The address of a stub that answers so, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(_writes(n_tokens, per_write), theirs), daemon=True)
    process.start()
    try:
        if not ours.poll(30):
            raise RuntimeError("the stub did not start within 30 s")
        yield f"http://127.0.0.1:{ours.recv()}/v1"
    finally:
        process.terminate()
        process.join()


def main(argv: Sequence[str] | None = None) -> int:
    """Measure each way of answering, print the table or JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.load_limit", description=__doc__)
    parser.add_argument("--concurrency", type=int, default=50, metavar="N", help="clients at once (50)")
    parser.add_argument("--seconds", type=float, default=3.0, metavar="S", help="of each way of answering (3)")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    args = parser.parse_args(argv)
    limits = [measure(n, k, args.concurrency, args.seconds) for n, k in ((1, 1), (256, 1), (256, 8))]
    if args.json:
        rows = [
            asdict(row) | {n: getattr(row, n) for n in ("req_per_core_s", "pieces_per_core_s", "limit")}
            for row in limits
        ]
        sys.stdout.write(json.dumps({"schema_version": 1, "rows": rows}) + "\n")
    else:
        columns = ("answers of", "requests/s", "pieces/s", "share of a core", "requests/core s", "pieces/core s")
        sys.stdout.write(f"{columns[0]:24}{''.join(f'{c:>17}' for c in columns[1:])}  limit\n")
        for row in limits:
            sys.stdout.write(
                f"{row.answers:24}{row.req_per_s:17,.0f}{row.pieces_per_s:17,.0f}{row.client_share:17.0%}"
                f"{row.req_per_core_s:17,.0f}{row.pieces_per_core_s:17,.0f}  {row.limit}\n"
            )
    return 0 if all(row.holds for row in limits) else 1


if __name__ == "__main__":
    run_program(main)
