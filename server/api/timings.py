"""Where an answer's time went, in llama-server's `timings`, and its tokens, in OpenAI's `usage`."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from server.engine.events import Event, Finished, Piece, Progress, Started, Timings, Usage

Json = dict[str, Any]


def usage(finished: Sequence[tuple[int, Finished]], n_thought: int | None = None) -> Json:
    """Tokens of all answers; a prompt with several answers counts once.

    `finished`: request and its last events; `n_thought`: tokens of thoughts among those generated, None where an
    endpoint tells of none.
    """
    prompts = {number: f.usage for number, f in finished}
    n_prompt = sum(u.n_prompt for u in prompts.values())
    n_generated = sum(f.usage.n_generated for _, f in finished)
    return {
        "prompt_tokens": n_prompt,
        "completion_tokens": n_generated,
        "total_tokens": n_prompt + n_generated,
        "prompt_tokens_details": {"cached_tokens": sum(u.n_cached for u in prompts.values())},
        **({} if n_thought is None else {"completion_tokens_details": {"reasoning_tokens": n_thought}}),
    }


def timings(finished: Finished) -> Json:
    """llama-server's `timings`, with the time in the queue and why a prompt was evaluated again.

    The first generated token comes out of the prompt's evaluation, so `predicted_ms` spans one token less than
    `predicted_n` counts, and the rate divides by that. A rate is 0 when there is nothing to divide.
    """
    usage, times = finished.usage, finished.timings
    n_evaluated, n_decoded = usage.n_prompt - usage.n_cached, max(usage.n_generated - 1, 0)
    found: Json = {
        "queue_ms": times.queue_s * 1000,
        "cache_n": usage.n_cached,
        "prompt_n": n_evaluated,
        "prompt_ms": times.prompt_s * 1000,
        "prompt_per_token_ms": _ratio(times.prompt_s * 1000, n_evaluated),
        "prompt_per_second": _ratio(n_evaluated, times.prompt_s),
        "predicted_n": usage.n_generated,
        "predicted_ms": times.decode_s * 1000,
        "predicted_per_token_ms": _ratio(times.decode_s * 1000, n_decoded),
        "predicted_per_second": _ratio(n_decoded, times.decode_s),
    }
    if times.reevaluated:
        found["reevaluated"] = times.reevaluated
    if times.n_drafted:
        found["draft_n"], found["draft_n_accepted"] = times.n_drafted, times.n_draft_accepted
    if times.n_preempted:
        found["preempted_n"] = times.n_preempted
    return found


class Clock:
    """`timings` of an answer that is under way, as its reader sees them: times are those of events, not of steps."""

    def __init__(self, n_prompt: int) -> None:
        self._started = self._first = time.monotonic()
        self._usage = Usage(n_prompt=n_prompt, n_cached=0, n_generated=0)

    def start(self, event: Event) -> None:
        """The prompt's evaluation begins."""
        if isinstance(event, Started):
            self._started = self._first = time.monotonic()
            self._usage = replace(self._usage, n_cached=event.n_cached)

    def piece(self, event: Piece) -> Json:
        """The timings up to this piece."""
        now = time.monotonic()
        if not self._usage.n_generated:
            self._first = now
        self._usage = replace(self._usage, n_generated=self._usage.n_generated + len(event.tokens))
        times = Timings(queue_s=0.0, prompt_s=self._first - self._started, decode_s=now - self._first)
        return timings(Finished(reason="length", usage=self._usage, timings=times))


def prompt_progress(event: Progress) -> Json:
    """llama-server's `prompt_progress`."""
    return {
        "total": event.n_prompt, "cache": event.n_cached, "processed": event.n_done,
        "time_ms": event.elapsed_s * 1000,
    }  # fmt: skip


def _ratio(a: float, b: float) -> float:
    return a / b if b > 0 else 0.0
