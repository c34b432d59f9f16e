"""An event of a stream as a form: the same bytes each time, with blanks for what differs. Either process fills them."""

from collections.abc import Sequence
from json.encoder import encode_basestring_ascii as quoted
from typing import Final, Literal, NamedTuple, get_args

Blank = Literal["text", "tokens", "n_tokens", "n_events"]
"""A text, the tokens that it came with, how many there have been with these, how many events before this one."""

BLANKS: Final[tuple[Blank, ...]] = get_args(Blank)


class Form(NamedTuple):
    """What stands around the blanks, one more than these, and what the next event counts from."""

    parts: tuple[bytes, ...]
    blanks: tuple[Blank, ...] = ("text",)
    n_before: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether events differ in their text alone, so that one form is good for all of them."""
        return self.blanks == ("text",)

    def plain(self, text: str) -> bytes:
        """The event of a text, of a plain form."""
        before, behind = self.parts
        return before + quoted(text).encode() + behind


class Filling:
    """Events from a form, one behind the other."""

    def __init__(self, form: Form) -> None:
        self._form, self._n = form, form.n_before
        self._fill = form.plain if form.is_plain else None
        self.shows_tokens = "tokens" in form.blanks
        self._counts_tokens = "n_tokens" in form.blanks

    def next(self, text: str, tokens: Sequence[int] = ()) -> bytes:
        """The next event."""
        if self._fill is not None:
            return self._fill(text)
        data = []
        n = self._n + len(tokens)
        for part, blank in zip(self._form.parts, self._form.blanks, strict=False):
            data.append(part)
            match blank:
                case "text":
                    data.append(quoted(text).encode())
                case "tokens":
                    data.append(b"[%s]" % b",".join(b"%d" % token for token in tokens))
                case "n_tokens":
                    data.append(b"%d" % n)
                case "n_events":
                    data.append(b"%d" % self._n)
        self._n = n if self._counts_tokens else self._n + 1
        return b"".join((*data, self._form.parts[-1]))
