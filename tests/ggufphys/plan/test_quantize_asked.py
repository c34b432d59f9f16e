"""What may be asked of the quantiser: names of types, conversions that it refuses, metadata that it needs."""

from pathlib import Path

import pytest

from ggufphys.errors import GGUFError
from ggufphys.gguf.ggml_types import FILE_TYPES, GGMLType
from ggufphys.gguf.writer import TensorSpec, encode_header
from ggufphys.plan.quantize import (
    QuantizeOptions,
    check_conversions,
    choose_types,
    needs_imatrix,
    parse_file_type,
    parse_tensor_type,
    quantize_model,
    quantized_order,
)
from ggufphys.plan.quantize_tables import BASE_TYPES
from tests.ggufphys.plan.quantize_models import Metadata, metadata_of, soup, write_hole
from tests.ggufphys.plan.quantizer import Quantizer


def test_rows_must_fit_a_type_asked_for() -> None:
    """llama-quantize aborts where rows are no multiple of the block asked for an embedding: refused by name."""
    model = quantize_model(metadata_of("llama", 1, 8, 2, 0))
    tensors = [TensorSpec("token_embd.weight", (288, 8), GGMLType.F16)]
    with pytest.raises(ValueError, match=r"aborts at tensor 'token_embd\.weight'.*288.*Q4_K"):
        choose_types(model, tensors, "Q8_0", QuantizeOptions(token_embedding_type=GGMLType.Q4_K))


@pytest.mark.parametrize("ggml_type", [GGMLType.Q8_0, GGMLType.Q8_1, GGMLType.I32, GGMLType.F32, GGMLType.BF16])
@pytest.mark.parametrize("allow", [False, True])
def test_conversions(ggml_type: GGMLType, allow: bool, tmp_path: Path) -> None:
    """What llama.cpp converts we allow, what it refuses we refuse: requantising, integers, types without a way back."""
    pytest.importorskip("llama_cpp")
    tensors = [TensorSpec("token_embd.weight", (256, 8), ggml_type)]
    metadata = metadata_of("llama", 1, 8, 2, 0)
    source = tmp_path / "source.gguf"
    write_hole(source, encode_header(metadata, tensors), tensors)
    options = QuantizeOptions(allow_requantize=allow)
    with Quantizer() as child:
        answer = child.ask(source, "Q4_0", options, output=tmp_path / "out.gguf")
    types = choose_types(quantize_model(metadata), tensors, "Q4_0", options)
    try:
        check_conversions(tensors, types, options)
    except ValueError:
        assert "error" in answer
    else:
        assert "types" in answer


def test_a_type_already_there_is_copied() -> None:
    """A quantised tensor that keeps its type is no requantising."""
    tensors = [TensorSpec("blk.0.attn_q.weight", (256, 8), GGMLType.Q4_0)]

    check_conversions(tensors, [GGMLType.Q4_0], QuantizeOptions())


def test_types_by_name() -> None:
    """Types are read in any case; those that nothing is quantised to are refused with the others listed."""
    assert parse_tensor_type("q4_k") is GGMLType.Q4_K
    with pytest.raises(ValueError, match=r"'q8_k'.*IQ2_S"):
        parse_tensor_type("q8_k")
    with pytest.raises(ValueError, match=r"'\(' is not a regular expression"):
        QuantizeOptions(tensor_types=(("(", GGMLType.Q8_0),))


def test_order_given_does_not_matter() -> None:
    """Types come back in the order given and do not depend on it."""
    model = quantize_model(metadata_of("llama", 16, 8, 2, 0))
    tensors = soup(16, 0, tied=False, columns=(256,))
    backwards = tensors[::-1]

    assert choose_types(model, tensors, "Q4_K_M") == choose_types(model, backwards, "Q4_K_M")[::-1]


def test_order_of_the_output() -> None:
    """llama-quantize writes tensors without a layer first, then layer by layer, each in the order of names."""
    names = ["blk.10.attn_v.weight", "output.weight", "blk.2.ffn_up.weight", "blk.2.attn_q.weight", "a.weight"]

    assert quantized_order(names) == [
        "a.weight",
        "output.weight",
        "blk.2.attn_q.weight",
        "blk.2.ffn_up.weight",
        "blk.10.attn_v.weight",
    ]


def test_file_types_by_name() -> None:
    """Names are read in any case, aliases resolved, unknown ones refused with the known ones listed."""
    assert [parse_file_type(t) for t in ("q4_k_m", "Q4_K", "bf16")] == ["Q4_K_M", "Q4_K_M", "BF16"]
    with pytest.raises(ValueError, match=r"'NVFP4' .*Q4_K_M"):
        parse_file_type("NVFP4")


def test_every_file_type_is_known() -> None:
    """Every file type of llama.cpp has a base type, but the one that only converters make."""
    assert set(FILE_TYPES.values()) - set(BASE_TYPES) == {"NVFP4"}


def test_needs_imatrix() -> None:
    """Very low-bit tensors need an importance matrix, embeddings and output never."""
    assert needs_imatrix("blk.0.ffn_up.weight", GGMLType.IQ2_XXS, "IQ2_XXS")
    assert needs_imatrix("blk.0.ffn_up.weight", GGMLType.Q2_K, "Q2_K_S")
    assert not needs_imatrix("blk.0.ffn_up.weight", GGMLType.Q2_K, "Q2_K")
    assert not needs_imatrix("token_embd.weight", GGMLType.Q2_K, "Q2_K_S")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "general.architecture is missing"),
        ({"general.architecture": "llama"}, r"'llama\.block_count' is missing"),
        ({"general.architecture": "llama", "llama.block_count": "two"}, "'two', expected an integer"),
        ({"general.architecture": "llama", "llama.block_count": 2, "llama.expert_count": True}, "expected an integer"),
    ],
)
def test_unusable_metadata(metadata: Metadata, message: str) -> None:
    """What the choice depends on is named when it is missing or of the wrong type."""
    with pytest.raises(GGUFError, match=message):
        quantize_model(metadata)


def test_unknown_tensor_type() -> None:
    """A tensor of a type that llama.cpp does not know is refused by name."""

    class Odd:
        name, ne, ggml_type = "a.weight", (256, 8), 99

    model = quantize_model(metadata_of("llama", 1, 8, 2, 0))
    with pytest.raises(ValueError, match=r"'a\.weight'.*99"):
        choose_types(model, [Odd()], "Q4_0")
