"""What requests at once do to each other: a long prompt among readers, a prefix in common, far too many streams."""

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from bench.serve_compare.http import Reply, completion, n_tokens, send, words, words_per_token
from bench.serve_compare.rows import GAP, HEALTH_S, NONE, PREFIX, Others, Row
from bench.serve_compare.servers import Pair, Server, in_turn

N_READERS: Final = 8
N_READ: Final = 160  # tokens of a reader's answer: long enough to be there when the prompt has been evaluated
N_SHARING: Final = 16
N_SUFFIX: Final = 32


def together(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """All at once, each in a thread; what each gave."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def intruder(pair: Pair, n_intruding: int, *, rounds: int) -> Iterator[Row]:
    """Eight read, a long prompt arrives: the p95 of the readers' gaps from its arrival to its answer; its own TTFT."""
    gaps, ttft, others = list[tuple[float, float]](), list[tuple[float, float]](), Others()
    n_ctx_slot = -(-(n_intruding + 768) // 256) * 256
    for number in range(rounds):
        with pair.started(n_slots=N_READERS + 1, n_ctx_slot=n_ctx_slot) as servers, others.watched(*servers):
            found = {server.name: _gap_s(server.url, n_intruding, f"{number}") for server in in_turn(servers, number)}
        gaps.append((found["ours"][0], found["theirs"][0]))
        ttft.append((found["ours"][1], found["theirs"][1]))
    level = f"{N_READERS} read, {n_intruding} arrive"
    yield Row.of(level, "gap p95, s", gaps, bar=GAP, others=others.share)
    yield Row.of(level, "its TTFT, s", ttft, others=others.share)


def _gap_s(url: str, n_intruding: int, seed: str) -> tuple[float, float]:
    per_token = words_per_token(url)
    replies = [Reply() for _ in range(N_READERS)]
    over = threading.Event()

    def read(number: int) -> None:
        for turn in itertools.count():  # another answer when one is over, so that eight read all the while
            if over.is_set():
                return
            prompt = words(f"{seed} {number} {turn}", 16, per_token)
            send(url, "/v1/completions", completion(prompt, N_READ, stream=True), replies[number])

    threads = [threading.Thread(target=read, args=(i,)) for i in range(N_READERS)]
    for thread in threads:
        thread.start()
    while not all(len(reply.stamps) > 8 for reply in replies):
        time.sleep(0.01)
    arrived_at = time.perf_counter()
    long = send(url, "/v1/completions", completion(words(seed, n_intruding, per_token), 2, stream=True))
    done_at = time.perf_counter()
    over.set()
    for thread in threads:
        thread.join()
    if not long.is_whole:
        raise RuntimeError(f"{url}: the long prompt was answered {long.status}: {long.body[:200]!r}")
    found = sorted(
        later - earlier
        for reply in replies
        for earlier, later in itertools.pairwise(reply.stamps)
        if later > arrived_at and earlier < done_at
    )
    return found[int(0.95 * (len(found) - 1))], long.stamps[0] - arrived_at


def prefix(pair: Pair, n_common: int) -> Iterator[Row]:
    """Sixteen prompts begin alike: tokens evaluated for all of them, by those of one beginning and all ends."""

    def one(server: Server) -> float:
        per_token = words_per_token(server.url)
        shared = words("shared", n_common, per_token)
        n_shared = n_tokens(server.url, shared)
        bodies = [completion(f"{shared} {words(str(i), N_SUFFIX, per_token)}", 8) for i in range(N_SHARING)]
        found = together([_asking(server.url, body) for body in bodies])
        n_prompts: list[int] = [reply.document["usage"]["prompt_tokens"] for reply in found]
        n_evaluated: int = sum(reply.document["timings"]["prompt_n"] for reply in found)
        return n_evaluated / (n_shared + sum(n - n_shared for n in n_prompts))

    n_ctx_slot = -(-(2 * n_common) // 256) * 256
    with pair.started(n_slots=N_SHARING, n_ctx_slot=n_ctx_slot) as (ours, theirs):
        yield Row(
            level=f"{N_SHARING} share {n_common} tokens", figure="evaluated, x", ours=one(ours), theirs=one(theirs),
            bar=PREFIX,
        )  # fmt: skip


def _asking(url: str, body: dict[str, Any]) -> Callable[[], Reply]:
    return lambda: send(url, "/v1/completions", body)


def flood(pair: Pair, n_streams: int) -> Iterator[Row]:
    """So many streams at once on eight slots: none may be lost, and /health must answer meanwhile."""
    with pair.started(n_slots=N_READERS, n_ctx_slot=512) as servers:
        found = [_flood(server, n_streams) for server in servers]
    level = f"{n_streams} streams"
    for figure, bar in (("complete", None), ("told to wait", None), ("lost", NONE), ("health, s", HEALTH_S)):
        yield Row(level=level, figure=figure, ours=found[0][figure], theirs=found[1][figure], bar=bar)


def _flood(server: Server, n_streams: int) -> dict[str, float]:
    over, per_token = threading.Event(), words_per_token(server.url)
    health: list[float] = []

    def probe() -> None:
        while not over.is_set():
            began = time.perf_counter()
            send(server.url, "/health")
            health.append(time.perf_counter() - began)
            over.wait(0.1)

    def ask(number: int) -> Reply | None:
        try:
            body = completion(words(str(number), 16, per_token), 16, stream=True)
            return send(server.url, "/v1/completions", body)
        except (OSError, ValueError):
            return None

    prober = threading.Thread(target=probe)
    prober.start()
    replies = together([lambda i=i: ask(i) for i in range(n_streams)])  # type: ignore[misc]
    over.set()
    prober.join()
    complete = sum(reply is not None and reply.is_whole for reply in replies)
    waiting = sum(
        reply is not None and reply.status in (429, 503) and "retry-after" in reply.headers for reply in replies
    )  # fmt: skip
    lost = n_streams - complete - waiting
    return {"complete": complete, "told to wait": waiting, "lost": lost, "health, s": max(health)}


def equal(pair: Pair, n_prompts: int) -> Iterator[Row]:
    """Greedy answers of so many at once, by those of each alone: how many differ, and how many in any bit of their
    tokens' log-probabilities. For models with F32 weights; bits are alike with --batch-invariant alone.
    """

    def one(server: Server) -> tuple[float, float]:
        per_token = words_per_token(server.url)
        bodies = [
            completion(words(f"equal {i}", 8 + i, per_token), 32, cache_prompt=False, logprobs=1)
            for i in range(n_prompts)
        ]
        alone = [send(server.url, "/v1/completions", body) for body in bodies]
        crowd = together([_asking(server.url, body) for body in bodies])
        pairs = list(zip(alone, crowd, strict=True))
        return (
            float(sum(_of_choice(a, "text") != _of_choice(b, "text") for a, b in pairs)),
            float(sum(_of_choice(a, "logprobs") != _of_choice(b, "logprobs") for a, b in pairs)),
        )

    level = f"{n_prompts} greedy answers"
    with pair.started(n_slots=n_prompts, n_ctx_slot=256) as (ours, theirs):
        (n_ours, n_ours_bits), (n_theirs, n_theirs_bits) = one(ours), one(theirs)
    yield Row(level=level, figure="differ", ours=n_ours, theirs=n_theirs, bar=NONE)
    yield Row(level=level, figure="differ in a bit", ours=n_ours_bits, theirs=n_theirs_bits)


def _of_choice(reply: Reply, field: str) -> str:
    return json.dumps(reply.document["choices"][0][field])
