"""What does llama.cpp do with an image of each kind of projector? One row a kind, no logic.

An encoder's buffer is reserved for a warm-up image when it is loaded; models that take images of any size have a
smaller one than their largest. Source: llama.cpp 0c1e570 tools/mtmd/clip.cpp, clip_model_loader::load_hparams.
"""

from collections.abc import Mapping
from typing import Final, Literal

from ggufphys.frozen import dataclass

Modality = Literal["vision", "audio", "gen.audio"]


@dataclass(frozen=True, slots=True)
class Projector:
    """One kind of projector, by its name in `clip.projector_type`.

    `n_merge` patches a side become one token: the default, and the key that overrides it (of `clip.vision.`). The
    warm-up image has `warmup_side` tokens a side, or is as large as `image_size` (0), or as the largest image (-1).
    Images of any size have at most `max_tokens` tokens, or as many pixels as the file says (-1); 0: one fixed size.
    `batched`: several images are encoded at once, up to `--mtmd-batch-max-tokens`.
    """

    name: str
    n_merge: int = 1
    merge_key: str = ""
    warmup_side: int = 0
    max_tokens: int = 0
    modality: Modality = "vision"
    batched: bool = False


_SCALE: Final = "projector.scale_factor"
_SPATIAL: Final = "spatial_merge_size"


def _audio(*names: str) -> tuple[Projector, ...]:
    return tuple(Projector(name, modality="audio") for name in names)


# fmt: off
TABLE: Final[tuple[Projector, ...]] = (
    # -- images of one size, or cut into tiles of that size
    Projector("mlp"), Projector("ldp"), Projector("ldpv2"), Projector("adapter"), Projector("resampler"),
    Projector("cogvlm"), Projector("janus_pro"), Projector("yasa2"), Projector("granite4_vision"),
    Projector("minicpmv4_6", 4, _SCALE),
    Projector("internvl", 1, _SCALE, batched=True),
    Projector("nemotron_v2_vl", 1, _SCALE),
    Projector("idefics3", 1, _SCALE),
    Projector("llama4", 1, _SCALE),
    Projector("gemma3", 4, _SCALE),
    Projector("gemma3nv", 1, _SCALE),
    Projector("step3vl", 4, _SCALE),
    Projector("deepseekocr", batched=True), Projector("deepseekocr2", batched=True),
    # -- images of any size
    Projector("lfm2",             1, _SCALE,   -1,   256),
    Projector("phi4",             1, "",       16,    -1),
    Projector("pixtral",          1, _SPATIAL, 16,  1024),
    Projector("lightonocr",       1, _SPATIAL, 16,    -1),
    Projector("dots_ocr",         1, _SCALE,   46,    -1),
    Projector("dots3note_v",      1, _SPATIAL, 46,    -1),
    Projector("kimivl",           1, _SCALE,   16,  1024),
    Projector("kimik25",          1, _SCALE,   -1,  4096),
    Projector("deepseek4v",       1, _SCALE,   16,   384),
    Projector("gemma4v",          3, _SCALE,   16,  1120, batched=True),
    Projector("gemma4uv",         3, _SCALE,   16,  1120),
    Projector("qwen2vl_merger",   2, _SPATIAL, 46,  4096),
    Projector("qwen2.5vl_merger", 2, _SPATIAL, 46,  4096),
    Projector("qwen3vl_merger",   2, _SPATIAL, 46,  4096),
    Projector("ling3vl",          2, _SPATIAL, 46,  4096),
    Projector("minimax_m3",       2, _SPATIAL, 16,   576),
    Projector("muse-glimmer",     2, _SPATIAL, 32,  4096),
    Projector("mimovl",           2, _SPATIAL, 46,    -1),
    Projector("youtuvl",          2, _SPATIAL, 16, 62500),
    Projector("glm4v",            2, _SPATIAL, 46,  4096),
    Projector("glm5v",            2, _SPATIAL, 46,    -1),
    Projector("paddleocr",        2, "",       28,    -1),
    Projector("hunyuanvl",        2, _SPATIAL, 32, 16384),
    Projector("exaone4_5",        2, _SPATIAL, 46,    -1),
    # -- sound
    *_audio("ultravox", "voxtral", "qwen2a", "qwen3a", "glma", "meralion", "musicflamingo", "lfm2a", "gemma4a",
            "gemma4ua", "parakeet", "granite_speech", "mimo_audio", "dots3note_a", "qwen3tts_spkenc",
            "pockettts_spkenc"),
    Projector("qwen3tts_gen", modality="gen.audio"), Projector("pockettts_gen", modality="gen.audio"),
)
# fmt: on
PROJECTORS: Final[Mapping[str, Projector]] = {row.name: row for row in TABLE}
assert len(PROJECTORS) == len(TABLE), "a projector has two rows"

# One name for an encoder of images and one of sound: what it means depends on which of them is loaded.
BY_MODALITY: Final[Mapping[str, Mapping[str, str]]] = {
    "qwen2.5o": {"vision": "qwen2.5vl_merger", "audio": "qwen2a"},
}
