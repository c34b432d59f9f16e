"""What an mmproj file says about its encoders, and what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.clip.files import write_clip
from bench.clip.shape import ClipShape
from ggufphys import GGUFError, UnsupportedError, open_gguf
from ggufphys.clip.hparams import ClipHParams, read_clip
from ggufphys.frozen import replace as changed
from ggufphys.gguf import GGMLType, GGUFFile
from ggufphys.gguf.values import ValueType
from ggufphys.gguf.writer import TensorSpec, Typed, WriteValue
from ggufphys.memory.attachments.mmproj import mmproj_basis, mmproj_terms
from tests.ggufphys.models import tiny_llama, write_model


def read(path: Path, *, image_max_tokens: int = 0) -> ClipHParams:
    """The one encoder of a file."""
    with open_gguf(path) as gguf:
        (h,) = read_clip(gguf, image_max_tokens=image_max_tokens)
        return h


def written(gguf: GGUFFile) -> dict[str, WriteValue]:
    """A file's metadata as the writer takes it."""
    return {k: v if isinstance(v, str | int | float) else tuple(v) for k, v in gguf.metadata.items()}


@pytest.mark.parametrize(
    ("projector", "warmup", "largest"),
    [
        ("mlp", 56, 56),  # one size
        ("pixtral", 448, 896),  # 16 tokens a side of 2 x 2 patches of 14; at most 1,024 tokens
        ("qwen2vl_merger", 1288, 1792),  # 46 a side; 4,096
        ("kimik25", 1792, 1792),  # warmed up with its largest
        ("paddleocr", 784, 980),  # as many pixels as the file says, whole tokens of 28
        ("gemma4uv", 672, 1386),  # patches of 3 x 14
    ],
)
def test_sizes_of_images(tmp_path: Path, projector: str, warmup: int, largest: int) -> None:
    """The image an encoder is warmed up with, and the largest it sees, by projector."""
    h = read(write_clip(tmp_path / "a.gguf", ClipShape(projector=projector)))
    assert (h.warmup, h.largest) == ((warmup, warmup), (largest, largest))


def test_fewer_tokens_make_smaller_images(tmp_path: Path) -> None:
    """--image-max-tokens bounds images of any size, and nothing else."""
    path = write_clip(tmp_path / "a.gguf", ClipShape(projector="qwen2vl_merger"))
    assert read(path, image_max_tokens=2500).largest == (1400, 1400)
    path = write_clip(tmp_path / "b.gguf", ClipShape(projector="mlp"))
    assert read(path, image_max_tokens=16) == read(path)


