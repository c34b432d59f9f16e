"""mmproj files with the shapes that llama.cpp expects: header, and a hole for weights.

What llama.cpp reserves follows from shapes alone.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bench.clip import dynamic, sound, tiles
from bench.clip.shape import ClipShape, Shapes, Tower, both, mlp_of, siglip
from ggufphys.gguf import GGMLType
from ggufphys.gguf.values import ValueType
from ggufphys.gguf.writer import TensorSpec, Typed, WriteValue, data_bytes, encode_header

_PIXELS: Final[dict[str, WriteValue]] = {"vision.image_min_pixels": 784, "vision.image_max_pixels": 1003520}
_SCALE2: Final[dict[str, WriteValue]] = {"vision.projector.scale_factor": 2}
_SPATIAL2: Final[dict[str, WriteValue]] = {"vision.spatial_merge_size": 2}
_STACKED: Final[dict[str, WriteValue]] = {"audio.projector.stack_factor": 4}

# fmt: off
# What a projector's metadata has beside the sizes, without "clip.".
KEYS: Final[Mapping[str, Mapping[str, WriteValue]]] = {
    "resampler": {"minicpmv_version": Typed(5, ValueType.INT32), "minicpmv_query_num": 64},
    "minicpmv4_6": {"vision.wa_layer_indexes": [1]},
    "idefics3": {**_SCALE2, "vision.preproc_image_size": 512},
    **dict.fromkeys(("lfm2", "internvl", "nemotron_v2_vl", "llama4", "kimivl", "kimik25"), _SCALE2),
    **dict.fromkeys(("pixtral", "lightonocr"), _SPATIAL2),
    "phi4": _PIXELS, "paddleocr": _PIXELS, "dots_ocr": {**_SCALE2, **_PIXELS},
    "gemma4v": {"vision.projector.scale_factor": 3},
    "gemma4uv": {"vision.projector.scale_factor": 3, "vision.block_count": 0},
    "qwen2.5vl_merger": {"vision.n_wa_pattern": 2},
    "exaone4_5": {**_PIXELS, "vision.attention.head_count_kv": 4},
    "glm5v": {**_PIXELS, "vision.swiglu_clamp": 7.0},
    "youtuvl": {"vision.window_size": 112, "vision.wa_layer_indexes": [1]},
    **dict.fromkeys(("ultravox", "voxtral", "meralion", "glma"), _STACKED),
}
PROJECTORS: Final[Mapping[str, Tower]] = {
    **dict.fromkeys(("mlp", "ldp", "ldpv2"), tiles.llava),
    "adapter": tiles.adapter, "resampler": tiles.resampler, "minicpmv4_6": tiles.minicpmv4_6,
    "gemma3": tiles.gemma3, "idefics3": tiles.idefics3,
    "lfm2": both(siglip, mlp_of("mm.1", "mm.2", merged=True)),
    "janus_pro": both(siglip, mlp_of("mm.0", "mm.1")),
    "phi4": both(siglip, mlp_of("mm.0", "mm.2")),
    "internvl": tiles.internvl, "nemotron_v2_vl": tiles.nemotron, "llama4": tiles.llama4, "cogvlm": tiles.cogvlm,
    "step3vl": tiles.step3vl,
    "pixtral": dynamic.pixtral, "lightonocr": dynamic.pixtral, "kimivl": dynamic.kimi, "kimik25": dynamic.kimi,
    "paddleocr": both(siglip, mlp_of("mm.1", "mm.2", merged=True, before="mm.input_norm")),
    "dots_ocr": dynamic.dots, "gemma4v": dynamic.gemma4, "gemma4uv": dynamic.gemma4, "hunyuanvl": dynamic.hunyuanvl,
    "qwen2vl_merger": dynamic.qwen2vl, "qwen2.5vl_merger": dynamic.qwen2vl, "exaone4_5": dynamic.exaone,
    "qwen3vl_merger": dynamic.qwen3vl, "ling3vl": dynamic.qwen3vl, "minimax_m3": dynamic.minimax,
    "glm4v": dynamic.glm4v, "glm5v": dynamic.glm4v, "youtuvl": dynamic.youtuvl,
    **dict.fromkeys(("ultravox", "voxtral", "qwen2a", "glma", "meralion", "musicflamingo"), sound.whisper),
    "qwen3a": sound.qwen3a,
}
# fmt: on


def write_clip(path: Path, shape: ClipShape) -> Path:
    """Write the file; weights are a hole."""
    tensors = [TensorSpec(name, ne, _type(shape, name, ne)) for name, ne in dict(_tensors(shape)).items()]
    header = encode_header(_metadata(shape), tensors)
    path.write_bytes(header)
    os.truncate(path, len(header) + data_bytes(tensors))
    return path


def _metadata(s: ClipShape) -> dict[str, WriteValue]:
    sizes: dict[str, WriteValue] = {
        "embedding_length": s.n_embd,
        "attention.head_count": s.n_head,
        "feed_forward_length": s.n_ff,
        "block_count": s.n_layer,
        "projection_dim": s.text,
        "attention.layer_norm_epsilon": 1e-6,
    }
    if s.modality == "vision":
        sizes |= {"image_size": s.image_size, "patch_size": s.patch_size}
        sizes |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    else:
        sizes["num_mel_bins"] = 128
    keys: dict[str, WriteValue] = {
        f"has_{s.modality}_encoder": True,
        "projector_type": s.projector,
        "use_gelu": True,
        **{f"{s.modality}.{name}": value for name, value in sizes.items()},
        **KEYS.get(s.projector, {}),
        **s.keys,
    }
    head: dict[str, WriteValue] = {"general.architecture": "clip", "general.type": "mmproj"}
    return {**head, **{f"clip.{name}": value for name, value in keys.items()}}


def _type(s: ClipShape, name: str, ne: tuple[int, ...]) -> GGMLType:
    plain = (
        len(ne) == 1 or "position_embd" in name or name.endswith(("class_embd", "boi", "eoi", "query", "pos_embed_k"))
    )
    if plain or "token_embd" in name or "newline" in name or name.startswith("mm.image_"):
        return GGMLType.F32
    return GGMLType.F16 if len(ne) > 2 else s.weight_type


def _tensors(s: ClipShape) -> Shapes:
    if s.modality == "vision":
        if s.projector in ("llama4", "gemma4uv", "youtuvl"):
            side = s.patch_size * (3 if s.projector == "gemma4uv" else 1)
            yield "v.patch_embd.weight", (3 * side * side, s.n_embd)
        else:
            yield "v.patch_embd.weight", (s.patch_size, s.patch_size, 3, s.n_embd)
    yield from PROJECTORS[s.projector](s)
