"""Does memory grow with the number of requests? What a server holds after very many, by what it held after some."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from bench.serve_compare.http import completion, send, words, words_per_token
from bench.serve_compare.rows import RSS, Row
from bench.serve_compare.servers import Pair, Server

N_FIRST: Final = 100
N_AT_ONCE: Final = 16


def soak(pair: Pair, n_requests: int) -> Iterator[Row]:
    """Short requests, half of them streamed; resident bytes of all processes. Theirs if it was started here."""
    with pair.started(n_slots=N_AT_ONCE, n_ctx_slot=256) as servers:
        ours, theirs = (_growth(server, n_requests) if server.pid else float("nan") for server in servers)
    yield Row(level=f"{n_requests} requests", figure="RSS, x", ours=ours, theirs=theirs, bar=RSS)


def _growth(server: Server, n_requests: int) -> float:
    per_token = words_per_token(server.url)

    def one(number: int) -> None:
        body = completion(words(f"soak {number}", 12, per_token), 4, stream=number % 2 == 0)
        reply = send(server.url, "/v1/completions", body)
        if reply.status != 200:
            raise RuntimeError(f"{server.name}, request {number}: {reply.status} {reply.body[:200]!r}")

    numbers = itertools.count()
    with ThreadPoolExecutor(N_AT_ONCE) as pool:
        list(pool.map(one, itertools.islice(numbers, N_FIRST)))
        before = server.rss_bytes
        list(pool.map(one, itertools.islice(numbers, n_requests - N_FIRST)))
        return server.rss_bytes / before
