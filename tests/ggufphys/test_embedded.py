"""The model file that ships."""

from collections.abc import Iterator

import pytest

from ggufphys import GGMLType, GGUFFile, open_gguf
from ggufphys.embedded import MODEL


@pytest.fixture(scope="module")
def gguf() -> Iterator[GGUFFile]:
    """The embedded model's header."""
    with open_gguf(MODEL) as opened:
        yield opened


def test_file_is_small_enough_to_ship() -> None:
    """At most 12 MB, header included."""
    assert MODEL.stat().st_size <= 12_000_000


def test_matrices_are_f16_and_quantise_in_blocks_of_256(gguf: GGUFFile) -> None:
    """Every matrix is F16 with rows of a multiple of 256, as K-quants require; every norm is F32."""
    for tensor in gguf.tensors:
        if len(tensor.ne) == 1:
            assert tensor.ggml_type == GGMLType.F32, tensor.name
        else:
            assert tensor.ggml_type == GGMLType.F16, tensor.name
            assert tensor.ne[0] % 256 == 0, tensor.name


def test_header_says_what_the_model_is(gguf: GGUFFile) -> None:
    """Name, description, author, and both licences stand in the file itself."""
    assert gguf.architecture == "llama"
    assert gguf.file_type == "F16"
    assert gguf.name == "Stdlib 6M"
    assert gguf.get_str("general.license", "") == "mit"
    for key in ("general.description", "general.author", "general.dataset.0.name"):
        assert gguf.get_str(key, ""), key
    assert "Python Software Foundation License" in gguf.get_str("general.license.name", "")


def test_header_holds_a_whole_tokenizer(gguf: GGUFFile) -> None:
    """Tokens, their types and merges agree in number, and one end-of-text token serves as beginning and end."""
    lengths = {name: len(gguf.get_array(f"tokenizer.ggml.{name}") or ()) for name in ("tokens", "token_type", "merges")}

    # 256 bytes and one control token need no merge.
    assert lengths == {"tokens": 4096, "token_type": 4096, "merges": 4096 - 257}
    assert gguf.get_int("llama.vocab_size", 0) == 4096
    for name in ("bos", "eos", "padding"):
        assert gguf.get_int(f"tokenizer.ggml.{name}_token_id", -1) == 0
    assert not gguf.get_bool("tokenizer.ggml.add_bos_token", True)
