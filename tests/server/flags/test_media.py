"""Which encoder of images do flags name?"""

from pathlib import Path

import pytest

from bench.clip.files import write_clip
from bench.clip.shape import ClipShape
from server.engine.media import Encoder
from server.flags.media import downloaded_with, encoder_of
from tests.server.flags.test_serve import parse


def touched(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).touch()


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("a-Q8_0.gguf", "mmproj-a-Q8_0.gguf"),
        ("a-Q4_K_M.gguf", "mmproj-a-Q8_0.gguf"),
        ("a-BF16.gguf", "mmproj-a-f16.gguf"),
        ("a-BF16-00001-of-00002.gguf", "mmproj-a-f16.gguf"),
    ],
)
def test_the_encoder_beside_a_model(tmp_path: Path, model: str, expected: str) -> None:
    """Of nearly as many bits, as llama-server takes it."""
    assert downloaded_with(tmp_path / model) is None
    touched(tmp_path, "mmproj-a-f16.gguf", "mmproj-a-Q8_0.gguf", "a-Q8_0.gguf", "mmproj.txt")
    assert downloaded_with(tmp_path / model) == tmp_path / expected


def test_what_was_downloaded_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With -hf alone, and never where it cannot be."""
    model, path = tmp_path / "a.gguf", tmp_path / "mmproj-a.gguf"
    write_clip(path, ClipShape(projector="mlp"))
    args = parse(["-hf", "a/b", "--image-max-tokens", "9"])
    assert encoder_of(args, model, vectors=False) == Encoder(path=str(path), image_max_tokens=9)
    for flags in ([], ["-hf", "a/b", "--no-mmproj"], ["-hf", "a/b", "--batch-invariant"]):
        assert encoder_of(parse(flags), model, vectors=False) is None
    assert encoder_of(args, model, vectors=True) is None
    write_clip(path, ClipShape(projector="hunyuanvl"))
    assert encoder_of(args, model, vectors=False) is None
    assert "images and sounds are not read" in capsys.readouterr().err


def test_what_is_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "mmproj.gguf", ClipShape(projector="mlp"))
    for flags, why in (
        (["--image-min-tokens", "9", "--image-max-tokens", "8"], "more than 8"),
        (["--engine", "numpy"], "not with --engine numpy"),
    ):
        with pytest.raises(ValueError, match=why):
            encoder_of(parse(["-mm", str(path), *flags]), tmp_path / "a.gguf", vectors=False)
    with pytest.raises(ValueError, match="vectors of texts"):
        encoder_of(parse(["-mm", str(path)]), tmp_path / "a.gguf", vectors=True)
