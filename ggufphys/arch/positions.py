"""Of which architectures has a token several positions (M-RoPE), so that a cache notes them, or the token, by cell?

Source: llama.cpp 0c1e570 src/llama-model.cpp, llama_model_rope_type; src/llama-hparams.cpp, use_mrope.
"""

from typing import Final

from ggufphys.gguf import GGUFArray, GGUFFile

_KEY: Final = "rope.dimension_sections"
_ALWAYS: Final = frozenset({
    "qwen2vl", "paddleocr", "qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe", "qwen4exp", "qwen3tts", "clef",
})  # fmt: skip
_BY_TWO_SECTIONS: Final = frozenset({"bailingmoe3", "glm4", "glm4moe", "hunyuan_vl"})  # the first two are not 0
_BY_ANY_SECTION: Final = frozenset({"dflash"})


def has_several_positions(gguf: GGUFFile) -> bool:
    """Has each of the model's tokens a position in time, in height and in width?"""
    arch = gguf.architecture
    if arch in _ALWAYS:
        return True
    found = gguf.metadata.get(f"{arch}.{_KEY}")
    sections = [int(n) for n in found] if isinstance(found, GGUFArray) else []
    if arch in _BY_TWO_SECTIONS:
        return len(sections) > 1 and min(sections[:2]) > 0
    return arch in _BY_ANY_SECTION and any(sections)
