"""Tokens a second and time to the first token; each of so many clients sends its next request when it has an answer."""

import asyncio
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bench.load.client import Client
from bench.load.lengths import Lengths
from bench.load.loops import Level, drive
from bench.load.prompts import Mix
from bench.load.summary import Summary, summarise
from bench.serve_compare.http import GREEDY, words_per_token
from bench.serve_compare.rows import TOK_PER_S, TOK_PER_S_BUSY, TTFT, Others, Row
from bench.serve_compare.servers import Pair, Server, in_turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is sent: tokens of prompts and answers, and how many requests a round at least (and two a client)."""

    n_prompt: int
    n_predict: int
    n_requests: int


WARM_UP: Final = 2  # requests of each server behind its start, so that weights and code are in memory


def speed(pair: Pair, clients: Sequence[int], load: Load, *, rounds: int, busy: int) -> Iterator[Row]:
    """All levels, with as many slots as there are clients at most. Every prompt is another's, in all rounds."""
    n_ctx_slot = -(-(2 * load.n_prompt + load.n_predict) // 256) * 256
    found: dict[int, list[dict[str, Summary]]] = {n: [] for n in clients}
    others = {n: Others() for n in clients}
    for number in range(rounds):
        with pair.started(n_slots=max(clients), n_ctx_slot=n_ctx_slot) as servers:
            for server in servers:
                one_round(server, 1, replace(load, n_requests=WARM_UP), -1)
            for n in clients:
                with others[n].watched(*servers):
                    found[n].append({})
                    for server in in_turn(servers, number):
                        summary = one_round(server, n, load, 1000 * n + number)
                        found[n][-1][server.name] = summary
                        _tell(n, number, rounds, server, summary)
    for n in clients:
        yield from _rows(n, [(each["ours"], each["theirs"]) for each in found[n]], others[n].share, busy)


def _tell(n: int, number: int, rounds: int, server: Server, summary: Summary) -> None:
    """On stderr as it comes: beside busy neighbours a server that spins may take minutes for a round."""
    found = f"{summary.tok_per_s:.1f} tok/s in {summary.wall_s:.1f} s"
    sys.stderr.write(f"{_level(n)}, round {number + 1} of {rounds}, {server.name}: {found}\n")


def _level(n: int) -> str:
    return f"{n} client{'s' if n > 1 else ''}"


def _rows(n: int, found: Sequence[tuple[Summary, Summary]], others: float, busy: int) -> Iterator[Row]:
    level = _level(n)
    bar = TOK_PER_S_BUSY if busy > 1 else TOK_PER_S
    yield Row.of(level, "tok/s", [(ours.tok_per_s, theirs.tok_per_s) for ours, theirs in found], bar=bar, others=others)
    for name in ("p50", "p95"):
        times = [(getattr(ours.ttft_s, name), getattr(theirs.ttft_s, name)) for ours, theirs in found]
        yield Row.of(level, f"TTFT {name}, s", times, bar=TTFT, others=others)


def one_round(server: Server, n_clients: int, load: Load, seed: int) -> Summary:
    """One server, one level, once. Raises RuntimeError when some request failed."""
    summary = asyncio.run(_drive(server.url, n_clients, load, seed))
    if summary.n_ok < summary.n_requests:
        raise RuntimeError(f"{server.name}, {n_clients} clients: {dict(summary.error_details)}")
    return summary


async def _drive(url: str, n_clients: int, load: Load, seed: int) -> Summary:
    mix = Mix(
        prompt=Lengths(load.n_prompt, load.n_prompt), answer=Lengths(load.n_predict, load.n_predict), seed=seed,
        words_per_token=words_per_token(url),
    )  # fmt: skip
    client = Client(
        f"{url}/v1", model="any", endpoint="completions", extra=GREEDY, api_key="", timeout_s=600
    )  # fmt: skip
    level = Level(concurrency=n_clients, n_requests=max(2 * n_clients, load.n_requests))
    try:
        done = await drive(client, level, mix.requests(0), seed=seed, on_answer=lambda answer: None)
    finally:
        await client.close()
    return summarise([done])
