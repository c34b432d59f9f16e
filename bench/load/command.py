"""`ggufphys bench load URL`: requests to a server at rising load, timed token by token."""

import argparse
import asyncio
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from math import inf
from typing import Final, cast

from bench.load.address import Endpoint, base_url
from bench.load.client import Answer, Client
from bench.load.http import ConnectError
from bench.load.lengths import lengths
from bench.load.loops import Level, Round, drive
from bench.load.prompts import Mix, Request
from bench.load.report import LoadReport, as_csv, as_json, as_text, notes_on, request_lines
from bench.load.summary import summarise
from bench.load.watch import Watch
from ggufphys.cli import INTERRUPTED
from ggufphys.machine.output import whole_file
from ggufphys.report.progress import Steps

SHORT: Final = 4  # a short warm-up has so manieth of the words
FEWEST: Final = 20  # requests of a level, unless asked for otherwise
UNLIMITED: Final = 1 << 30
LOADING: Final = "Loading model"  # source: llama.cpp 0c1e570 tools/server/server-http.cpp, middleware_server_state
LOOK_S: Final = 0.2
NO_GAIN: Final = 1.05  # --until-saturation: less than this times the last level's tokens a second is no gain


def run(args: argparse.Namespace) -> int:
    """Drive the server and print; exit 1 when no request of some level came through."""
    _check(args)
    url = base_url(args.url)
    levels = _levels(args)
    mix = Mix(prompt=lengths(args.prompt), answer=lengths(args.answer), shared=args.shared, seed=args.seed)
    with ExitStack() as stack:  # where nothing can be written is told before anything is measured
        jsonl, csv = (stack.enter_context(whole_file(path)) if path else None for path in (args.jsonl, args.csv))
        try:
            report, rounds = asyncio.run(_drive_all(args, url, levels, mix))
        except (ConnectError, TimeoutError) as error:
            said = str(error) or f"nothing came within {args.timeout:g} s"
            raise ValueError(f"{url}: nothing answers there ({said}): is the server running?") from error
        if jsonl is not None:
            jsonl.write_text("".join(f"{line}\n" for line in request_lines(rounds)), encoding="utf-8")
        if csv is not None:
            csv.write_text(as_csv(report), encoding="utf-8")
    print(as_json(report) if args.json else as_text(report))
    for note in report.notes:
        print(f"ggufphys: {note}", file=sys.stderr)
    if report.stopped:
        return INTERRUPTED
    return 0 if all(level.n_ok for level in report.levels) else 1


def _check(args: argparse.Namespace) -> None:
    if not 0 <= args.duration < inf:
        raise ValueError(f"--duration {args.duration}: expected 0 or more")


async def _drive_all(
    args: argparse.Namespace, url: str, levels: Sequence[Level], mix: Mix
) -> tuple[LoadReport, list[Round]]:
    watch = Watch(args.pid) if args.pid is not None else None
    before = watch.look() if watch is not None else None
    client = Client(
        url, model=args.model, endpoint=cast("Endpoint", args.endpoint), extra=args.extra,
        api_key=args.api_key, timeout_s=args.timeout,
    )  # fmt: skip
    watching = asyncio.create_task(watch.run()) if watch is not None else None
    try:
        client.model = client.model or await client.first_model()
        mix = await _warmed(client, mix, args.warm_up)
        client.model = client.model or await client.first_model()  # llama-server lists none while it loads one
        found, most, stopped = await _rounds(args, client, levels, mix, watch)
    finally:
        await client.close()
        if watching is not None:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
    summaries = [summarise(rounds, args.goal, rss or None) for rounds, rss in zip(found, most, strict=True)]
    report = LoadReport(
        label=args.label,
        url=url, model=client.model, endpoint=args.endpoint, prompt=str(mix.prompt), answer=str(mix.answer),
        shared=mix.shared, seed=mix.seed, goal=None if args.goal is None else args.goal.to_json(),
        levels=tuple(summaries), stopped=stopped, rss_before_bytes=before,
        rss_after_bytes=watch.last_look() if watch is not None else None,
        notes=(*notes_on(summaries), *_notes(found, stopped=stopped)),
    )  # fmt: skip
    return report, [r for rounds in found for r in rounds]


def _notes(found: Sequence[Sequence[Round]], *, stopped: bool) -> Iterator[str]:
    for level, rounds in ((rounds[0].level, rounds) for rounds in found):
        n_sent = max(len(r.answers) for r in rounds)
        if n_sent < level.concurrency and not rounds[-1].stopped:
            yield f"with {level.concurrency} clients, {n_sent} requests were all: so many were at once at most"
    if stopped:
        yield "stopped before its end: figures are of the answers that were complete, levels behind it are missing"


