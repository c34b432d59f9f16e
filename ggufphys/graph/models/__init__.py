"""One file an architecture: its graph, composed of blocks. `MODELS` names those that are written.

A file is loaded when a model of its architecture is looked at: there are many, and `inspect` starts in milliseconds.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Final, cast

from ggufphys.graph.blocks import Builder
from ggufphys.graph.ir import Graph

Build = Callable[[Builder], Graph]

# fmt: off
MODELS: Final[Mapping[str, str]] = {  # by architecture, the module that builds its graph
    "apertus": "apertus",
    "arcee": "arcee",
    "arctic": "arctic",
    "baichuan": "baichuan",
    "bailingmoe": "bailingmoe",
    "bailingmoe2": "dots1",
    "bitnet": "bitnet",
    "bloom": "bloom",
    "chatglm": "chatglm",
    "codeshell": "starcoder2",
    "cohere2": "cohere2",
    "command-r": "command_r",
    "dbrx": "dbrx",
    "deci": "deci",
    "deepseek": "deepseek",
    "deepseek2": "deepseek2",
    "dots1": "dots1",
    "ernie4_5": "ernie4_5",
    "ernie4_5-moe": "ernie4_5",
    "exaone": "exaone",
    "exaone4": "exaone4",
    "falcon": "falcon",
    "falcon-h1": "falcon_h1",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3": "gemma3",
    "glm4": "glm4",
    "glm4moe": "glm4moe",
    "gpt-oss": "gpt_oss",
    "gpt2": "gpt2",
    "gptneox": "gptneox",
    "granite": "granite",
    "granitehybrid": "granite_hybrid",
    "granitemoe": "granite",
    "grok": "grok",
    "hunyuan-dense": "hunyuan",
    "hunyuan-moe": "hunyuan",
    "hunyuan_vl": "hunyuan_vl",
    "internlm2": "internlm2",
    "jais": "jais",
    "jais2": "nemotron",
    "jamba": "jamba",
    "lfm2": "lfm2",
    "lfm2moe": "lfm2",
    "llama": "llama",
    "maincoder": "maincoder",
    "mamba": "mamba",
    "mamba2": "mamba2",
    "minicpm": "minicpm",
    "minimax-m2": "minimax_m2",
    "mistral3": "mistral3",
    "mpt": "mpt",
    "nemotron": "nemotron",
    "nemotron_h": "nemotron_h",
    "nemotron_h_moe": "nemotron_h",
    "olmo": "olmo",
    "olmo2": "olmo2",
    "olmoe": "olmoe",
    "openelm": "openelm",
    "orion": "orion",
    "paddleocr": "paddleocr",
    "pangu-embedded": "qwen2",
    "phi2": "phi2",
    "phi3": "phi3",
    "phimoe": "phi3",
    "plamo": "plamo",
    "plamo2": "plamo2",
    "pockettts": "pockettts",
    "qwen": "qwen2",
    "qwen2": "qwen2",
    "qwen2moe": "qwen2moe",
    "qwen2vl": "qwen2vl",
    "qwen3": "qwen3",
    "qwen35": "qwen35",
    "qwen35moe": "qwen35",
    "qwen3moe": "qwen3",
    "qwen3next": "qwen3next",
    "refact": "refact",
    "seed_oss": "seed_oss",
    "smollm3": "smollm3",
    "stablelm": "stablelm",
    "starcoder": "gpt2",
    "starcoder2": "starcoder2",
    "talkie": "talkie",
    "xverse": "internlm2",
}
# fmt: on


def build_of(arch: str) -> Build:
    """What builds the architecture's graph; the generic one where none is written."""
    return cast(Build, import_module(f"{__name__}.{MODELS.get(arch, 'generic')}").build)
