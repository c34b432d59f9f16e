"""Which build wrote a log that does not say? The recorded ones are tried, from the newest on, until one fits."""

from collections.abc import Callable, Iterator

from ggufphys.builds import rules_of
from ggufphys.builds.records import RECORDED
from ggufphys.frozen import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FittingBuilds:
    """The newest recorded builds that fit in a row; 0 where none does."""

    first: int = 0
    last: int = 0

    def __str__(self) -> str:
        if not self.last:
            return f"none of the recorded builds fits, b{max(RECORDED)} to b{min(RECORDED)}"
        which = f"b{self.last} fits" if self.first == self.last else f"b{self.first} to b{self.last} fit"
        return f"of those recorded {which}"


def fitting_builds(fits: Callable[[int], bool]) -> FittingBuilds:
    """The newest stretch of recorded builds of which `fits` is true; it is asked once for each set of rules."""
    first = last = 0
    for newest, oldest in _stretches():
        if fits(newest):
            first, last = oldest, last or newest
        elif last:
            break
    return FittingBuilds(first=first, last=last)


def _stretches() -> Iterator[tuple[int, int]]:
    """Neighbouring recorded builds with the same rules, the newest first: the newest and the oldest of each."""
    newest = oldest = max(RECORDED)
    for build in sorted(RECORDED, reverse=True):
        if rules_of(build) != rules_of(newest):
            yield newest, oldest
            newest = build
        oldest = build
    yield newest, oldest
