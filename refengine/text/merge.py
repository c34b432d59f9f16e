"""Which neighbours become one? The pair of least rank first, the leftmost of equals, until no pair has a rank."""

import heapq
from collections.abc import Callable

Rank = Callable[[str, str], float | None]


def merge(symbols: list[str], rank: Rank) -> list[str]:
    """The symbols that are left when all pairs with a rank have been merged.

    Source: llama.cpp 0c1e570 src/llama-vocab.cpp, llm_tokenizer_spm_session, llm_tokenizer_bpe_session.
    """
    symbols = list(symbols)
    n = len(symbols)
    before, behind = list(range(-1, n - 1)), list(range(1, n + 1))
    pairs: list[tuple[float, int, int, int]] = []

    def consider(left: int, right: int) -> None:
        if left >= 0 and right < n:
            found = rank(symbols[left], symbols[right])
            if found is not None:
                heapq.heappush(pairs, (found, left, right, len(symbols[left]) + len(symbols[right])))

    for i in range(n - 1):
        consider(i, i + 1)
    while pairs:
        _, left, right, length = heapq.heappop(pairs)
        # Symbols only grow, or are emptied: another length means that the pair is no longer there.
        if not symbols[left] or not symbols[right] or len(symbols[left]) + len(symbols[right]) != length:
            continue
        symbols[left] += symbols[right]
        symbols[right] = ""
        behind[left] = behind[right]
        if behind[right] < n:
            before[behind[right]] = left
        consider(before[left], left)
        consider(left, behind[left])
    return [symbol for symbol in symbols if symbol]
