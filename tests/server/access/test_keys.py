"""API keys: from flags and files, and matched."""

from pathlib import Path

import pytest

from server.access.keys import Keys, key_id, read_keys


def test_keys(tmp_path: Path) -> None:
    """Keys come from the flag, several by commas, and from the lines of a file."""
    file = tmp_path / "keys"
    file.write_text("# ours\nc\n\n d \n")

    assert read_keys(["a,b,", "a"], file) == ("a", "b", "c", "d")
    assert read_keys([], None) == ()


@pytest.mark.parametrize("given", [[""], [" , "], ["a", ""]])
def test_empty_keys_are_refused(given: list[str]) -> None:
    """A key that was asked for and is empty, as an unset variable in a unit file makes it, never opens the server."""
    with pytest.raises(ValueError, match="LLAMA_API_KEY"):
        read_keys(given, None)


def test_matching_keys() -> None:
    """Each key opens, by an id that is not the key; nothing else does; keys can be replaced."""
    keys = Keys(("one", "zwei€"))

    assert keys.match("zwei€") == key_id("zwei€") != keys.match("one")
    assert "one" not in keys.match("one")
    assert [keys.match(wrong) for wrong in ("", "on", "onee", "ONE")] == [""] * 4
    keys.replace(("other",))
    assert not keys.match("one")
