"""What a file would be as another type, against the file that llama.cpp's quantiser writes."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ggufphys import GGUFFile, Params, RefusedError, UnsupportedError, open_gguf, predict_memory
from ggufphys.embedded import MODEL
from ggufphys.gguf import GGMLType
from ggufphys.gguf.reader import padded
from ggufphys.gguf.values import ValueType
from ggufphys.gguf.writer import TensorSpec, Typed, WriteValue, encode_header
from ggufphys.plan.quantize import QuantizeOptions, quantize_model, types_as_made
from ggufphys.plan.quantize_tables import BASE_TYPES
from ggufphys.plan.quantized import parse_file_types, quantized_files
from ggufphys.plan.retype import retyped
from ggufphys.synth.catalogue import Shape, shape_named
from ggufphys.synth.tensors import tensor_table
from tests.ggufphys.models import llama_metadata, llama_tensors, write_model
from tests.ggufphys.plan.quantizer import Quantizer, even_imatrix

# Their kernels search for the best scales or lattice points: seconds for the embedded model, alone.
SLOW = tuple(name for name in BASE_TYPES if name.startswith("IQ"))
SMALL = {
    "embedding_length": 256, "feed_forward_length": 256, "block_count": 3, "attention.head_count": 4,
    "attention.head_count_kv": 2, "attention.key_length": 64, "attention.value_length": 64,
    "attention.key_length_mla": 128, "attention.value_length_mla": 64, "attention.kv_lora_rank": 64,
    "rope.dimension_count": 64, "expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 288,
    "expert_shared_feed_forward_length": 256, "ssm.inner_size": 512, "ssm.state_size": 64, "ssm.group_count": 2,
    "ssm.time_step_rank": 8, "full_attention_interval": 3,
}  # fmt: skip
ARCHITECTURES = {
    "llama": "llama-110m", "llama, experts": "mixtral-8x7b", "qwen2": "qwen2.5-0.5b", "qwen3": "qwen3-8b",
    "qwen3moe": "qwen3-30b-a3b", "qwen3next": "qwen3-next-80b-a3b", "gemma2": "gemma-2-9b", "gemma3": "gemma-3-4b",
    "phi3": "phi-4", "gpt-oss": "gpt-oss-20b", "deepseek2": "deepseek-v2-lite", "mamba2": "mamba2-2.7b",
}  # fmt: skip
NOT_MODELLED = Params(n_ctx=512, use_extra_bufts=False)


@pytest.fixture(scope="module")
def quantizer() -> Iterator[Quantizer]:
    """llama.cpp's quantiser in a child process."""
    pytest.importorskip("llama_cpp")
    with Quantizer() as child:
        yield child


def small_model(folder: Path, name: str) -> Path:
    """A model of a catalogue shape's architecture with next to no weights, F16, and a row that is no whole block."""
    shape = shape_named(ARCHITECTURES[name])
    keys = {key: SMALL.get(key, value) for key, value in shape.keys.items()}
    small: Shape = replace(shape, keys=keys, n_vocab=128, n_params=None, rope_llama3=None)
    metadata: dict[str, WriteValue] = {
        "general.architecture": shape.architecture,
        **{f"{shape.architecture}.{key}": value for key, value in keys.items()},
        "tokenizer.ggml.model": "no_vocab",
        f"{shape.architecture}.vocab_size": 128,
    }
    tensors = [*tensor_table(small), TensorSpec("blk.0.one_row.weight", (256, 1), GGMLType.F16)]
    return write_model(folder / "small.gguf", metadata, tensors)


def assert_as_written(quantizer: Quantizer, source: Path, target: Path, file_type: str) -> None:
    """Quantise, and compare the file with the one that was planned: table, sizes, offsets, keys, memory; or refusal."""
    with open_gguf(source) as gguf:
        try:
            types, insists = types_as_made(quantize_model(gguf.metadata), gguf.tensors, file_type)
        except ValueError:
            assert "error" in quantizer.ask(source, file_type, QuantizeOptions(), output=target)
            return
        (row,) = quantized_files(gguf, [file_type], NOT_MODELLED, QuantizeOptions())
        answer = quantizer.ask(
            source, file_type, QuantizeOptions(), output=target,
            imatrix=even_imatrix(gguf.tensors) if insists else None, nthread=2,
        )  # fmt: skip
        assert "types" in answer, answer
        planned = retyped(gguf, types, file_type)
        with open_gguf(target) as written:
            assert written.tensors == planned.tensors
            assert written.shards[0].header.data_offset == planned.shards[0].header.data_offset
            assert written.file_bytes == planned.file_bytes == row.file_bytes
            assert written.tensor_bytes == row.tensor_bytes
            assert written.bpw == row.bpw
            assert written.file_type == planned.file_type == file_type
            assert set(written.metadata) == set(planned.metadata)
            assert total(written) == row.total_bytes


