"""How right were predictions on this machine? What was predicted and what came, kept in a bounded file.

`measure`, `bench speed` and `serve` add to it. Of each model, build of llama.cpp and quantity the last few are kept,
and of all the last hundreds, so that the file stays small however often it is written. What older rules predicted says
nothing of today's, and is left out.
"""

import json
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

from ggufphys.errors import OutputError
from ggufphys.frozen import asdict, dataclass
from ggufphys.paths import read_text
from ggufphys.speed import kept
from ggufphys.speed.rates import RULES
from ggufphys.speed.rates import SCHEMA_VERSION as RATES
from ggufphys.units import parse_json

NAME: Final = "history.json"
SCHEMA_VERSION: Final = 2
MAX_OF_EACH: Final = 4  # of a model, a build and a quantity
MAX_ENTRIES: Final = 400
SHOWN: Final = 12
MOST: Final = 1e15  # of any number in it
PREDICTED_BY: Final = f"{RATES}.{RULES}"
"""What a calibration measures and how it is reckoned with: predictions by others are not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A prediction and its outcome, in tokens a second; `model` is its name and its length in bytes."""

    rules: str
    model: str
    build: int
    quantity: str
    predicted: float
    measured: float
    at: float

    @property
    def is_sound(self) -> bool:
        """Are these texts and numbers that can be reckoned with? A damaged file may hold anything."""
        texts = all(isinstance(text, str) for text in (self.model, self.quantity))
        numbers = (self.predicted, self.measured, self.at, self.build)
        return texts and all(isinstance(n, int | float) and 0 <= n < MOST for n in numbers) and self.measured > 0

    @property
    def error(self) -> float:
        """How far off it was, as a share of what was measured."""
        return abs(self.predicted / self.measured - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Of the last `n` predictions: the error in the median, and at worst."""

    n: int
    median: float
    worst: float

    def __str__(self) -> str:
        return f"last {self.n} predictions on this machine: median {self.median:.0%}, worst {self.worst:.0%}"


def entries(last: int = MAX_ENTRIES) -> tuple[Entry, ...]:
    """The last of all that today's rules predicted, the oldest first; nothing where the file makes no sense."""
    try:
        document = _document()
        if document["schema_version"] != SCHEMA_VERSION:
            return ()
        found = [Entry(**fields) for fields in document["entries"]]
        return tuple(entry for entry in found if entry.rules == PREDICTED_BY and entry.is_sound)[-last:]
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def _document() -> Any:
    """What the file says: anything. Raises OSError or ValueError where it cannot be read."""
    folder = kept.folder()
    return parse_json(read_text(f"{folder}/{NAME}")) if folder else {}


def _is_of_newer_rules() -> bool:
    """Is it a newer ggufphys's file? What that keeps is not ours to remove."""
    try:
        return bool(_document()["schema_version"] > SCHEMA_VERSION)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def bounded(found: Iterable[Entry]) -> tuple[Entry, ...]:
    """The last few of each model, build and quantity, and of those the last ones."""
    left: dict[tuple[str, int, str], int] = {}
    chosen = []
    for entry in sorted(found, key=lambda e: e.at, reverse=True):
        key = entry.model, entry.build, entry.quantity
        left[key] = left.get(key, MAX_OF_EACH) - 1
        if left[key] >= 0:
            chosen.append(entry)
    return tuple(reversed(chosen[:MAX_ENTRIES]))


def add(new: Sequence[tuple[str, float, float]], *, model: str, build: int) -> None:
    """Keep (quantity, predicted, measured) of a run; what cannot be written is not kept."""
    at = time.time()
    made = [
        Entry(
            rules=PREDICTED_BY, model=model, build=build, quantity=quantity, predicted=predicted, measured=measured,
            at=at,
        )
        for quantity, predicted, measured in new
        if predicted > 0 and measured > 0
    ]  # fmt: skip
    if not made or _is_of_newer_rules():
        return
    document = {
        "schema_version": SCHEMA_VERSION,
        "entries": [asdict(entry) for entry in bounded((*entries(), *made))],
    }
    try:
        kept.keep(json.dumps(document), NAME)
    except OutputError:
        return


def errors() -> Errors | None:
    """How far off the last predictions were; None where there were none."""
    last = entries(SHOWN)
    if not last:
        return None
    each = sorted(entry.error for entry in last)
    middle = (each[(len(each) - 1) // 2] + each[len(each) // 2]) / 2  # the module statistics takes 4 ms to import
    return Errors(n=len(each), median=middle, worst=each[-1])
