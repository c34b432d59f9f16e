"""Which requests have waited too long? By time.perf_counter, which is one clock for all processes of a machine."""

import heapq
from typing import Final

from server.engine.request import GenerationRequest

IN_QUEUE: Final = "it waited for its turn for longer than its headers allow"
IN_PROMPT: Final = "its deadline passed while its prompt was evaluated"


class Deadlines:
    """When requests must have begun, and when they must have a first token. For the loop's thread."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, bool]] = []  # time, request, whether waiting alone is too late

    def __bool__(self) -> bool:
        return bool(self._due)

    def add(self, id: int, request: GenerationRequest) -> None:
        """Note a request's, if it has any."""
        if request.begins_by_s is not None:
            heapq.heappush(self._due, (request.begins_by_s, id, True))
        if request.ends_by_s is not None:
            heapq.heappush(self._due, (request.ends_by_s, id, False))

    def passed(self, now_s: float) -> list[tuple[int, bool]]:
        """The requests whose time is over now, each once a deadline; True: late only if it still waits."""
        found = []
        while self._due and self._due[0][0] <= now_s:
            _, id, waiting = heapq.heappop(self._due)
            found.append((id, waiting))
        return found