def total(gguf: GGUFFile) -> int | None:
    """What llama.cpp's buffers will hold, None for an architecture without a rule, or a file that it would refuse."""
    try:
        return predict_memory(gguf, NOT_MODELLED).total_bytes
    except (UnsupportedError, RefusedError):
        return None


@pytest.mark.parametrize("file_type", [t for t in BASE_TYPES if t not in SLOW])
def test_embedded_model(quantizer: Quantizer, tmp_path: Path, file_type: str) -> None:
    """The embedded model is planned to the byte as each type that is quickly made."""
    assert_as_written(quantizer, MODEL, tmp_path / "made.gguf", file_type)


@pytest.mark.parametrize("name", ["llama", "mamba2"])
def test_copy(quantizer: Quantizer, tmp_path: Path, name: str) -> None:
    """A copy keeps every type, whatever options say, and is planned to the byte, its missing file type included."""
    source = small_model(tmp_path, name)
    options = QuantizeOptions(pure=True, output_tensor_type=GGMLType.Q8_0)
    answer = quantizer.ask(source, "F32", options, output=tmp_path / "made.gguf", only_copy=True)
    with open_gguf(source) as gguf, open_gguf(tmp_path / "made.gguf") as written:
        types, insists = types_as_made(quantize_model(gguf.metadata), gguf.tensors, "COPY", options)
        planned = retyped(gguf, types, "COPY")

        assert "error" not in answer
        assert not insists
        assert written.tensors == planned.tensors
        assert written.file_bytes == planned.file_bytes


@pytest.mark.slow
@pytest.mark.parametrize("file_type", SLOW)
def test_embedded_model_slowly(quantizer: Quantizer, tmp_path: Path, file_type: str) -> None:
    """The embedded model is planned to the byte as each of the others, with an importance matrix if need be."""
    assert_as_written(quantizer, MODEL, tmp_path / "made.gguf", file_type)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures(quantizer: Quantizer, tmp_path: Path, name: str) -> None:
    """A small model of each architecture is planned to the byte as every file type that is quickly made."""
    source = small_model(tmp_path, name)
    for file_type in BASE_TYPES:
        if file_type not in SLOW:
            assert_as_written(quantizer, source, tmp_path / "made.gguf", file_type)


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures_slowly(quantizer: Quantizer, tmp_path: Path, name: str) -> None:
    """A small model of each architecture is planned to the byte as each of the others."""
    source = small_model(tmp_path, name)
    for file_type in SLOW:
        assert_as_written(quantizer, source, tmp_path / "made.gguf", file_type)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_sizes_without_making(quantizer: Quantizer, tmp_path: Path, name: str) -> None:
    """Types that take long to make are planned as llama.cpp's dry run plans them."""
    source = small_model(tmp_path, name)
    with open_gguf(source) as gguf:
        for file_type in SLOW:
            types, insists = types_as_made(quantize_model(gguf.metadata), gguf.tensors, file_type)
            answer = quantizer.ask(source, file_type, QuantizeOptions(has_imatrix=insists))

            assert answer.get("types") == {t.name: chosen.name for t, chosen in zip(gguf.tensors, types, strict=True)}


