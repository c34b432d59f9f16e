"""Of a file that holds every name, llama.cpp loads what our table says, for each projector it knows."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.clip.files import KEYS as SHAPED_KEYS
from bench.clip.measure import measure
from ggufphys import open_gguf
from ggufphys.clip.hparams import read_clip
from ggufphys.clip.projectors import PROJECTORS
from ggufphys.clip.tensors import BY_PROJECTOR, COMMON, LAYER, PREFIX, WITHOUT_LAYERS, loaded_tensors
from ggufphys.gguf import GGMLType
from ggufphys.gguf.writer import TensorSpec, WriteValue
from tests.ggufphys.models import write_model

N_LAYER = 3
PIXELS: Mapping[str, WriteValue] = {"vision.image_min_pixels": 10, "vision.image_max_pixels": 100_000}
SAM: Mapping[str, WriteValue] = {
    **{f"vision.sam.{name}": n for name, n in (("block_count", 3), ("head_count", 4), ("embedding_length", 64))},
    "vision.window_size": 8,
    "vision.attention.head_count_kv": 4,
}
KEYS: Mapping[str, Mapping[str, WriteValue]] = {
    "mimovl": {
        **PIXELS, "vision.attention.head_count_kv": 4, "vision.window_size": 8, "vision.wa_pattern_mode": [0] * N_LAYER,
    },
    "deepseekocr": SAM,
    "deepseekocr2": SAM,
    "granite4_vision": {
        "vision.feature_layer": [0, 1, 2], "vision.projector.spatial_offsets": [0, 1, 2],
        "vision.projector.query_side": 4, "vision.projector.window_side": 8,
    },
    "dots3note_v": {**PIXELS, "vision.spatial_merge_size": 2, "vision.expert_used_count": 2},
    "deepseek4v": {"vision.projector.scale_factor": 2, "vision.image_min_pixels": 10},
    "parakeet": {"audio.subsampling_factor": 8, "audio.conv_kernel_size": 9},
    "granite_speech": {
        "audio.chunk_size": 12, "audio.conv_kernel_size": 9, "audio.max_pos_emb": 16, "audio.projector.window_size": 15,
        "audio.projector.downsample_rate": 5, "audio.projector.head_count": 4,
    },
    "mimo_audio": {
        "audio.rvq.num_quantizers": 2, "audio.rvq.codebook_size": [1, 1], "audio.window_size": 8,
        "audio.wa_pattern_mode": [0] * N_LAYER, "audio.local_block_count": 3, "audio.local_group_size": 4,
    },
}  # fmt: skip
# Which numbers a loader counts through, where that is not layers from 0; and what can't be in one file together.
FIRST: Mapping[str, range] = {"qwen3tts_spkenc": range(1, N_LAYER + 1)}
BLOCKS: Mapping[str, int] = {"granite_speech": 2}  # proj_blk
ONE_KIND = re.compile(r"v\.blk\.(0\.\d+\.(?!conv_exp|bn1|conv_pwl|bn2)|[1-9]\.\d+\.(conv_exp|bn1|conv_pwl|bn2))")


def names(projector: str) -> Iterator[str]:
    """Every name that llama.cpp asks for."""
    layer = () if projector in WITHOUT_LAYERS else LAYER
    for pattern in (*COMMON, *BY_PROJECTOR[projector], *layer):
        for name in expand(pattern.replace("@", PREFIX[PROJECTORS[projector].modality]), projector):
            if projector != "gemma3nv" or not ONE_KIND.match(name):
                yield name


def expand(pattern: str, projector: str) -> Iterator[str]:
    """The names that a pattern of the table stands for, with some numbers for `#`."""
    braces = re.search(r"\{([^}]*)\}", pattern)
    if braces:
        for option in braces[1].split(","):
            yield from expand(pattern[: braces.start()] + option + pattern[braces.end() :], projector)
    elif pattern.endswith("*"):
        for end in ("weight", "bias"):
            yield from expand(pattern[:-1] + end, projector)
    elif "#" in pattern:
        first = not re.search(r"\.\d+\.", pattern)
        n = BLOCKS.get(projector, N_LAYER) if "proj_blk" in pattern else N_LAYER
        for number in FIRST.get(projector, range(n)) if first else range(7):
            yield from expand(pattern.replace("#", str(number), 1), projector)
    else:
        yield pattern


def full_file(path: Path, projector: str) -> Path:
    """A file of all names, no two tensors of one size, and some that no loader asks for."""
    modality = PROJECTORS[projector].modality
    sizes: dict[str, WriteValue] = {
        "embedding_length": 64, "attention.head_count": 4, "feed_forward_length": 64, "block_count": N_LAYER,
        "projection_dim": 64, "attention.layer_norm_epsilon": 1e-6, "num_mel_bins": 128, "image_size": 64,
        "patch_size": 8, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
    }  # fmt: skip
    keys = {**{f"{modality}.{name}": value for name, value in sizes.items()}, **SHAPED_KEYS.get(projector, {})}
    keys |= {f"has_{modality}_encoder": True, "projector_type": projector, "vision.block_count": N_LAYER}
    keys |= KEYS.get(projector, {})
    metadata: dict[str, WriteValue] = {"general.architecture": "clip", "general.type": "mmproj"}
    metadata |= {f"clip.{name}": value for name, value in keys.items()}
    wanted = [*dict.fromkeys(names(projector)), "mm.unknown.weight", f"{PREFIX[modality]}.blk.{N_LAYER + 4}.ln1.weight"]
    tensors = [TensorSpec(name, (64 + 4 * i,), GGMLType.F32) for i, name in enumerate(wanted)]
    if projector == "parakeet":  # read by another way, into no buffer
        tensors += [TensorSpec("a.mel_filters", (257, 128), GGMLType.F32), TensorSpec("a.window", (400,), GGMLType.F32)]
    return write_model(path, metadata, tensors)


def test_loaded_tensors_against_llama_cpp(tmp_path: Path) -> None:
    """The bytes of loaded tensors are mtmd's own count for every encoder of images or sound."""
    projectors = [row.name for row in PROJECTORS.values() if row.modality != "gen.audio"]
    paths = [full_file(tmp_path / f"{name}.gguf", name) for name in projectors]
    truths = measure(paths, weights_only=True)
    for name, path, truth in zip(projectors, paths, truths, strict=True):
        with open_gguf(path) as gguf:
            (h,) = read_clip(gguf)
            tensors = list(loaded_tensors(gguf, name, h.modality, h.n_layer))
            assert len(tensors) <= len(gguf.tensors) - 2, name
        assert sum(t.nbytes or 0 for t in tensors) == truth["weights"], name
