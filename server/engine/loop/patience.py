"""How long may the choice of a token take? A grammar can take llama.cpp hours, and only the end of its process ends it.

What is ambiguous is followed in all its ways, which can be millions for a long token. No bound on a grammar's text
(`server/api/gbnf.py`) rules that out, so the worker is watched: it tells whose request it was, which fails for good,
and ends; another one is started, as for any worker that died.

Source: llama.cpp 0c1e570 src/llama-grammar.cpp, llama_grammar_reject_candidates_for_stack, which calls itself for each
way and each character.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

LIMIT_S: Final = 10.0  # real grammars take some ms, with the largest vocabularies
LOOK_S: Final = 0.5
GAVE_UP: Final = 75  # exit code of a worker that ended itself
TOO_LONG: Final = (
    f"the grammar is too ambiguous: llama.cpp followed its ways for {LIMIT_S:.0f} s to choose one token; write it (or "
    "the schema, the tools) so that each text is read in one way, without optional parts side by side that begin alike"
)


class Patience:
    """A watch over one thread's choices, by the process's own time: nothing is late because it was stopped."""

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        self._limit_s = limit_s
        self._under_way: tuple[int, float] | None = None  # the request, and since when

    def begins(self, id: int) -> None:
        """A token of a request is chosen, or its grammar is read."""
        self._under_way = id, time.process_time()

    def ends(self) -> None:
        """Note that the token has been chosen."""
        self._under_way = None

    @property
    def late(self) -> int | None:
        """The request whose choice takes too long."""
        under_way = self._under_way
        return under_way[0] if under_way and time.process_time() - under_way[1] > self._limit_s else None

    def watch(self, give_up: Callable[[int], object]) -> None:
        """Call `give_up` with the request, in a thread, when a choice takes too long."""

        def run() -> None:
            while (id := self.late) is None:
                time.sleep(min(LOOK_S, self._limit_s))
            give_up(id)

        threading.Thread(target=run, name="patience", daemon=True).start()
