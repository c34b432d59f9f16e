"""The catalogue: its numbers are the published models'."""

import pytest

from ggufphys.errors import UnsupportedError
from ggufphys.synth.catalogue import shape_named, shapes
from ggufphys.synth.tables import BLOCKS
from ggufphys.synth.tensors import dims, tensor_table


@pytest.mark.parametrize("name", shapes())
def test_parameter_counts(name: str) -> None:
    """Every shape's tensor table holds exactly as many weights as the published model."""
    shape = shapes()[name]
    tensors = tensor_table(shape)

    assert sum(t.n_elements for t in tensors) == shape.n_params
    assert len({t.name for t in tensors}) == len(tensors)
    assert all(n > 0 for t in tensors for n in t.ne), "a dimension that the shape lacks"


def test_every_table_is_used() -> None:
    """Each architecture's table belongs to some shape, so that the counts above prove it."""
    assert {shape.architecture for shape in shapes().values()} == set(BLOCKS)


def test_every_shape_names_its_source() -> None:
    """A source is a repository and a file."""
    assert all("/" in shape.source and "." in shape.source for shape in shapes().values())


def test_keys_are_flat() -> None:
    """Dotted keys come out as GGUF has them, numbers with the type they are written with."""
    keys = shape_named("gemma-3-4b").keys

    assert keys["rope.scaling.type"] == "linear"
    assert (keys["attention.sliding_window"], type(keys["rope.freq_base"])) == (1024, float)


def test_cut() -> None:
    """A cut shape keeps everything but its later blocks, and claims no published count."""
    shape = shape_named("deepseek-v2-lite")
    cut = shape.cut(2)

    assert (cut.n_layer, cut.n_params, cut.n_vocab) == (2, None, shape.n_vocab)
    assert shape.cut(27) is shape
    assert [t for t in tensor_table(shape) if t.name.startswith(("blk.0.", "blk.1."))] == [
        t for t in tensor_table(cut) if t.name.startswith("blk.")
    ]
    for n_layer in (0, 28):
        with pytest.raises(ValueError, match=f"deepseek-v2-lite has 27 layers, asked for {n_layer}"):
            shape.cut(n_layer)


def test_layers_of_two_kinds() -> None:
    """A leading dense layer has no experts, and every fourth layer of a hybrid has attention."""
    deepseek = {t.name for t in tensor_table(shape_named("deepseek-v2-lite"))}
    hybrid = {t.name for t in tensor_table(shape_named("qwen3-next-80b-a3b"))}

    assert "blk.0.ffn_up.weight" in deepseek
    assert "blk.1.ffn_up_exps.weight" in deepseek
    assert not {"blk.0.ffn_up_exps.weight", "blk.1.ffn_up.weight"} & deepseek
    assert [i for i in range(8) if f"blk.{i}.attn_q.weight" in hybrid] == [3, 7]


def test_unknown_names() -> None:
    """An unknown shape or architecture is refused with the known ones listed."""
    with pytest.raises(ValueError, match=r"'gpt-5'.*mistral-7b"):
        shape_named("gpt-5")
    shape = shape_named("llama-110m")
    with pytest.raises(UnsupportedError, match=r"'bert'.*qwen3moe"):
        tensor_table(type(shape)(**{**{f: getattr(shape, f) for f in shape.__slots__}, "architecture": "bert"}))


def test_dims_without_attention() -> None:
    """A recurrent model has no heads, and nothing divides by them."""
    assert dims(shape_named("mamba2-2.7b"))["n_embd_q"] == 0
