"""Answers in messages to somebody: to the user, to the model itself, to a function. Learned of a template, and read.

A template writes so if a function's name stands in its calls where another word stands in answers: Functionary's
`>>>all` and `>>>weather`, Muse Glimmer's `to=user`, `to=self` and `to=weather`.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

_WORD: Final = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Recipients:
    """A message is `front`, who it is for, `behind`, and what is said; `between` stands between two.

    `words`, `thoughts`: those whom words and thoughts are for; empty: there are none of these.
    """

    front: str
    behind: str
    words: str
    thoughts: str
    between: str

    def header(self, name: str) -> str:
        """What stands in front of what is said to somebody."""
        return f"{self.front}{name}{self.behind}"

    def headers(self, functions: Collection[str]) -> dict[str, str]:
        """All headers, and who each is for."""
        return {self.header(name): name for name in (self.words, self.thoughts, *functions) if name}

    @property
    def marks(self) -> tuple[str, ...]:
        """All that is written around what is said."""
        return self.between, self.header(self.words), self.header(self.thoughts)


@dataclass(frozen=True, slots=True)
class Shown:
    """What a template writes behind what asks for an answer: words, thoughts and words, a call, and two calls.

    `ends`: what it writes behind words. `name`, `second`: the functions' names. None: it refuses, or asks otherwise.
    """

    words: str | None
    thoughts: str | None
    call: str | None
    calls: str | None
    said: str
    ends: str
    name: str
    second: str


def learned_recipients(shown: Shown) -> tuple[Recipients, str] | None:
    """Who answers are for, and what is said to a function; None: nothing says so."""
    if shown.words is None or shown.call is None or not shown.call.partition(shown.name)[1]:
        return None
    front, _, rest = shown.call.partition(shown.name)
    lead, said, _ = shown.words.partition(shown.said)
    found = _WORD.match(lead, len(front)) if said and lead.startswith(front) else None
    if found is None or not rest.startswith(behind := lead[found.end() :]) or not behind:
        return None
    body = rest.removeprefix(behind).removesuffix(shown.ends)
    thinks = _WORD.match(shown.thoughts, len(front)) if shown.thoughts and shown.thoughts.startswith(front) else None
    is_thought = thinks is not None and shown.thoughts is not None and shown.thoughts.startswith(behind, thinks.end())
    thoughts = thinks[0] if thinks is not None and is_thought and thinks[0] != found[0] else ""
    header = f"{front}{shown.name}{behind}{body}"
    between = ""
    if shown.calls is not None and shown.calls.startswith(header):
        between = shown.calls.removeprefix(header).partition(f"{front}{shown.second}{behind}")[0]
    return (Recipients(front, behind, found[0], thoughts, between), body) if between.strip() else None
