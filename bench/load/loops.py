"""When are requests sent? In a closed loop, each client its next after an answer; or at random times (Poisson)."""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass

from bench.load.client import Answer, Client
from bench.load.prompts import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """How hard the server is driven: by so many clients at once, or by so many requests a second; then the other is 0.

    It ends with `n_requests`, or after `duration_s` (0: no limit) when no more are sent.
    """

    concurrency: int = 0
    rate_per_s: float = 0.0
    n_requests: int
    duration_s: float = 0.0

    def __str__(self) -> str:
        return f"{self.rate_per_s:g}/s" if self.rate_per_s else str(self.concurrency)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What came of one level: all answers, how long it took, and the client's own processor time.

    `stopped` says that it was ended before (Ctrl-C); requests that were on their way then are in no figure.
    """

    level: Level
    answers: list[Answer]
    wall_s: float
    client_cpu_s: float
    stopped: bool = False


One = Callable[[Request], Coroutine[None, None, None]]
Over = Callable[[int, float], bool]  # is it, behind so many requests, at a time?


async def drive(
    client: Client, level: Level, requests: Iterator[Request], *, seed: int, on_answer: Callable[[Answer], None]
) -> Round:
    """Send a level's requests and wait for all answers, or, when this task is cancelled, for no more of them."""
    answers: list[Answer] = []
    stopped = False
    began, cpu = time.perf_counter(), time.process_time()

    async def one(request: Request) -> None:
        answer = await client.send(request)
        answers.append(answer)
        on_answer(answer)

    def is_over(n_sent: int, at: float) -> bool:
        return n_sent >= level.n_requests or 0 < level.duration_s <= at - began

    try:
        if level.rate_per_s:
            await _open_loop(level.rate_per_s, requests, one, is_over, random.Random(seed))
        else:
            await _closed_loop(level.concurrency, requests, one, is_over)
    except asyncio.CancelledError:
        stopped = True
    return Round(
        level=level, answers=answers, wall_s=time.perf_counter() - began, client_cpu_s=time.process_time() - cpu,
        stopped=stopped,
    )  # fmt: skip


async def _closed_loop(n_clients: int, requests: Iterator[Request], one: One, is_over: Over) -> None:
    n_sent = 0

    async def client() -> None:
        nonlocal n_sent
        while not is_over(n_sent, time.perf_counter()):
            n_sent += 1
            await one(next(requests))

    async with asyncio.TaskGroup() as group:
        for _ in range(n_clients):
            group.create_task(client())


async def _open_loop(
    rate_per_s: float, requests: Iterator[Request], one: One, is_over: Over, rng: random.Random
) -> None:
    n_sent, due = 0, time.perf_counter()
    async with asyncio.TaskGroup() as group:
        while True:
            n_sent += 1
            group.create_task(one(next(requests)))
            due += rng.expovariate(rate_per_s)
            if is_over(n_sent, due):  # nobody waits for a request that is not sent
                return
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
