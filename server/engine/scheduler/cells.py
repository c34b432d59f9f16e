"""How much room is left? Cells of the cache by who holds them, counted as llama.cpp counts them.

In a unified cache sequences share one pool and a cell that several of them hold (a common prefix) counts once. In a
divided one each has as many as a sequence can use, so room never runs out before a sequence's own end.
"""

from array import array


class Cells:
    """The cells of a unified cache. A slot's cells are in the order of its positions.

    A cell is in use while a slot holds it, and busy while a slot under way (`busy`) does.
    """

    def __init__(self, n_cells: int, n_slots: int) -> None:
        self.n_cells = n_cells
        self._free = array("i", range(n_cells - 1, -1, -1))
        self._holders = array("i", bytes(4 * n_cells))
        self._busy_holders = array("i", bytes(4 * n_cells))
        self._of: list[array[int]] = [array("i") for _ in range(n_slots)]
        self._is_busy = [False] * n_slots
        self.n_busy = 0

    @property
    def n_free(self) -> int:
        """Cells that no slot holds."""
        return len(self._free)

    @property
    def n_used(self) -> int:
        """Cells that some slot holds."""
        return self.n_cells - len(self._free)

    def append(self, slot: int, n: int) -> None:
        """Give a slot `n` free cells. Raises IndexError if there are fewer."""
        for _ in range(n):
            cell = self._free.pop()
            self._holders[cell] = 1
            self._of[slot].append(cell)
            if self._is_busy[slot]:
                self._busy_holders[cell] = 1
                self.n_busy += 1

    def share(self, source: int, target: int, n: int) -> None:
        """Let the target, which holds none, hold the source's first `n` too."""
        assert not self._of[target]
        shared = self._of[source][:n]
        self._of[target].extend(shared)
        for cell in shared:
            self._holders[cell] += 1
        if self._is_busy[target]:
            self._count_busy(shared, 1)

    def cut(self, slot: int, n: int) -> None:
        """Take all but a slot's first `n` from it."""
        dropped = self._of[slot][n:]
        del self._of[slot][n:]
        if self._is_busy[slot]:
            self._count_busy(dropped, -1)
        for cell in dropped:
            self._holders[cell] -= 1
            if not self._holders[cell]:
                self._free.append(cell)

    def busy(self, slot: int, is_busy: bool) -> None:
        """Say whether the slot's cells are needed by what is under way."""
        if self._is_busy[slot] != is_busy:
            self._is_busy[slot] = is_busy
            self._count_busy(self._of[slot], 1 if is_busy else -1)

    def _count_busy(self, cells: "array[int]", change: int) -> None:
        for cell in cells:
            before = self._busy_holders[cell]
            self._busy_holders[cell] = before + change
            self.n_busy += (before + change > 0) - (before > 0)


class OwnCells:
    """The cells of a divided cache, or of a model that keeps a state instead: none of them can be short."""

    def __init__(self, n_cells: int, n_slots: int) -> None:
        self.n_cells = self.n_free = n_cells * n_slots  # as far as others are concerned, all are free
        self._n = [0] * n_slots
        self._is_busy = [False] * n_slots

    @property
    def n_used(self) -> int:
        """Cells that slots hold."""
        return sum(self._n)

    @property
    def n_busy(self) -> int:
        """Cells of slots under way."""
        return sum(n for n, is_busy in zip(self._n, self._is_busy, strict=True) if is_busy)

    def append(self, slot: int, n: int) -> None:
        """Note `n` more of a slot."""
        self._n[slot] += n

    def share(self, source: int, target: int, n: int) -> None:
        """Note a copy."""
        del source
        self._n[target] = n

    def cut(self, slot: int, n: int) -> None:
        """Note what is left of a slot."""
        self._n[slot] = min(self._n[slot], n)

    def busy(self, slot: int, is_busy: bool) -> None:
        """Note whether the slot is under way."""
        self._is_busy[slot] = is_busy
