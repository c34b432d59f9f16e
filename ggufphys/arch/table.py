"""Which rule does each architecture follow? One row an architecture, no logic.

Source: llama.cpp 0c1e570 src/models/<arch>.cpp, load_arch_hparams; src/llama-model.cpp, llama_model::create_memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ggufphys.arch.rules import (
    LayerRule,
    every,
    flags_from_file,
    full,
    only_if,
    size_fixed,
    size_optional,
    size_or,
    size_required,
    windowed,
)


@dataclass(frozen=True, slots=True)
class ArchRule:
    """What llama.cpp keeps for each layer of one architecture, and where it says so."""

    name: str
    layers: LayerRule
    source: str
    flash_attn: bool = True  # False: llama.cpp turns flash attention off for it


def _plain(*names: str) -> tuple[ArchRule, ...]:
    return tuple(ArchRule(name, full, "llama-model.cpp, create_memory: default branch") for name in names)


# fmt: off
TABLE: Final[tuple[ArchRule, ...]] = (
    # -- keys and values of the whole context in every layer
    *_plain(
        "llama", "llama-embed", "deci", "falcon", "gpt2", "gptneox", "mpt", "baichuan", "starcoder", "starcoder2",
        "refact", "bloom", "stablelm", "qwen", "qwen2", "qwen2moe", "qwen2vl", "qwen3", "qwen3moe", "qwen3vl",
        "qwen3vlmoe", "phi2", "phimoe", "plamo", "codeshell", "orion", "internlm2", "minicpm", "gemma",
        "xverse", "command-r", "dbrx", "olmo", "olmoe", "openelm", "arctic", "deepseek", "chatglm", "glm4", "glm4moe",
        "bitnet", "jais", "jais2", "nemotron", "exaone", "granite", "granitemoe", "chameleon", "bailingmoe",
        "bailingmoe2", "dots1", "arcee", "ernie4_5", "ernie4_5-moe", "hunyuan-moe", "hunyuan-dense", "hunyuan_vl",
        "hy_v3", "smollm3", "seed_oss", "grovemoe", "apertus", "minimax-m2", "cogvlm", "pangu-embedded", "mistral3",
        "paddleocr", "maincoder", "talkie",
    ),
    ArchRule("grok", full, "llama-context.cpp, llama_init_from_model: no flash attention", flash_attn=False),
    ArchRule("phi3", full, "models/phi3.cpp: its window is disabled"),

    # -- windows in some layers, when the file names a window
    ArchRule("gemma3",       windowed(every(6), size_optional),                   "models/gemma3.cpp"),
    ArchRule("olmo2",        windowed(every(4), size_optional),                   "models/olmo2.cpp"),
    ArchRule("afmoe",        windowed(every(4), size_optional),                   "models/afmoe.cpp"),
    ArchRule("mellum",       windowed(every(4), size_optional),                   "models/mellum.cpp"),
    ArchRule("plamo3",       windowed(every(8), size_optional),                   "models/plamo3.cpp"),
    ArchRule("laguna",       windowed(every(4, dense_first=True), size_optional), "models/laguna.cpp"),

    # -- windows always
    ArchRule("gemma2",       windowed(every(2), size_or(4096)),                   "models/gemma2.cpp"),
    ArchRule("gpt-oss",      windowed(every(2), size_required),                   "models/openai-moe.cpp"),
    ArchRule("cohere2",      windowed(every(4), size_required),                   "models/cohere2.cpp"),
    ArchRule("cohere2moe",   windowed(every(4, dense_first=True), size_required), "models/cohere2moe.cpp"),
    ArchRule("exaone-moe",   windowed(every(4), size_required),                   "models/exaone-moe.cpp"),
    ArchRule("muse-glimmer", windowed(every(4), size_required),                   "models/muse-glimmer.cpp"),
    ArchRule("granite_swa",  windowed(flags_from_file, size_required),            "models/granite-swa.cpp"),
    ArchRule("maple",        windowed(flags_from_file, size_required),            "models/maple.cpp"),
    ArchRule("mimo2",        windowed(flags_from_file, size_required),            "models/mimo2.cpp"),
    ArchRule("spark2_5",     windowed(flags_from_file, size_required),            "models/spark2-5.cpp"),
    ArchRule("step35",       windowed(flags_from_file, size_required),            "models/step35.cpp"),

    # -- windows in some models of the architecture, or of a size that the source fixes
    ArchRule("exaone4",      windowed(every(4), only_if(lambda h: h.n_layer == 64, size_or(4096))),
             "models/exaone4.cpp: the 64-layer model only"),
    ArchRule("smallthinker", windowed(every(4, dense_first=True), only_if(lambda h: bool(h.n_swa), size_fixed(4096))),
             "models/smallthinker.cpp"),
    ArchRule("llama4",       windowed(every(4), only_if(lambda h: h.n_swa != 0, size_fixed(8192))),
             "models/llama4.cpp: chunks of 8192"),
)
# fmt: on


def _index(table: tuple[ArchRule, ...]) -> Mapping[str, ArchRule]:
    rules = {row.name: row for row in table}
    assert len(rules) == len(table), "an architecture has two rows"
    return rules


RULES: Final[Mapping[str, ArchRule]] = _index(TABLE)
