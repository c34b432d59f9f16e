"""When will it be done? How fast answers come here, what is under way, and so when there is room for more.

Rates are the server's own, of recent answers; before the first they are predicted, where the machine was calibrated
(`ggufphys bench calibrate`), else unknown. A request's answers are expected to be as long as recent ones, and no longer
than it asks for.
"""

import heapq
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Final, Literal

from server.accounts.requests_written import Tally
from server.engine.events import Event, Failed, Finished, Started
from server.engine.generation import Generation
from server.engine.request import GenerationRequest

FORGET: Final = 0.9  # what an answer's weight is multiplied by with each later one
LENGTH: Final = 256.0  # tokens of an answer, where nothing is known of any
LONG_ENOUGH, LONE = 16, 64  # tokens of an answer that tells how fast one alone is, and how many such are remembered

Basis = Literal["measured", "predicted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Tokens a second: of prompts, and of one answer among those that run beside it; and where they are from."""

    prompt_per_s: float
    decode_per_s: float
    basis: Basis


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What is to be expected of a request, in seconds from now: a place, the first token, the last. None: unknown."""

    wait_s: float | None
    ttft_s: float | None
    total_s: float | None
    n_generated: int  # tokens of each answer
    rates: Rates | None


@dataclass(slots=True)
class _Entry:
    """A request that is not over."""

    generation: Generation
    tally: Tally
    alone: bool = True  # nothing else has been under way since it came
    began: bool = False
    over: set[int] = field(default_factory=set)  # answers

    @property
    def n_left(self) -> int:
        """Answers that are not over."""
        return self.generation.request.n - len(self.over)


class Forecast:
    """Follows what is under way. Any thread may ask."""

    def __init__(self, n_slots: Callable[[], int], predicted: Rates | None = None) -> None:
        self._n_slots = n_slots
        self._predicted = predicted
        self._lock = threading.Lock()
        self._entries: dict[Generation, _Entry] = {}
        self._prompt = [0.0, 0.0]  # weighted tokens and seconds
        self._decode = [0.0, 0.0]
        self._lengths = [0.0, 0.0]  # weighted tokens and answers
        self._lone: deque[float] = deque(maxlen=LONE)

    # What happens.

    def follow(self, generation: Generation, tally: Tally | None = None) -> None:
        """Watch a request that was handed in; what it took goes to the tally."""
        entry = _Entry(generation, tally or Tally())
        with self._lock:
            self._entries[generation] = entry
            if len(self._live()) > 1:
                for each in self._entries.values():
                    each.alone = False
        generation.watch = self._see

    def _see(self, generation: Generation, event: Event) -> None:
        with self._lock:
            entry = self._entries.get(generation)
            if entry is None:
                return
            match event:
                case Started():
                    entry.began = True
                case Finished():
                    self._learn(event, alone=entry.alone and generation.request.n == 1)
                    _count(entry.tally, event)
                    entry.over.add(event.index)
            if isinstance(event, Failed) or not entry.n_left:
                self._entries.pop(generation)

    def _learn(self, event: Finished, *, alone: bool) -> None:
        usage, times = event.usage, event.timings
        if event.reason == "cancelled":
            return
        n_evaluated = usage.n_prompt - usage.n_cached
        if event.index == 0 and n_evaluated > 0 and times.prompt_s > 0:
            _weigh(self._prompt, n_evaluated, times.prompt_s)
        if usage.n_generated > 1 and times.decode_s > 0:
            _weigh(self._decode, usage.n_generated - 1, times.decode_s)
            if alone and usage.n_generated >= LONG_ENOUGH:
                self._lone.append((usage.n_generated - 1) / times.decode_s)
        _weigh(self._lengths, usage.n_generated, 1)

    # What follows from it.

    @property
    def lone_rates(self) -> tuple[float, float] | None:
        """Tokens a second that were predicted and that came, of answers that had the engine to themselves.

        The median of the last ones; None where nothing was predicted, or no answer was alone and long enough.
        """
        with self._lock:
            if self._predicted is None or not self._lone:
                return None
            return self._predicted.decode_per_s, median(self._lone)

    @property
    def rates(self) -> Rates | None:
        """How fast answers come; None while nothing is known."""
        with self._lock:
            return self._rates()

    def _rates(self) -> Rates | None:
        if not (self._prompt[1] and self._decode[1]):
            return self._predicted
        prompt, decode = (tokens / seconds for tokens, seconds in (self._prompt, self._decode))
        return Rates(prompt_per_s=prompt, decode_per_s=decode, basis="measured")

    def _length(self, request: GenerationRequest) -> float:
        mean = self._lengths[0] / self._lengths[1] if self._lengths[1] else LENGTH
        return mean if request.max_tokens is None else min(mean, request.max_tokens)

    def outlook(self, request: GenerationRequest) -> Outlook:
        """What is to be expected of a request that came now."""
        with self._lock:
            rates, length = self._rates(), self._length(request)
            wait_s = self._wait_s(rates)
            ttft_s = total_s = None
            if rates is not None and wait_s is not None:
                ttft_s = wait_s + len(request.prompt) / rates.prompt_per_s
                total_s = ttft_s + max(length - 1, 0) / rates.decode_per_s
            return Outlook(wait_s=wait_s, ttft_s=ttft_s, total_s=total_s, n_generated=round(length), rates=rates)

    def place_s(self) -> float | None:
        """Seconds until one of those under way is over."""
        with self._lock:
            rates = self._rates()
            left = [self._left_s(entry, rates) for entry in self._live() if entry.began] if rates else []
            return min(left) if left else None

    def _wait_s(self, rates: Rates | None) -> float | None:
        """Places are taken in the order of arrival; each is free again when its answer is over."""
        live = self._live()
        running = [entry for entry in live if entry.began]
        waiting = [entry for entry in live if not entry.began]
        n_free = max(0, self._n_slots() - sum(entry.n_left for entry in running))
        if n_free and not waiting:
            return 0.0
        if rates is None:
            return None
        places = [0.0] * n_free
        for entry in running:
            places += [self._left_s(entry, rates)] * entry.n_left
        heapq.heapify(places)
        for entry in waiting:
            for _ in range(entry.n_left):
                if places:
                    heapq.heappush(places, heapq.heappop(places) + self._left_s(entry, rates))
        return places[0] if places else 0.0

    def _live(self) -> list[_Entry]:
        for generation in [g for g in self._entries if g.cancelled]:
            self._entries.pop(generation)
        return list(self._entries.values())

    def _left_s(self, entry: _Entry, rates: Rates) -> float:
        n_pieces, request = entry.generation.n_pieces, entry.generation.request
        prompt_s = 0.0 if any(n_pieces) else len(request.prompt) / rates.prompt_per_s
        done = min((n for index, n in enumerate(n_pieces) if index not in entry.over), default=0)
        return prompt_s + max(self._length(request) - done, 1) / rates.decode_per_s


def _count(tally: Tally, event: Finished) -> None:
    usage, times = event.usage, event.timings
    if event.index == 0:
        tally.n_prompt += usage.n_prompt
        tally.n_cached += usage.n_cached
        tally.queue_ms += times.queue_s * 1000
        tally.prompt_ms += times.prompt_s * 1000
        if times.reevaluated not in tally.reevaluated.split(","):  # of several prompts, each reason once
            tally.reevaluated = ",".join(filter(None, (tally.reevaluated, times.reevaluated)))
    tally.n_generated += usage.n_generated
    tally.n_drafted += times.n_drafted
    tally.n_draft_accepted += times.n_draft_accepted
    tally.decode_ms += times.decode_s * 1000


def _weigh(sums: list[float], amount: float, by: float) -> None:
    sums[0] = FORGET * sums[0] + amount
    sums[1] = FORGET * sums[1] + by
