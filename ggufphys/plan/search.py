"""Which is the last step that fits? Found with few predictions."""

from bisect import bisect_right
from collections.abc import Callable


def largest(least: int, top: int, over: Callable[[int], int], guessed: Callable[[int], int] | None = None) -> int:
    """The step whose `over` is 0 or less and the next one's more; `top` if that fits, `least` if that does not.

    Each call of `over` is a prediction, so they are few: what to try next is where `guessed`, which learns from them,
    says that it changes, or without it where a straight line would; it halves when that leads nowhere.
    """
    low, high = least, top + 1
    if guessed is None or guessed(top) <= 0:
        if over(top) <= 0:
            return top
        high = top
    if low >= high or over(low) > 0:
        return low
    slow = 0
    while high - low > 1:
        width = high - low
        if slow > 1:
            step = low + width // 2
        elif guessed is not None:
            step = bisect_right(range(low + 1, high), 0, key=guessed) + low
        else:
            step = low + int(width * -over(low) / (over(high) - over(low)))
        step = min(max(step, low + 1), high - 1)
        low, high = (step, high) if over(step) <= 0 else (low, step)
        slow = slow + 1 if 2 * (high - low) > width else 0
    return low
