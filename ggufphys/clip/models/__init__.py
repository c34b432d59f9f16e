"""Encoders' graphs by projector. `MODELS` names those that are written; `generic` stands in for the others."""

from collections.abc import Callable, Mapping
from typing import Final

from ggufphys.clip.builder import ClipBuilder
from ggufphys.clip.models import dynamic, llava, qwen, siglip, tiles, whisper
from ggufphys.graph.ir import Graph

# fmt: off
MODELS: Final[Mapping[str, Callable[[ClipBuilder], Graph]]] = {
    **dict.fromkeys(("mlp", "ldp", "ldpv2", "adapter"), llava.build),
    **dict.fromkeys(("gemma3", "idefics3", "lfm2", "janus_pro", "phi4"), siglip.build),
    "internvl": tiles.internvl, "nemotron_v2_vl": tiles.nemotron, "llama4": tiles.llama4, "cogvlm": tiles.cogvlm,
    "step3vl": tiles.step3vl, "resampler": tiles.resampler, "minicpmv4_6": tiles.minicpmv4_6,
    "pixtral": dynamic.pixtral, "lightonocr": dynamic.pixtral, "kimivl": dynamic.kimi, "kimik25": dynamic.kimi,
    "paddleocr": dynamic.paddleocr, "dots_ocr": dynamic.dots_ocr, "gemma4v": dynamic.gemma4v,
    "gemma4uv": dynamic.gemma4uv, "hunyuanvl": dynamic.hunyuanvl,
    "qwen2vl_merger": qwen.qwen2vl, "qwen2.5vl_merger": qwen.qwen2vl, "exaone4_5": qwen.qwen2vl,
    "qwen3vl_merger": qwen.qwen3vl, "ling3vl": qwen.ling3vl, "minimax_m3": qwen.minimax_m3, "youtuvl": qwen.youtuvl,
    "glm4v": qwen.glm4v,
    "glm5v": qwen.glm4v,
    **dict.fromkeys(("ultravox", "voxtral", "qwen2a", "glma", "meralion", "musicflamingo"), whisper.build),
    "qwen3a": whisper.qwen3a,
}
# fmt: on
