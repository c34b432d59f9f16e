"""What the HTTP side learns of a file."""

from pathlib import Path

import pytest

from ggufphys import open_gguf
from ggufphys.arch import read_hparams
from server.engine.describe import describe
from tests.ggufphys.models import llama_metadata, llama_tensors, write_model


class NoWords:
    """A vocabulary that nobody asks for a text."""

    n_vocab = 32
    bos = eos = None
    adds_bos = False

    def text(self, tokens: tuple[int, ...]) -> str:
        """Nothing."""
        del tokens
        return ""


@pytest.mark.parametrize(("written", "expected"), [(None, "none"), (0, "none"), (1, "mean"), (2, "cls"), (3, "last")])
def test_pooling_is_the_files(tmp_path: Path, written: int | None, expected: str) -> None:
    """Embeddings are pooled as the file says, which says nothing in most models of language."""
    metadata = llama_metadata() | ({} if written is None else {"llama.pooling_type": written})
    write_model(tmp_path / "m.gguf", metadata, llama_tensors())
    with open_gguf(tmp_path / "m.gguf") as gguf:
        hparams = read_hparams(gguf)
    info = describe(tmp_path / "m.gguf", NoWords(), name="", hparams=hparams, n_ctx_seq=8, n_params=1, model_bytes=1)  # type: ignore[arg-type]
    assert info.pooling == expected
