"""Buffers made of chunks."""

from ggufphys.graph.allocating.chunks import MAX_CHUNKS, Chunks


def test_chunks_fill_up() -> None:
    """What does not fit opens a chunk, a larger tensor one of its own; what was given back is taken again."""
    chunks = Chunks(100)
    first, second = chunks.take(60), chunks.take(60)
    chunks.take(250)
    assert chunks.chunk_sizes == (60, 60, 250)

    chunks.give_back(first, 60)
    chunks.take(20)
    chunks.take(30)
    assert chunks.chunk_sizes == (60, 60, 250)
    assert first != second


def test_the_last_chunk_takes_what_is_left() -> None:
    """There are 16 at most, the last one as large as it takes."""
    chunks = Chunks(10)
    for _ in range(MAX_CHUNKS + 4):
        chunks.take(10)

    assert chunks.chunk_sizes == (10,) * (MAX_CHUNKS - 1) + (50,)
