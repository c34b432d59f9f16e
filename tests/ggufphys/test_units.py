"""Bytes become text and back in one place."""

import pytest

from ggufphys.units import format_bytes, format_count, format_mib, parse_bytes


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (4368439584, "4.07 GiB"), (-2048, "-2.00 KiB")],
)
def test_format_bytes(nbytes: int, text: str) -> None:
    """The largest unit that leaves a whole one."""
    assert format_bytes(nbytes) == text


def test_format_mib_is_llama_cpps_precision() -> None:
    """Two decimals, as llama.cpp's log."""
    assert format_mib(1_234_567_890) == "1,177.38"


@pytest.mark.parametrize(("count", "text"), [(999, "999"), (7_241_732_096, "7.24 B"), (109_529_856, "109.53 M")])
def test_format_count(count: int, text: str) -> None:
    """Decimal prefixes, as models are named."""
    assert format_count(count) == text


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("24GiB", 24 << 30), ("24G", 24 << 30), ("24gb", 24 * 10**9), ("1.5 MiB", 3 << 19), ("512", 512), ("8k", 8192)],
)
def test_parse_bytes(text: str, nbytes: int) -> None:
    """Binary by default, decimal when it says so."""
    assert parse_bytes(text) == nbytes


@pytest.mark.parametrize("text", ["", "GiB", "1 lump", "-3", "1e9"])
def test_parse_bytes_refuses(text: str) -> None:
    """Anything else is an error that says what is expected."""
    with pytest.raises(ValueError, match="expected a number and a unit"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["8E", "9" * 400, "9" * 400 + "GiB", "8192PiB"])
def test_parse_bytes_has_an_end(text: str) -> None:
    """What 64 bits do not count is refused, what no float holds among it."""
    with pytest.raises(ValueError, match="not a size"):
        parse_bytes(text)
