"""Answers end at a line that is not indented enough."""

import pytest

from server.engine.events import Finished, Piece
from server.engine.frames import Began, Cancel, Said, Step
from server.engine.generation import Generation
from server.engine.loop.jobs import Job, is_time_over
from server.engine.readers.lines import Lines
from server.engine.readers.readers import Readers
from server.engine.request import GenerationRequest

# what is written, by blanks that lines are to have: what of it is shown, and whether that is all
CASES = {
    "first line": ("a\n", 2, "a\n", False),
    "enough": ("a\n  b\n\t c\n", 2, "a\n  b\n\t c\n", False),
    "too few": ("a\n  b\n c\n", 2, "a\n  b\n ", True),
    "none": ("  a\nb", 1, "  a\n", True),
    "an empty line": ("a\n\n  b", 2, "a\n", True),
    "blanks within": ("a\n  b  \n  c d", 2, "a\n  b  \n  c d", False),
    "any will do": ("a\nb\n\nc", 0, "a\nb\n\nc", False),
}


@pytest.mark.parametrize("size", [1, 2, 100])
@pytest.mark.parametrize("case", CASES)
def test_lines(case: str, size: int) -> None:
    """However a text is cut into pieces, what is shown ends before the first word of a line with too few blanks."""
    text, n_indent, expected, is_cut = CASES[case]
    lines, shown = Lines(n_indent), ""
    for start in range(0, len(text), size):
        shown += lines.feed(text[start : start + size])
        if lines.is_cut:
            break
    assert (shown, lines.is_cut) == (expected, is_cut)


def test_the_end_of_an_answer() -> None:
    """An answer that is cut at a line ends for its length, with what was shown; the context was not full."""
    generation = Generation(GenerationRequest(prompt=(1,), n_indent=2, stop=("z",), return_tokens=True))
    cancelled: list[Cancel] = []
    readers = Readers(cancelled.append)
    readers.add(7, generation)
    said = [Said(7, 0, token, piece, None, False, None) for token, piece in enumerate([b"a\n", b"  b\n", b"c", b"d"])]
    readers.take(Step(0.0, [Began(7, 0, ""), *said], None))

    events = [generation.next_event(0) for _ in range(5)]
    assert [(e.text, len(e.tokens)) for e in events if isinstance(e, Piece)] == [("a\n", 1), ("  b\n", 1)]
    (finished,) = [e for e in events if isinstance(e, Finished)]
    assert (finished.reason, finished.stop, finished.truncated) == ("length", "", False)
    assert cancelled == [Cancel(7, 0)]


@pytest.mark.parametrize(("piece", "is_over"), [(b"x", False), (b"x\n", True)])
def test_time_ends_with_a_line(monkeypatch: pytest.MonkeyPatch, piece: bytes, is_over: bool) -> None:
    """An answer whose time is over goes on to the end of its line; one whose deadline is does not."""
    monkeypatch.setattr("time.perf_counter", lambda: 100.0)
    timed = Job(GenerationRequest(prompt=(1,), max_generation_s=1.0), {}, first_token_at=90.0)
    late = Job(GenerationRequest(prompt=(1,), ends_by_s=99.0), {}, first_token_at=99.5)

    assert is_time_over(timed, line_ends=b"\n" in piece) == is_over
    assert is_time_over(late, line_ends=b"\n" in piece)
