"""Has one of many strings come, and could one be coming? In time that does not grow with their number.

An Aho-Corasick automaton over the sorted strings: a state is a prefix that some of them have, given by the range of
those in sorted order. Only states that a text visits are ever made, so thousands of strings cost one sort.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

LAST: Final = "\U0010ffff"


@dataclass(slots=True, eq=False)
class State:
    """The longest end of the text that strings `low` to `high` begin with: `depth` characters."""

    low: int
    high: int
    depth: int
    fail: "State | None" = None  # the next shorter such end
    next: dict[str, "State"] = field(default_factory=dict)
    n_complete: int = -1  # length of the longest string that the text ends with; 0: none; -1: not looked up yet


class StopStrings:
    """The automaton. It may be shared: what is fed is in the states that are handed round."""

    def __init__(self, strings: Iterable[str]) -> None:
        self._strings = sorted(set(filter(None, strings)))
        self.firsts = frozenset(string[0] for string in self._strings)  # characters that one may begin with
        self.start = State(0, len(self._strings), 0, n_complete=0)

    def __bool__(self) -> bool:
        return bool(self._strings)

    def step(self, state: State, character: str) -> State:
        """The state behind one more character."""
        return state.next.get(character) or self._find(state, character)

    def _find(self, state: State, character: str) -> State:
        path: list[tuple[State, State | None]] = []
        at: State | None = state
        known = self.start
        while at is not None:
            if character in at.next:
                known = at.next[character]
                break
            path.append((at, self._child(at, character)))
            at = at.fail
        for at, child in reversed(path):  # the shortest first: each new state falls back on the one before
            if child is not None:
                child.fail = known
                known = child
            at.next[character] = known
        return known

    def _child(self, state: State, character: str) -> State | None:
        prefix = self._strings[state.low][: state.depth] + character if state.low < state.high else character
        low = bisect_left(self._strings, prefix, state.low, state.high)
        if low == state.high or not self._strings[low].startswith(prefix):
            return None
        high = bisect_left(self._strings, prefix + LAST, low, state.high)
        while high < state.high and self._strings[high].startswith(prefix):
            high += 1  # a string that goes on with U+10FFFF itself
        return State(low, high, state.depth + 1)

    def completed(self, state: State) -> int:
        """Length of the longest string that the text ends with in this state; 0: none."""
        path = []
        while state.n_complete < 0:
            if len(self._strings[state.low]) == state.depth:
                state.n_complete = state.depth
                break
            assert state.fail is not None  # the start's n_complete is known
            path.append(state)
            state = state.fail
        for each in path:
            each.n_complete = state.n_complete
        return state.n_complete
