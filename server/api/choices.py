"""OpenAI's documents of completions and chat: a head, and `choices`."""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ggufphys import __version__
from server.api.errors import ApiError
from server.api.replies import MARKS, form_of
from server.api.timings import Clock, prompt_progress, timings, usage
from server.engine.events import Event, Finished, Piece, Progress, PromptScores
from server.engine.forms import Form

Json = dict[str, Any]


class Choice(Protocol):
    """One answer as its endpoint writes it; `index` among the choices."""

    def opening(self) -> list[Json]:
        """What a stream shows before the first piece (echo)."""
        ...

    def empty(self) -> Json:
        """A choice without text, for a chunk that tells of something else."""
        ...

    def scores(self, event: PromptScores) -> None:
        """Log-probabilities of the prompt."""
        ...

    def piece(self, event: Piece) -> list[Json]:
        """Choices of chunks for a piece; what they say is also kept for the whole answer."""
        ...

    def plain(self, text: str) -> Json | None:
        """The choice of a piece that says a text alone, if all that follow are shown so; nothing of it is kept."""
        ...

    def last(self, event: Finished) -> list[Json]:
        """Choices of the last chunks."""
        ...

    def whole(self, event: Finished) -> Json:
        """The choice of a whole answer, after all of its pieces."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What documents of an endpoint are called."""

    id_prefix: str
    whole: str
    chunk: str
    usage_in_last: bool = False  # llama-server's completions have it there without being asked


def everything(choices: list[Json]) -> list[Json]:
    """All choices are sent."""
    return choices


class Choices:
    """A `Shape` of choices: answer j of request i is choice `i * n + j`. `keep`: which whole ones are sent (best_of).

    With `include_usage` a stream's last chunk has the usage, and no choices. With `timed`, the prompts' lengths, each
    chunk has `timings`. `n_thought`: tells how many tokens were thoughts, when all answers are there.
    """

    named = False
    done = True

    def __init__(
        self,
        kind: Kind,
        model: str,
        choices: Sequence[Choice],
        *,
        n: int,
        include_usage: bool = False,
        timed: Sequence[int] = (),
        n_thought: Callable[[], int] | None = None,
        keep: Callable[[list[Json]], list[Json]] = everything,
    ) -> None:
        self._kind = kind
        self._choices = choices
        self._n = n
        self._include_usage = include_usage
        self._n_thought = n_thought
        self._keep = keep
        self._clocks = {i * n + j: Clock(n_prompt) for i, n_prompt in enumerate(timed) for j in range(n)}
        self._finished: list[tuple[int, Finished]] = []
        self._opened: set[int] = set()
        self._head: Json = {
            "id": kind.id_prefix + uuid.uuid4().hex,
            "object": kind.chunk,
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": f"ggufphys-{__version__}",
        }

    def take(self, number: int, event: Event) -> list[Json]:
        """An event as chunks."""
        match event:
            case PromptScores():
                for j in range(self._n):
                    self._choices[number * self._n + j].scores(event)
            case Progress():
                choice = self._choices[number * self._n].empty()  # clients look into each chunk's
                return [self._chunk([choice], prompt_progress=prompt_progress(event))]
            case Piece():
                at = number * self._n + event.index
                timed = {"timings": self._clocks[at].piece(event)} if at in self._clocks else {}
                return [*self._opening(at), *(self._chunk([c], **timed) for c in self._choices[at].piece(event))]
            case Finished():
                at = number * self._n + event.index
                self._finished.append((number, event))
                shown = [*self._opening(at), *(self._chunk([c]) for c in self._choices[at].last(event))]
                shown[-1]["timings"] = timings(event)
                if self._kind.usage_in_last and len(self._finished) == len(self._choices):
                    shown[-1]["usage"] = usage(self._finished)
                return shown
            case _:
                for at, clock in self._clocks.items():
                    if at // self._n == number:
                        clock.start(event)
        return []

    def form(self, number: int, index: int) -> Form | None:
        """A chunk is the same but for its text, once an answer has begun; what is said is not kept."""
        at = number * self._n + index
        if at not in self._opened or at in self._clocks:
            return None
        choice = self._choices[at].plain(MARKS["text"])
        return None if choice is None else form_of(self._chunk([choice]))

    def closing(self) -> list[Json]:
        """The usage, if asked for."""
        if not self._include_usage:
            return []
        return [self._chunk([], usage=self._usage(), timings=timings(self._finished[-1][1]))]

    def failed(self, error: ApiError) -> Json:
        """As an error is elsewhere."""
        return error.body()

    def document(self) -> Json:
        """The whole answer, with all choices."""
        whole = {number * self._n + event.index: event for number, event in self._finished}
        return {
            **self._head,
            "object": self._kind.whole,
            "choices": self._keep([self._choices[at].whole(whole[at]) for at in sorted(whole)]),
            "usage": self._usage(),
            "timings": timings(self._finished[-1][1]),
        }

    def _usage(self) -> Json:
        return usage(self._finished, None if self._n_thought is None else self._n_thought())

    def _opening(self, at: int) -> list[Json]:
        if at in self._opened:
            return []
        self._opened.add(at)
        return [self._chunk([choice]) for choice in self._choices[at].opening()]

    def _chunk(self, choices: list[Json], **more: Any) -> Json:
        counted = {"usage": None} if self._include_usage else {}
        return {**self._head, "choices": choices, **counted, **more}