def test_split_source(quantizer: Quantizer, tmp_path: Path) -> None:
    """Shards become one file, without the keys of the split."""
    metadata, tensors = llama_metadata(), llama_tensors()
    half = len(tensors) // 2
    paths = [tmp_path / f"split-{number:05d}-of-00002.gguf" for number in (1, 2)]
    for number, (path, part) in enumerate(zip(paths, (tensors[:half], tensors[half:]), strict=True)):
        split: dict[str, WriteValue] = {
            "split.no": Typed(number, ValueType.UINT16),
            "split.count": Typed(2, ValueType.UINT16),
            "split.tensors.count": Typed(len(tensors), ValueType.INT32),
        }
        header = encode_header({**(metadata if number == 0 else {}), **split}, part)
        path.write_bytes(header)
        os.truncate(path, len(header) + sum(padded(t.nbytes) for t in part))
    for file_type in ("Q4_K_M", "Q8_0", "BF16"):
        assert_as_written(quantizer, paths[0], tmp_path / "made.gguf", file_type)


def test_refusals(tmp_path: Path) -> None:
    """A quantised source is refused with llama-quantize's reason: in its row, or as an error if no row is left."""
    source = write_model(tmp_path / "q8.gguf", llama_metadata(), llama_tensors(GGMLType.Q8_0))
    with open_gguf(source) as gguf:
        with pytest.raises(ValueError, match="requantizing from type q8_0 is disabled"):
            quantized_files(gguf, ["Q4_0"], Params(), QuantizeOptions())
        same, refused = quantized_files(gguf, ["Q8_0", "Q4_0"], Params(), QuantizeOptions())
        (allowed,) = quantized_files(gguf, ["Q4_0"], Params(), QuantizeOptions(allow_requantize=True))

    assert (same.refused, same.tensor_bytes) == (None, gguf.tensor_bytes)
    assert (refused.tensor_bytes, refused.total_bytes) == (None, None)
    assert allowed.tensor_bytes is not None
    assert allowed.tensor_bytes < gguf.tensor_bytes


def test_imatrix_is_an_assumption(tmp_path: Path) -> None:
    """Types that want an importance matrix are planned with one and say so; others without, unless it is asked for."""
    with open_gguf(write_model(tmp_path / "f16.gguf", llama_metadata(block_count=8), llama_tensors(n_layer=8))) as gguf:
        low, plain = quantized_files(gguf, ["IQ2_XS", "Q4_0"], Params(), QuantizeOptions())
        (with_one,) = quantized_files(gguf, ["Q4_0"], Params(), QuantizeOptions(has_imatrix=True))

    assert (low.needs_imatrix, plain.needs_imatrix) == (True, False)
    assert plain.types is not None
    assert with_one.types is not None
    assert "Q4_1" in with_one.types  # llama-quantize's guard for the first layers
    assert "Q4_1" not in plain.types


def test_kinds_of_files(tmp_path: Path) -> None:
    """Projectors are planned without memory, unknown architectures with their weights alone, adapters refused."""
    clip: dict[str, WriteValue] = {"general.architecture": "clip", "clip.has_vision_encoder": True}
    tensors = [TensorSpec("v.blk.0.attn_q.weight", (256, 256), GGMLType.F16)]
    with open_gguf(write_model(tmp_path / "clip.gguf", clip, tensors)) as gguf:
        (row,) = quantized_files(gguf, ["Q8_0"], Params(), QuantizeOptions())
    assert (row.tensor_bytes, row.model_bytes, row.total_bytes) == (256 * 8 * 34, None, None)

    with open_gguf(write_model(tmp_path / "new.gguf", llama_metadata("llama5"), llama_tensors())) as gguf:
        (row,) = quantized_files(gguf, ["Q8_0"], Params(), QuantizeOptions())
    assert row.model_bytes is not None
    assert row.total_bytes is None

    adapter = write_model(tmp_path / "lora.gguf", {**llama_metadata(), "general.type": "adapter"}, llama_tensors())
    with open_gguf(adapter) as gguf, pytest.raises(UnsupportedError, match="not a GGUF of kind 'adapter'"):
        quantized_files(gguf, ["Q8_0"], Params(), QuantizeOptions())


def test_file_types_by_name() -> None:
    """A list is read in its order, each type once, aliases resolved; `all` is every type that can be made."""
    assert parse_file_types("q8_0, Q4_K,q4_k_m") == ["Q8_0", "Q4_K_M"]
    assert parse_file_types("all") == list(BASE_TYPES)
    with pytest.raises(ValueError, match="no file type of llama-quantize: 'Q4_Z'"):
        parse_file_types("Q8_0,Q4_Z")
