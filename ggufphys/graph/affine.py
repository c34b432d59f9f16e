"""How do a graph's sizes follow from the length of the context? Numbers that know what they are made of.

Graphs for two contexts mostly have the same nodes, of which a few are larger. So that one is built for many contexts,
its builder is given `Affine` numbers: a constant plus so much for each unit of some unknowns. Sums, multiples and exact
quotients of these are affine too, so that a tensor's size is known at every point once it is known at one.

Where code wants to know more than that, which of two numbers is larger or what a product of two is, it gets the answer
at the point where the `Trace` is made, and the trace keeps the question. At any other point where all the questions
have the same answers the same code would have done the same.
"""

import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, TypeAlias, cast

Point: TypeAlias = tuple[int, ...]
"""A value for each unknown."""

Question: TypeAlias = tuple[int, tuple[int, ...], Callable[[int, int], bool]]
"""Whether a constant plus slopes times unknowns compares so with 0."""


class Trace:
    """What was asked of numbers that depend on unknowns, while these had the values of `point`."""

    __slots__ = ("point", "questions")

    def __init__(self, point: Point) -> None:
        self.point = point
        self.questions: dict[Question, bool] = {}

    def unknown(self, i: int, slope: int = 1, const: int = 0) -> int:
        """`const` plus `slope` times the unknown of that number, which passes for a plain number."""
        slopes = tuple(slope if i == j else 0 for j in range(len(self.point)))
        return cast(int, Affine(self, const, slopes))

    def ask(self, const: int, slopes: tuple[int, ...], compare: Callable[[int, int], bool]) -> bool:
        """The answer at the point, kept with the question."""
        answer = self.questions[const, slopes, compare] = compare(_at(const, slopes, self.point), 0)
        return answer

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Keep no question that is asked meanwhile: what is made of the answers is for this point alone."""
        before = self.questions
        self.questions = before.copy()
        try:
            yield
        finally:
            self.questions = before

    def holds_at(self, point: Point) -> bool:
        """Whether all questions so far have the same answers there."""
        return point == self.point or holds_at(self.questions, point)


def holds_at(questions: Mapping[Question, bool], point: Point) -> bool:
    """Whether the questions have these answers at a point."""
    return all(
        compare(_at(const, slopes, point), 0) == answer for (const, slopes, compare), answer in questions.items()
    )


def at(number: int, point: Point) -> int:
    """The value of a number at a point, whether it depends on it or not."""
    known: object = number
    return _at(known.const, known.slopes, point) if isinstance(known, Affine) else number


def has_steps(number: int, step: int) -> bool:
    """Whether the number grows by multiples of `step` alone."""
    known: object = number
    return not isinstance(known, Affine) or not any([slope % step for slope in known.slopes])


def _at(const: int, slopes: tuple[int, ...], point: Point) -> int:
    for slope, value in zip(slopes, point, strict=True):
        const += slope * value
    return const


class Affine:
    """`const + slopes[0] * unknown 0 + slopes[1] * unknown 1 + ...`; results that depend on no unknown are plain.

    It is no int, so that nothing can take its value without asking for it.
    """

    __slots__ = ("const", "slopes", "trace")

    def __init__(self, trace: Trace, const: int, slopes: tuple[int, ...]) -> None:
        self.trace: Final = trace
        self.const: Final = const
        self.slopes: Final = slopes

    def _made(self, const: int, slopes: tuple[int, ...]) -> "Affine | int":
        return Affine(self.trace, const, slopes) if any(slopes) else const

    def fixed(self) -> int:
        """The value at the trace's point, for operations whose result is not affine: it must be the same elsewhere."""
        value = _at(self.const, self.slopes, self.trace.point)
        self.trace.ask(self.const - value, self.slopes, operator.eq)
        return value

    # -- what is affine again

    def __add__(self, other: "Affine | int") -> "Affine | int":
        if isinstance(other, Affine):
            return self._made(self.const + other.const, tuple(map(operator.add, self.slopes, other.slopes)))
        return Affine(self.trace, self.const + other, self.slopes) if other else self

    __radd__ = __add__

    def __neg__(self) -> "Affine":
        return Affine(self.trace, -self.const, tuple(-slope for slope in self.slopes))

    def __sub__(self, other: "Affine | int") -> "Affine | int":
        return self + -other

    def __rsub__(self, other: int) -> "Affine | int":
        return -self + other

    def __mul__(self, other: "Affine | int") -> "Affine | int":
        if isinstance(other, Affine):
            return self * other.fixed()
        if other == 1:
            return self
        return self._made(self.const * other, tuple([slope * other for slope in self.slopes]))

    __rmul__ = __mul__

    def __floordiv__(self, other: "Affine | int") -> "Affine | int":
        divisor = int(other)
        if divisor == 1:
            return self
        if any([slope % divisor for slope in self.slopes]):
            return self.fixed() // divisor
        return Affine(self.trace, self.const // divisor, tuple([slope // divisor for slope in self.slopes]))

    def __rfloordiv__(self, other: int) -> int:
        return other // self.fixed()

    def __mod__(self, other: "Affine | int") -> int:
        divisor = int(other)
        return (self.fixed() if any(slope % divisor for slope in self.slopes) else self.const) % divisor

    def __rmod__(self, other: int) -> int:
        return other % self.fixed()

    # -- questions

    def _compare(self, other: object, compare: Callable[[int, int], bool]) -> bool:
        if not isinstance(other, (Affine, int)):
            raise TypeError(f"a size compared with {other!r}")
        difference = self - other
        if isinstance(difference, Affine):
            return self.trace.ask(difference.const, difference.slopes, compare)
        return compare(difference, 0)

    def __eq__(self, other: object) -> bool:
        return self._compare(other, operator.eq)

    def __lt__(self, other: object) -> bool:
        return self._compare(other, operator.lt)

    def __le__(self, other: object) -> bool:
        return self._compare(other, operator.le)

    def __gt__(self, other: object) -> bool:
        return self._compare(other, operator.gt)

    def __ge__(self, other: object) -> bool:
        return self._compare(other, operator.ge)

    def __bool__(self) -> bool:
        return self != 0

    # -- what needs the value

    def __int__(self) -> int:
        return self.fixed()

    __index__ = __int__

    def __float__(self) -> float:
        return float(self.fixed())

    def __truediv__(self, other: float) -> float:
        return self.fixed() / other

    def __rtruediv__(self, other: float) -> float:
        return other / self.fixed()

    def __hash__(self) -> int:
        return hash(self.fixed())

    def __repr__(self) -> str:
        return f"{_at(self.const, self.slopes, self.trace.point)} = {self.const} + {self.slopes} * {self.trace.point}"
