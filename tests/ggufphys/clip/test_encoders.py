"""mmproj files against llama.cpp's own count: which tensors are loaded, and what the encoder reserves, to the byte."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.clip.files import PROJECTORS as SHAPED
from bench.clip.files import write_clip
from bench.clip.measure import measure
from bench.clip.shape import ClipShape
from ggufphys import GGUFError, open_gguf
from ggufphys.clip.hparams import read_clip
from ggufphys.clip.models import MODELS
from ggufphys.clip.projectors import PROJECTORS
from ggufphys.clip.tensors import BY_PROJECTOR, loaded_tensors
from ggufphys.gguf.writer import WriteValue
from ggufphys.memory.attachments.mmproj import encoder_bytes

# Where the input, the feed-forward layers and the projector decide about the buffer.
VARIANTS = [
    ClipShape(projector=""),
    ClipShape(projector="", n_embd=256, n_ff=1536, patch_size=8, image_size=64, text=2048, n_layer=2),
    ClipShape(projector="", n_embd=384, n_head=6, n_ff=384, patch_size=4, image_size=32, text=256),
]


def shape(name: str, variant: ClipShape) -> ClipShape:
    """The variant for one projector, within what llama.cpp takes for granted."""
    s = replace(variant, projector=name)
    if name in ("ldp", "ldpv2"):
        return replace(s, image_size=24 * s.patch_size)
    if name == "gemma3":
        return replace(s, image_size=8 * s.patch_size)
    if name == "resampler":
        return replace(s, text=max(s.text, 256))
    return replace(s, n_head=4) if name == "exaone4_5" else s


@pytest.mark.parametrize("variant", range(len(VARIANTS)))
def test_encoders_against_llama_cpp(tmp_path: Path, variant: int) -> None:
    """Loaded tensors' bytes are llama.cpp's for every projector, compute buffers for each whose graph is written."""
    names = sorted(SHAPED)
    paths = [write_clip(tmp_path / f"{name}.gguf", shape(name, VARIANTS[variant])) for name in names]
    for name, path, truth in zip(names, paths, measure(paths), strict=True):
        with open_gguf(path) as gguf:
            (h,) = read_clip(gguf)
            weights = sum(t.nbytes or 0 for t in loaded_tensors(gguf, name, h.modality, h.n_layer))
            compute = encoder_bytes(gguf, h, h.warmup)
        assert weights == truth["weights"], name
        if name in MODELS:
            assert compute == truth["compute"], name


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("kimivl", {"vision.projector.scale_factor": 4}),
        ("pixtral", {"vision.spatial_merge_size": 4}),
        ("qwen3vl_merger", {"vision.spatial_merge_size": 4}),
        ("voxtral", {"audio.projector.stack_factor": 8}),
    ],
)
def test_weights_that_the_keys_contradict(name: str, keys: dict[str, WriteValue], tmp_path: Path) -> None:
    """A projector made for another number of patches in a token is refused, of which llama.cpp dies."""
    path = write_clip(tmp_path / "mmproj.gguf", ClipShape(projector=name, image_size=112, keys=keys))
    with open_gguf(path) as gguf:
        (h,) = read_clip(gguf)
        with pytest.raises(GGUFError, match="llama.cpp aborts"):
            encoder_bytes(gguf, h, h.warmup)
    with pytest.raises(RuntimeError, match="GGML_ASSERT"):
        measure([path])


def test_every_written_graph_is_compared() -> None:
    """A graph that no test compares with llama.cpp would not be called exact."""
    assert set(MODELS) <= set(SHAPED)
    assert set(BY_PROJECTOR) == set(PROJECTORS)
