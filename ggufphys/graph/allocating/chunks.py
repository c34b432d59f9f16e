"""Where does a tensor go when a backend's buffers may be no larger than so much? Into one of up to 16 chunks.

A chunk is as large as the backend allows, larger for a tensor that is; the last one takes whatever is left.

Source: llama.cpp 0c1e570 ggml/src/ggml-alloc.c, ggml_dyn_tallocr_new_chunk, ggml_dyn_tallocr_alloc.
"""

from typing import Final, TypeAlias

from ggufphys.graph.allocating.free_list import OPEN_END, FreeList, FreeState

ChunkState: TypeAlias = tuple[tuple[FreeState, int], ...]

MAX_CHUNKS: Final = 16  # GGML_VBUFFER_MAX_CHUNKS
_SHIFT: Final = 48  # an address is a chunk's number in front of so many bits of offset


class Chunks:
    """Free stretches of several growing buffers; as `FreeList`, with addresses for offsets."""

    __slots__ = ("chunk_bytes", "chunks")

    def __init__(self, chunk_bytes: int) -> None:
        self.chunk_bytes = chunk_bytes
        self.chunks: list[FreeList] = []

    @property
    def chunk_sizes(self) -> tuple[int, ...]:
        """Bytes of each chunk."""
        return tuple(chunk.max_end for chunk in self.chunks)

    @property
    def state(self) -> ChunkState:
        """What is free, and how far each chunk has grown, which decides too."""
        return tuple((chunk.state, chunk.max_end) for chunk in self.chunks)

    @state.setter
    def state(self, state: ChunkState) -> None:
        self.chunks = [FreeList() for _ in state]
        for chunk, (free, max_end) in zip(self.chunks, state, strict=True):
            chunk.state, chunk.max_end = free, max_end

    def take(self, size: int) -> int:
        """The address of a free stretch that fits: behind a chunk's end only if there is none in front of any."""
        number, stretch = self._in_front(size)
        if number < 0:
            number, stretch = self._at_the_end(size)
        if number < 0:
            is_last = len(self.chunks) == MAX_CHUNKS - 1
            self.chunks.append(FreeList(OPEN_END if is_last else max(size, self.chunk_bytes)))
            number, stretch = len(self.chunks) - 1, 0
        return number << _SHIFT | self.chunks[number].take_at(stretch, size)

    def give_back(self, address: int, size: int) -> None:
        """Return a stretch to its chunk."""
        self.chunks[address >> _SHIFT].give_back(address & ((1 << _SHIFT) - 1), size)

    def _in_front(self, size: int) -> tuple[int, int]:
        """Of the last chunk that has any the smallest free stretch that fits, but for its end (the later of equals)."""
        for number in range(len(self.chunks) - 1, -1, -1):
            best, best_size = -1, 1 << 63
            for i, free in enumerate(self.chunks[number].sizes[:-1]):
                if size <= free <= best_size:
                    best, best_size = i, free
            if best >= 0:
                return number, best
        return -1, -1

    def _at_the_end(self, size: int) -> tuple[int, int]:
        """The end of the chunk that has the least to grow for it, of those that needn't the one that is filled most."""
        found, best = (-1, -1), -(1 << 63)
        for number, chunk in enumerate(self.chunks):
            if chunk.sizes and chunk.sizes[-1] >= size:
                spare = chunk.max_end - chunk.offsets[-1] - size
                if spare > best if best < 0 else 0 <= spare < best:
                    found, best = (number, len(chunk.sizes) - 1), spare
        return found
