"""Text that comes in pieces, read as if all of it were there: who reads waits, by a generator that yields."""

from collections.abc import Callable, Collection, Generator
from dataclasses import dataclass
from typing import Final, TypeVar

T = TypeVar("T")
Reads = Generator[None, None, T]
Wait = Reads[None]
BLANK: Final = " \t\r\n"


class CutOffError(Exception):
    """The text is over, and more should have come."""


class OtherwiseError(Exception):
    """The text goes on otherwise than what is read."""


@dataclass(slots=True)
class Incoming:
    """`text` that was not done with, read up to `at`; `is_over`: no more comes."""

    text: str = ""
    at: int = 0
    is_over: bool = False

    def more(self) -> Wait:
        """Wait. Raises CutOffError."""
        if self.is_over:
            raise CutOffError
        yield

    def done(self) -> None:
        """Forget what was read."""
        self.text, self.at = self.text[self.at :], 0

    def skip(self, characters: str = BLANK) -> Wait:
        """Pass these characters, as many as come."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in characters:
                self.at += 1
            if self.at < len(self.text) or self.is_over:
                return
            yield

    def literal(self, text: str) -> Reads[bool]:
        """Is this next, whatever blanks are between its words? Then it is passed."""
        start = self.at
        for word in text.split():
            yield from self.skip()
            while not self.text.startswith(word, self.at):
                if not word.startswith(self.text[self.at :]):
                    self.at = start
                    return False
                yield from self.more()
            self.at += len(word)
        return True

    def expect(self, text: str) -> Wait:
        """Pass this. Raises OtherwiseError."""
        if not (yield from self.literal(text)):
            raise OtherwiseError

    def until(self, stops: Collection[str], most: int, never: str = "") -> Reads[str]:
        """The text up to the first of these, which is not passed.

        Raises:
            OtherwiseError: it has more characters than that, or one that it never has.
        """
        while True:
            ends = [found for stop in stops if (found := self.text.find(stop, self.at)) >= 0]
            begun = 0 if ends else max((n_begun(self.text, stop, self.at) for stop in stops), default=0)
            said = self.text[self.at : min(ends) if ends else len(self.text) - begun]
            if len(said) > most or any(c in never for c in said.strip()):
                raise OtherwiseError
            if ends:
                self.at = min(ends)
                return said
            yield from self.more()

    def value(self, tell: Callable[[str], object], *, forget: bool = False) -> Wait:
        """Pass a value of JSON, and tell its text as it comes; `forget` what was told.

        Raises:
            OtherwiseError: there is none.
        """
        depth, quoted, escaped, begun = 0, False, False, False
        yield from self.skip()
        start, end = self.at, -1
        while True:
            for i in range(self.at, len(self.text)):
                c = self.text[i]
                if quoted:
                    quoted = escaped or c != '"'
                    escaped = c == "\\" and not escaped
                    end = i + 1 if depth == 0 and not quoted else -1
                elif c == '"':
                    if depth == 0 and begun:
                        end = i
                    quoted = True
                elif c in "{[":
                    depth += 1
                elif c in "}]":
                    depth -= 1
                    end = i + (depth == 0) if depth <= 0 else -1
                elif depth == 0 and c in ",:" + BLANK:
                    end = i
                begun = True
                if end >= 0:
                    break
            self.at = end if end >= 0 else len(self.text)
            if end == start:
                raise OtherwiseError
            if self.at > start:
                tell(self.text[start : self.at])
            if end >= 0:
                return
            if forget:
                self.done()
            start = self.at
            yield from self.more()


def n_begun(text: str, end: str, at: int = 0) -> int:
    """How many characters at the end of a text, behind a place, may begin this."""
    return next((n for n in range(min(len(end) - 1, len(text) - at), 0, -1) if end.startswith(text[-n:])), 0)