async def _warmed(client: Client, mix: Mix, n_requests: int) -> Mix:
    """Send the first requests, every other a short one; the mix whose prompts then are as long as wanted."""
    requests, seen = mix.requests(-1), list[tuple[int, int]]()
    for i in range(n_requests):
        request = next(requests)
        if i % 2:
            words = request.prompt.split()
            request = replace(request, prompt=" ".join(words[: max(1, len(words) // SHORT)]))
        answer = await _sent_once_loaded(client, request)
        if client.asks_usage and answer.error in ("http 400", "http 422") and "stream_options" in answer.detail:
            client.asks_usage = False  # of a server that knows no such field
            answer = await client.send(request)
        if answer.error == "connect":
            raise TimeoutError(answer.detail)
        if answer.n_prompt:
            seen.append((len(request.prompt.split()), answer.n_prompt))
    return mix.fitted(seen)


async def _sent_once_loaded(client: Client, request: Request) -> Answer:
    """The answer of a server that has its model: while that is loaded, llama-server and ours say so instead."""
    answer, until = await client.send(request), time.monotonic() + client.timeout_s
    if _is_loading(answer):
        print("ggufphys: the server is loading its model", file=sys.stderr)
    while _is_loading(answer) and time.monotonic() < until:
        await asyncio.sleep(LOOK_S)
        answer = await client.send(request)
    return answer


def _is_loading(answer: Answer) -> bool:
    return answer.error == "http 503" and LOADING in answer.detail


async def _rounds(
    args: argparse.Namespace, client: Client, levels: Sequence[Level], mix: Mix, watch: Watch | None
) -> tuple[list[list[Round]], list[int], bool]:
    """The rounds of each level, the most that the server had resident meanwhile, and whether all of it was stopped."""
    by_level: list[list[Round]] = []
    most: list[int] = []
    waiting = list(levels)
    while waiting:
        level = waiting.pop(0)
        if watch is not None:
            watch.reset()
        found: list[Round] = []
        while len(found) < args.repeat and not (found and found[-1].stopped):
            found.append(await _round(client, level, mix, part=1000 * len(by_level) + len(found)))
        stopped = found[-1].stopped
        found = [r for r in found if r.answers]
        if stopped and not (found or by_level):
            raise asyncio.CancelledError  # there is nothing to tell
        if found:
            by_level.append(found)
            if watch is not None:
                watch.last_look()  # a level may be over before its turn comes
            most.append(watch.most if watch is not None else 0)
        if stopped:
            return by_level, most, True
        if args.until_saturation and not waiting and _gains(by_level):
            n = 2 * level.concurrency
            waiting.append(replace(level, concurrency=n, n_requests=max(level.n_requests, 4 * n)))
    return by_level, most, False


async def _round(client: Client, level: Level, mix: Mix, *, part: int) -> Round:
    total = level.n_requests if level.n_requests < UNLIMITED else 0
    with Steps(f"load of {level}", total=total, unit="answers") as steps:

        def on_answer(answer: Answer) -> None:
            steps.advance(now=answer.error)

        return await drive(client, level, mix.requests(part), seed=mix.seed + part, on_answer=on_answer)


def _gains(by_level: Sequence[Sequence[Round]]) -> bool:
    rates = [sum(a.n_tokens for r in rounds for a in r.answers if a.ok) / sum(r.wall_s for r in rounds)
             for rounds in by_level[-2:]]  # fmt: skip
    return rates[-1] > 0 and (len(rates) == 1 or rates[-1] >= NO_GAIN * rates[0])


def _levels(args: argparse.Namespace) -> list[Level]:
    words = args.rate if args.rate is not None else args.concurrency
    try:
        numbers = [float(word) if args.rate is not None else int(word) for word in words.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(0 < n < inf for n in numbers):
        flag = "--rate" if args.rate is not None else "--concurrency"
        raise ValueError(f"{flag} {words!r}: expected numbers above 0, with commas between")
    if args.until_saturation:
        numbers = numbers[:1]
    wanted = args.requests or (UNLIMITED if args.duration else 0)
    if args.rate is not None:
        return [Level(rate_per_s=n, n_requests=wanted or FEWEST, duration_s=args.duration) for n in numbers]
    return [
        Level(concurrency=int(n), n_requests=wanted or max(FEWEST, 4 * int(n)), duration_s=args.duration)
        for n in numbers
    ]
