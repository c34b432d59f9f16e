"""`hf:owner/repo` of a model that has been downloaded: which file of the Hub's cache is meant?"""

from pathlib import Path

import pytest

from ggufphys.cli import main
from ggufphys.errors import GGUFError
from ggufphys.gguf.downloaded import downloaded_path
from tests.ggufphys.stores.machine import hub_file, places

REPO = "me/tiny-GGUF"


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "LLAMA_CACHE"])
def test_by_name_and_by_type(tmp_path: Path, variable: str) -> None:
    """A file goes by its path, its type or alone by the repository's name; attachments beside it are not meant."""
    hub = tmp_path / "hub"
    kept = hub_file(hub, REPO, "q/tiny-Q4_K_M.gguf")
    hub_file(hub, REPO, "mmproj-tiny-f16.gguf")
    machine = places(tmp_path, **{variable: str(hub)})

    for name in ("", ":Q4_K_M", ":q4_k_m", ":q/tiny-Q4_K_M.gguf", "@main", "@main:Q4_K_M"):
        assert downloaded_path(f"hf:{REPO}{name}", machine) == kept


def test_revisions(tmp_path: Path) -> None:
    """`main` is what was downloaded of it last; others go by their name or commit."""
    hub = tmp_path / "hub"
    old = hub_file(hub, REPO, "tiny.gguf", commit=40 * "a", ref="v1")
    new = hub_file(hub, REPO, "tiny.gguf", commit=40 * "b")
    machine = places(tmp_path, HF_HUB_CACHE=str(hub))

    assert downloaded_path(f"hf:{REPO}", machine) == new
    assert downloaded_path(f"hf:{REPO}@v1", machine) == old
    assert downloaded_path(f"hf:{REPO}@{40 * 'a'}", machine) == old


def test_of_a_split_model_the_first_shard(tmp_path: Path) -> None:
    """Shards are one model."""
    hub = tmp_path / "hub"
    shards = [hub_file(hub, REPO, f"Q8_0/tiny-Q8_0-0000{i}-of-00002.gguf") for i in (1, 2)]

    assert downloaded_path(f"hf:{REPO}:Q8_0", places(tmp_path, HF_HUB_CACHE=str(hub))) == shards[0]


def test_blobs_that_are_gone(tmp_path: Path) -> None:
    """A link whose file was removed is none of those that there are."""
    hub = tmp_path / "hub"
    kept = hub_file(hub, REPO, "tiny-Q4_K_M.gguf")
    hub_file(hub, REPO, "tiny-Q8_0.gguf").resolve().unlink()

    assert downloaded_path(f"hf:{REPO}", places(tmp_path, HF_HUB_CACHE=str(hub))) == kept


def test_what_is_not_there(tmp_path: Path) -> None:
    """Several files, another type and another repository: each message says what to do."""
    hub = tmp_path / "hub"
    hub_file(hub, REPO, "tiny-Q4_K_M.gguf")
    hub_file(hub, REPO, "tiny-Q8_0.gguf")
    machine = places(tmp_path, HF_HUB_CACHE=str(hub))

    with pytest.raises(ValueError, match=r"2 downloaded GGUF files; say which:\n  hf:me/tiny-GGUF:tiny-Q4_K_M.gguf"):
        downloaded_path(f"hf:{REPO}", machine)
    with pytest.raises(ValueError, match="no downloaded GGUF file is named so"):
        downloaded_path(f"hf:{REPO}:Q6_K", machine)
    for name, command in (
        ("me/other", "hf download me/other"),
        ("me/other:Q4_K_M", "hf download me/other"),
        ("me/other@v1:a.gguf", "hf download me/other a.gguf --revision v1"),
    ):
        with pytest.raises(GGUFError, match=f"been downloaded to .*hub .*`{command}`"):
            downloaded_path(f"hf:{name}", machine)


def test_commands_that_need_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They take the name for the file; without it the exit code is 3."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    hub_file(tmp_path / "hub", REPO, "tiny.gguf")

    assert main(["doctor", f"hf:{REPO}", "--json"]) in (0, 1)
    assert main(["measure", "hf:me/other"]) == 3
    assert "`hf download me/other`" in capsys.readouterr().err
