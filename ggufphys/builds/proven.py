"""How sure is a prediction for a build? As sure as the records around it: `exact` where they agree with it."""

from functools import cache
from typing import Final

from ggufphys.builds.moves import Rule, rules_of
from ggufphys.builds.newer import NEWER, may_know
from ggufphys.builds.records import MOVED, RECORDED, SEEN, SINCE, UNEXPLAINED
from ggufphys.errors import UnsupportedError

POOLED: Final[Rule] = "pooled_without_logits"


def require_known(arch: str, build: int) -> None:
    """Refuse an architecture that llama.cpp of this build does not know.

    Raises:
        UnsupportedError: naming the first record that does.
    """
    if unknown := why_unknown(arch, build):
        raise UnsupportedError(unknown)


def why_unknown(arch: str, build: int) -> str:
    """Why llama.cpp of this build would not load a model of the architecture; empty if it would, for all we know."""
    if arch in NEWER:
        before, first = NEWER[arch]
        return "" if may_know(arch, build) else _unknown(arch, build, first)
    since = SINCE.get(arch)
    if since is None:
        return ""
    before = max((n for n in RECORDED if n < since), default=0)
    if build > before:
        return ""
    return _unknown(arch, build, since)


def _unknown(arch: str, build: int, since: int) -> str:
    return f"llama.cpp b{build} does not know architecture {arch!r}: b{since} is the first record that does"


@cache
def why_unproven(arch: str, build: int, *, pools: bool = False) -> str:
    """Why a prediction for this build is an estimate, naming the nearest record; empty where records prove it.

    Of contexts that pool hidden states records say nothing: what moved for these was asked apart.
    """
    numbers = sorted(RECORDED)
    if numbers[0] <= build < (seen := SEEN.get(arch, 0)):
        return f"the first record with bytes of {arch} is that of b{seen}: small models of it are not loaded before"
    if build in RECORDED:
        wrong = arch in UNEXPLAINED.get(build, ())
        return f"some rows of {arch} are not as predicted in the record of b{build}" if wrong else ""
    i = sum(number < build for number in numbers)
    nearest = min(numbers, key=lambda n: abs(n - build))
    if i in (0, len(numbers)):
        return f"b{build} lies outside of the records, b{numbers[0]} to b{numbers[-1]}; the nearest is b{nearest}"
    low, high = numbers[i - 1], numbers[i]
    # Records of newer architectures are kept apart, so whatever moved may have moved them.
    if arch in MOVED.get(high, ()) or (arch in NEWER and rules_of(low) != rules_of(high)):
        return f"bytes of {arch} moved between the records b{low} and b{high}; the nearest to b{build} is b{nearest}"
    if pools and (POOLED in rules_of(low)) != (POOLED in rules_of(high)):
        return f"contexts that pool moved between the records b{low} and b{high}; the nearest to b{build} is b{nearest}"
    if arch in UNEXPLAINED.get(low, ()) or arch in UNEXPLAINED.get(high, ()):
        return f"some rows of {arch} are not as predicted in the records b{low} and b{high} around b{build}"
    return ""