def test_terms_add_up(tmp_path: Path) -> None:
    """Weights are padded, what a warm-up reserves is counted, and what larger images add is a ceiling."""
    path = write_clip(tmp_path / "a.gguf", ClipShape(projector="pixtral"))
    with open_gguf(path) as gguf:
        terms = mmproj_terms(gguf)
        weights, compute, ceiling = terms
        assert [t.quantity for t in terms] == ["attachment", "attachment", "ceiling"]
        assert weights.nbytes == sum(-(-(t.nbytes or 0) // 32) * 32 for t in gguf.tensors)
        assert 0 < compute.nbytes < ceiling.nbytes
        assert mmproj_basis(gguf) == "exact"
        on_gpu = mmproj_terms(gguf, device="CUDA0")
        assert {t.device for t in on_gpu} == {"CUDA0"}
        assert on_gpu[0].nbytes == sum(-(-(t.nbytes or 0) // 128) * 128 for t in gguf.tensors)


def test_two_encoders_in_one_file(tmp_path: Path) -> None:
    """A file with an encoder of images and one of sound is loaded as both, each with its own tensors."""
    vision, audio = (tmp_path / name for name in ("v.gguf", "a.gguf"))
    write_clip(vision, ClipShape(projector="qwen2.5vl_merger"))
    write_clip(audio, ClipShape(projector="qwen2a"))
    metadata: dict[str, WriteValue] = {}
    specs: list[TensorSpec] = []
    for path in (vision, audio):
        with open_gguf(path) as gguf:
            metadata |= written(gguf)
            specs += [TensorSpec(t.name, t.ne, GGMLType(t.ggml_type)) for t in gguf.tensors]
    path = write_model(tmp_path / "both.gguf", metadata | {"clip.projector_type": "qwen2.5o"}, specs)
    with open_gguf(path) as gguf:
        encoders = read_clip(gguf)
        terms = mmproj_terms(gguf)
    assert [(h.modality, h.projector.name) for h in encoders] == [("vision", "qwen2.5vl_merger"), ("audio", "qwen2a")]
    assert sum(t.name.startswith("mmproj: weights") for t in terms) == 2


def test_refusals(tmp_path: Path) -> None:
    """What llama.cpp refuses is refused with the key, the projector or the tensor at fault."""
    shape = ClipShape(projector="mlp")
    with pytest.raises(ValueError, match="of kind 'model', expected an mmproj file"):
        read(tiny_llama(tmp_path / "llama.gguf"))
    with pytest.raises(UnsupportedError, match="projector type 'hologram'"):
        read(write_clip(tmp_path / "a.gguf", replace(shape, keys={"projector_type": "hologram"})))
    with pytest.raises(GGUFError, match="none of clip.has_vision_encoder"):
        read(write_clip(tmp_path / "b.gguf", replace(shape, keys={"has_vision_encoder": False})))
    with pytest.raises(GGUFError, match="out of the range"):
        read(write_clip(tmp_path / "c.gguf", replace(shape, keys={"vision.patch_size": 0})))
    with pytest.raises(GGUFError, match=r"'clip.vision.image_max_pixels' is of type STRING, expected UINT32"):
        read(write_clip(tmp_path / "d.gguf", ClipShape(projector="dots_ocr", keys={"vision.image_max_pixels": "x"})))
    with pytest.raises(GGUFError, match="no patch of 14"):
        read(write_clip(tmp_path / "g.gguf", replace(shape, image_size=13)))
    path = write_clip(tmp_path / "e.gguf", shape)
    with open_gguf(path) as gguf:
        specs = [TensorSpec(t.name, t.ne, GGMLType(t.ggml_type)) for t in gguf.tensors]
        metadata = written(gguf)
    specs = [spec for spec in specs if spec.name != "v.blk.1.attn_out.weight"]
    with (
        open_gguf(write_model(tmp_path / "f.gguf", metadata, specs)) as gguf,
        pytest.raises(GGUFError, match=r"tensor 'v.blk.1.attn_out.weight' is missing, which a mlp encoder needs"),
    ):
        mmproj_terms(gguf)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("clip.vision.projection_dim", None, "is missing, which llama.cpp requires"),
        ("clip.vision.feed_forward_length", 1 << 31, "expected 2,147,483,647 at most"),
        ("clip.vision.image_mean", (0.5, 0.5), "expected 3 FLOAT32 at least"),
        ("clip.vision.feature_layer", Typed((1,), ValueType.UINT32), "expected one of INT32"),
        ("clip.vision.feature_layer", (1, 99), "names layer 99 of 3"),
        ("clip.vision.feature_layer", ("1",), "expected one of INT32"),
    ],
)
def test_keys_that_llama_cpp_does_not_read(tmp_path: Path, key: str, value: WriteValue | None, words: str) -> None:
    """What llama.cpp requires of every encoder, and arrays that it does not read, are reasons."""
    path = write_clip(tmp_path / "a.gguf", ClipShape(projector="mlp"))
    with open_gguf(path) as gguf:
        specs = [TensorSpec(t.name, t.ne, GGMLType(t.ggml_type)) for t in gguf.tensors]
        keys = written(gguf)
        keys = {k: v for k, v in keys.items() if k != key} | ({} if value is None else {key: value})
    with open_gguf(write_model(tmp_path / "b.gguf", keys, specs)) as gguf, pytest.raises(GGUFError, match=words):
        read_clip(gguf)


@pytest.mark.parametrize(
    ("key", "found", "expected"),
    [
        ("clip.vision.block_count", ValueType.UINT64, "UINT32"),
        ("clip.vision.image_size", ValueType.INT32, "UINT32"),
        ("clip.vision.attention.layer_norm_epsilon", ValueType.FLOAT64, "FLOAT32"),
    ],
)
def test_types_that_fail_an_assertion(tmp_path: Path, key: str, found: ValueType, expected: str) -> None:
    """A number of another type than llama.cpp asserts is a reason, whatever its value."""
    with open_gguf(write_clip(tmp_path / "a.gguf", ClipShape(projector="mlp"))) as gguf:
        (shard,) = gguf.shards
        header = changed(shard.header, value_types={**shard.header.value_types, key: found})
        with pytest.raises(GGUFError, match=f"is of type {found.name}, expected {expected}"):
            read_clip(changed(gguf, shards=(changed(shard, header=header),)))
