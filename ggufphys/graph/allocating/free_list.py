"""Which stretches of one growing buffer are free?

Source: llama.cpp 0c1e570 ggml/src/ggml-alloc.c, ggml_dyn_tallocr_alloc, ggml_dyn_tallocr_free_bytes.
"""

from bisect import bisect_left
from operator import add
from typing import Final, TypeAlias

FreeState: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]

OPEN_END: Final = 1 << 62


class FreeList:
    """Free stretches of one growing buffer, sorted by offset, as offsets and sizes; the last one is the open end.

    A buffer that may not grow beyond `size` has no open end any more once it is full.
    """

    __slots__ = ("max_end", "offsets", "sizes")

    def __init__(self, size: int = OPEN_END) -> None:
        self.offsets = [0]
        self.sizes = [size]
        self.max_end = 0

    @property
    def chunk_sizes(self) -> tuple[int, ...]:
        """Bytes of the one buffer."""
        return (self.max_end,) if self.max_end else ()

    @property
    def state(self) -> FreeState:
        """What is free."""
        return tuple(self.offsets), tuple(self.sizes)

    @state.setter
    def state(self, state: FreeState) -> None:
        self.offsets[:], self.sizes[:] = state

    def take(self, size: int) -> int:
        """The offset of the smallest free stretch that fits (the later one of equals), else of the open end."""
        best, best_size = -1, 1 << 63
        for i, free in enumerate(self.sizes):
            if size <= free <= best_size:
                best, best_size = i, free
        return self.take_at(best, size)

    def take_at(self, best: int, size: int) -> int:
        """The offset of the free stretch of that number, which is then shorter or gone."""
        offset, best_size = self.offsets[best], self.sizes[best]
        if best_size == size:
            del self.offsets[best], self.sizes[best]
        else:
            self.offsets[best] = offset + size
            self.sizes[best] = best_size - size
        if offset + size > self.max_end:
            self.max_end = offset + size
        return offset

    def give_back(self, offset: int, size: int) -> None:
        """Return a stretch, joined with its free neighbours as far as ggml sees them."""
        offsets, sizes = self.offsets, self.sizes
        if not size or 0 in sizes:
            self._give_back_slowly(offset, size)
            return
        i = bisect_left(offsets, offset)  # the stretch behind it
        touches = i < len(offsets) and offsets[i] == offset + size
        if i and offsets[i - 1] + sizes[i - 1] == offset:
            sizes[i - 1] += size
            if touches:
                sizes[i - 1] += sizes[i]
                del offsets[i], sizes[i]
        elif touches:
            offsets[i] = offset
            sizes[i] += size
        else:
            offsets.insert(i, offset)
            sizes.insert(i, size)

    def _give_back_slowly(self, offset: int, size: int) -> None:
        """Return a stretch where there may be others of no bytes, which keep their neighbours apart.

        Returning nothing, for a tensor without elements, leaves one, and it may even lie within another tensor, so that
        all must be looked at.
        """
        offsets, sizes, end, n = self.offsets, self.sizes, offset + size, len(self.offsets)
        ends = list(map(add, offsets, sizes))
        front = ends.index(offset) if offset in ends else n
        behind = offsets.index(end) if end in offsets else n
        if front < n and front <= behind:  # the first that touches it, on either side
            sizes[front] += size
            if front + 1 < n and offsets[front + 1] == end:
                sizes[front] += sizes[front + 1]
                del offsets[front + 1], sizes[front + 1]
        elif behind < n:
            offsets[behind] = offset
            sizes[behind] += size
            if behind and ends[behind - 1] == offset:
                sizes[behind - 1] += sizes[behind]
                del offsets[behind], sizes[behind]
        else:
            i = next((i for i, start in enumerate(offsets) if start >= offset), n)
            offsets.insert(i, offset)
            sizes.insert(i, size)
