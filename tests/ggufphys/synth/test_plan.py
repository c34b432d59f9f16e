"""Planned files: what our reader and the publishers of the real ones say of them."""

import math
import os
from pathlib import Path

import pytest

from ggufphys.gguf import GGMLType, GGUFArray, open_gguf
from ggufphys.plan.quantize import quantized_order
from ggufphys.plan.quantize_tables import BASE_TYPES
from ggufphys.synth import plan_file, shape_named, shapes
from ggufphys.synth.plan import rope_factors, typed_tensors
from ggufphys.synth.tensors import tensor_table


@pytest.mark.parametrize("name", shapes())
def test_header(name: str, tmp_path: Path) -> None:
    """Our reader finds in the file what was planned, and nothing missing."""
    shape = shapes()[name]
    plan = plan_file(shape)
    path = tmp_path / "model.gguf"
    path.write_bytes(plan.header)
    os.truncate(path, plan.file_bytes)

    with open_gguf(path) as gguf:
        tokens = gguf.get_array("tokenizer.ggml.tokens")
        assert (gguf.architecture, gguf.file_type, gguf.n_params) == (shape.architecture, "Q4_K_M", shape.n_params)
        assert (gguf.kind, gguf.missing_bytes, gguf.notes) == ("model", 0, ())
        assert [(t.name, t.ne, t.ggml_type) for t in gguf.tensors] == [
            (t.name, t.ne, t.ggml_type) for t in plan.tensors
        ]
        assert gguf.get_int(f"{shape.architecture}.block_count", 0) == shape.n_layer
        assert isinstance(tokens, GGUFArray)
        assert len(tokens) == shape.n_vocab == gguf.tensors_by_name["token_embd.weight"].ne[1]


@pytest.mark.parametrize(
    ("name", "file_type", "published_bytes"),
    [
        ("mistral-7b", "Q4_K_M", 4_368_439_584),  # TheBloke/Mistral-7B-Instruct-v0.2-GGUF
        ("llama-3.1-8b", "Q4_K_M", 4_920_739_232),  # bartowski/Meta-Llama-3.1-8B-Instruct-GGUF
        ("qwen2.5-7b", "Q4_K_M", 4_683_074_240),  # bartowski/Qwen2.5-7B-Instruct-GGUF
        ("gpt-oss-20b", "MXFP4_MOE", 12_109_566_560),  # ggml-org/gpt-oss-20b-GGUF
    ],
)
def test_published_lengths(name: str, file_type: str, published_bytes: int) -> None:
    """Files are within 0.1 % of published ones; what differs is the vocabulary's text."""
    assert plan_file(shape_named(name), file_type).file_bytes == pytest.approx(published_bytes, rel=1e-3)


def test_published_data() -> None:
    """Mistral 7B's tensor data has the published file's length to the byte: 4,368,439,584 less a header of 735,520."""
    plan = plan_file(shape_named("mistral-7b"))

    assert plan.file_bytes - len(plan.header) == 4_367_704_064
    assert len(plan.tensors) == 291


@pytest.mark.parametrize("file_type", BASE_TYPES)
def test_every_file_type(file_type: str) -> None:
    """Every file type can be planned, and holds its own type of tensor."""
    types = {t.ggml_type for t in typed_tensors(shape_named("llama-110m"), file_type)}

    assert types & ({GGMLType.Q8_0} if file_type == "MXFP4_MOE" else {BASE_TYPES[file_type]})  # it has no experts


def test_order() -> None:
    """Unquantised files are in conversion's order, quantised ones in llama-quantize's."""
    shape = shape_named("llama-110m")
    converted = [t.name for t in tensor_table(shape)]

    assert [t.name for t in typed_tensors(shape, "F16")] == converted
    assert [t.name for t in typed_tensors(shape, "Q4_K_M")] == quantized_order(converted) != converted


def test_types_that_need_an_imatrix() -> None:
    """A file that cannot be made without an importance matrix is typed as with one."""
    tensors = {t.name: t.ggml_type for t in typed_tensors(shape_named("llama-110m"), "IQ3_XXS")}

    assert tensors["blk.0.attn_q.weight"] is GGMLType.IQ2_S
    assert tensors["blk.0.ffn_down.weight"] is GGMLType.IQ3_XXS  # Q4_K without one


def test_rope_factors() -> None:
    """Llama 3.1's factors: fast waves untouched, slow ones stretched eightfold, a blend between."""
    rope = shape_named("llama-3.1-8b").rope_llama3
    assert rope is not None
    factors = rope_factors(rope, n_rot=128, freq_base=500000.0)
    wavelengths = [2 * math.pi * 500000.0 ** (2 * i / 128) for i in range(64)]

    assert [f for f, w in zip(factors, wavelengths, strict=True) if w < 8192 / 4] == [1.0] * 29
    assert [f for f, w in zip(factors, wavelengths, strict=True) if w > 8192] == [8.0] * 29
    assert factors == sorted(factors)
    # the wave of 2π · 500000^(62/128) = 3619 turns 2.2635 times in 8192: (2.2635 − 1) / (4 − 1) of the way to 1
    assert factors[31] == pytest.approx(1 / ((1 - 0.42117) / 8 + 0.42117), rel=1e-4)


def test_header_says_what_it_is() -> None:
    """Nobody can take the file for the real model."""
    assert b"random weights" in plan_file(shape_named("llama-110m")).header[:400]
