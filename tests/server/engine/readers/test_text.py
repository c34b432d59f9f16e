"""What may be shown of a growing byte stream."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engine.readers.text import TextStream


def shown(stream: TextStream, pieces: list[bytes]) -> list[str]:
    """What each piece lets through, then what is left at the end."""
    return [*(stream.feed(piece) for piece in pieces), *([] if stream.stopped else [stream.finish()])]


def test_characters_across_tokens() -> None:
    """A character is shown when its last byte comes, never in part."""
    pieces = [bytes([byte]) for byte in "é€😀".encode()]

    assert shown(TextStream(), pieces) == ["", "é", "", "", "€", "", "", "", "😀", ""]


def test_unfinished_character() -> None:
    """Bytes of a character that never gets whole are dropped at the end."""
    assert shown(TextStream(), [b"a", "€".encode()[:2]]) == ["a", "", ""]


def test_invalid_bytes() -> None:
    """Bytes that are not UTF-8 become U+FFFD and do not hold back what follows."""
    assert "".join(shown(TextStream(), [b"a\xff", b"b\xc3", b"c"])) == "a\ufffdb\ufffdc"


def test_stop_across_tokens() -> None:
    """The start of a stop string is held back, and once it is complete nothing of it is ever shown."""
    stream = TextStream(["STOP"])

    assert shown(stream, [b"go S", b"TO", b"P now"]) == ["go ", "", ""]
    assert stream.stopped
    assert stream.feed(b"more") == ""


def test_false_start() -> None:
    """What looked like a stop string and was not is shown as soon as that is clear."""
    assert shown(TextStream(["STOP"]), [b"ST", b"OA", b"ST"]) == ["", "STOA", "", "ST"]


def test_repeated_prefix() -> None:
    """A stop string that begins inside a failed match of itself is found."""
    stream = TextStream(["aab"])

    assert shown(stream, [b"a", b"a", b"a", b"b"]) == ["", "", "a", ""]
    assert stream.stopped


def test_first_stop_wins() -> None:
    """Of several stop strings the one that begins first cuts the text."""
    stream = TextStream(["world", "lo"])

    assert shown(stream, [b"hello world"]) == ["hel"]


def test_stop_of_several_bytes() -> None:
    """A stop string whose characters come byte by byte is found."""
    stream = TextStream(["😀!"])
    pieces = [bytes([byte]) for byte in "a😀!b".encode()]

    assert "".join(shown(stream, pieces)) == "a"
    assert stream.stopped


@given(
    text=st.text(alphabet="ab€", max_size=30),
    stop=st.lists(st.text(alphabet="ab€", min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(1, 3), min_size=1, max_size=5),
)
def test_pieces_do_not_matter(text: str, stop: list[str], cuts: list[int]) -> None:
    """However the bytes are cut into tokens, what is shown is the text up to where a stop string first completes."""
    raw, at = text.encode(), 0
    pieces: list[bytes] = []
    while at < len(raw):
        n = cuts[len(pieces) % len(cuts)]
        pieces.append(raw[at : at + n])
        at += n
    stream = TextStream(stop)
    result = ""
    for piece in pieces:
        result += stream.feed(piece)
        assert not any(each in result for each in stop)
    result += "" if stream.stopped else stream.finish()

    assert bool(stream.stopped) == any(each in text for each in stop)
    assert text.startswith(result)
    if not stream.stopped:
        assert result == text
    else:
        assert any(text[len(result) :].startswith(each) for each in stop)


@pytest.mark.parametrize("stop", [(), ("x",)])
def test_nothing_in_nothing_out(stop: tuple[str, ...]) -> None:
    """Control tokens, which have no bytes, show nothing."""
    assert shown(TextStream(stop), [b"", b""]) == ["", "", ""]
