"""Answers that nobody reads before their end: their tokens wait here, and wake the HTTP side a few times, not each.

They go on with the counters, twice a second, so that figures of what is under way are at most that late, and at the
end. A stop string ends an answer as soon as ever, so where there are any they are looked for here, too.
"""

import threading

from server.engine.frames import Broke, Command, Drafted, Ended, Gathered, Report, Said, Step, Submit
from server.engine.readers.lines import Lines
from server.engine.readers.stopping import StopStrings
from server.engine.readers.text import TextStream


class _Waiting:
    """What waits of one answer."""

    def __init__(self, id: int, index: int, stop: StopStrings, n_indent: int) -> None:
        self._id, self._index = id, index
        self._looks = bool(stop) or n_indent > 0
        self._text, self._lines = TextStream(stop), Lines(n_indent)
        self._said: list[tuple[object, ...]] = []
        self._times: list[float] = []
        self._n_drafted = self._n_accepted = 0

    def say(self, report: Said, at_s: float) -> bool:
        """Keep a token; whether the answer ends with it."""
        self._said.append(tuple(report))
        self._times.append(at_s)
        if report.reason is not None:
            return True
        if self._looks:
            self._lines.feed(self._text.feed(report.piece))
        return bool(self._text.stopped) or self._lines.is_cut

    def draft(self, report: Drafted) -> None:
        """Count the guesses of an answer."""
        self._n_drafted += report.n_drafted
        self._n_accepted += report.n_accepted

    def tell(self, left: list[Report]) -> None:
        """Let go of all that waits."""
        if self._n_drafted:
            left.append(Drafted(self._id, self._index, self._n_drafted, self._n_accepted))
            self._n_drafted = self._n_accepted = 0
        if self._said:
            left.append(Gathered(self._id, self._index, tuple(self._said), tuple(self._times)))
            self._said, self._times = [], []


class Gathering:
    """All answers that are gathered so. `take` is called by the loop's thread or who ends it, `expect` by another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: dict[int, dict[int, _Waiting]] = {}  # answers that are not over, by their requests

    def expect(self, command: Command) -> None:
        """Gather a request's answers, if it is one that wants them whole; before the loop is given it."""
        if not isinstance(command, Submit) or not command.request.whole:
            return
        id, request = command
        stop = StopStrings(request.stop)
        answers = {index: _Waiting(id, index, stop, request.n_indent) for index in range(request.n)}
        with self._lock:
            self._requests[id] = answers

    def take(self, step: Step) -> Step | None:
        """Keep what can wait; what is left to be told, None if nothing is."""
        if not self._requests:
            return step
        with self._lock:
            left: list[Report] = []
            for report in step.reports:
                answers = self._requests.get(report.id)
                if answers is None or not self._keep(report, step.at_s, answers, left):
                    left.append(report)
            if step.counters is not None:
                for answers in self._requests.values():
                    for answer in answers.values():
                        answer.tell(left)
        return Step(step.at_s, left, step.counters) if left or step.counters is not None else None

    def _keep(self, report: Report, at_s: float, answers: dict[int, _Waiting], left: list[Report]) -> bool:
        """Whether it waits. Else what waited of its answers, if they end with it, has been told before it."""
        if isinstance(report, Said | Drafted | Ended):
            answer = answers.get(report.answer)
            if answer is None:  # it has stopped, and the loop will hear of that
                return False
            if isinstance(report, Drafted):
                answer.draft(report)
                return True
            is_kept = isinstance(report, Said)
            if isinstance(report, Ended) or answer.say(report, at_s):
                answer.tell(left)
                del answers[report.answer]
                if not answers:
                    del self._requests[report.id]
            return is_kept
        if isinstance(report, Broke):
            for answer in self._requests.pop(report.id).values():
                answer.tell(left)
        return False
