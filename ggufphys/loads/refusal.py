"""One reason why llama.cpp would not load a file, or would end the process that tries."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from ggufphys.errors import GGUFError, UnsupportedError
from ggufphys.frozen import dataclass, replace
from ggufphys.gguf import GGUFFile
from ggufphys.gguf.names import split_name
from ggufphys.units import in_a_line

UNKNOWN: Final = "an architecture that llama.cpp does not know"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One reason: `what` is wrong, `where` in the file, what was `found` there and what is `expected`.

    `where` names a key, a tensor or a part of the file. `ends_process`: there llama.cpp fails an assertion, or divides
    by zero, instead of returning an error. `in_context`: it loads the file, and makes no context of it.
    """

    what: str
    where: str
    found: str
    expected: str
    source: str  # "llama.cpp 0c1e570 src/llama-model-loader.cpp, get_key"
    ends_process: bool = False
    in_context: bool = False

    def __str__(self) -> str:
        ending = "; llama.cpp would end the process" if self.ends_process else ""
        return in_a_line(f"{self.where}: {self.what}: found {self.found}, expected {self.expected}{ending}")


def headline(refusals: Sequence[Refusal]) -> str:
    """What llama.cpp would not do, for these reasons."""
    if refusals and all(refusal.in_context for refusal in refusals):
        return "llama.cpp would load this file, but make no context of it"
    return "llama.cpp would not load this file"


class RefusedError(GGUFError):
    """A file that llama.cpp would not load, or die of: `refusals` are all the reasons."""

    def __init__(self, message: str, *, refusals: tuple[Refusal, ...]) -> None:
        super().__init__(message)
        self.refusals = refusals


def grouped(refusals: Iterable[Refusal]) -> Iterator[Refusal]:
    """One for all layers in which it is the same, whose `where` says how many there are more."""
    first: dict[Refusal, Refusal] = {}
    more: Counter[Refusal] = Counter()
    for refusal in refusals:
        alike = replace(refusal, where=split_name(refusal.where)[1])
        more[alike] += alike in first
        first.setdefault(alike, refusal)
    for alike, refusal in first.items():
        layers = f" and {more[alike]} layers more" if more[alike] > 1 else " and one layer more"
        yield replace(refusal, where=f"{refusal.where}{layers}") if more[alike] else refusal


__all__ = ["Refusal", "RefusedError", "grouped", "headline"]


def refused(gguf: GGUFFile, refusals: tuple[Refusal, ...], before: str = "") -> RefusedError | UnsupportedError:
    """The error for a file that llama.cpp would not load, or make no context of; `before` stands before that.

    A file of an architecture that llama.cpp does not know may be well: it is one that there is no answer for.
    """
    if unknown := next((refusal for refusal in refusals if refusal.what == UNKNOWN), None):
        return UnsupportedError(f"{gguf.location}: {before}{unknown}")
    lines = "".join(f"\n  {refusal}" for refusal in grouped(refusals))
    return RefusedError(f"{gguf.location}: {before}{headline(refusals)}:{lines}", refusals=refusals)
