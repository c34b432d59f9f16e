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
    "llama": "llama",
    "cohere2": "cohere2",
    "command-r": "command_r",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3": "gemma3",
    "glm4": "glm4",
    "gpt-oss": "gpt_oss",
    "granite": "granite",
    "granitemoe": "granite",
    "olmo2": "olmo2",
    "olmoe": "olmoe",
    "phi3": "phi3",
    "phimoe": "phi3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen3moe": "qwen3",
    "starcoder2": "starcoder2",
    "deepseek2": "deepseek2",
    "falcon-h1": "falcon_h1",
    "lfm2": "lfm2",
    "lfm2moe": "lfm2",
    "mamba": "mamba",
    "mamba2": "mamba2",
    "nemotron_h": "nemotron_h",
    "nemotron_h_moe": "nemotron_h",
    "qwen3next": "qwen3next",
}
# fmt: on


def build_of(arch: str) -> Build:
    """What builds the architecture's graph; the generic one where none is written."""
    return cast(Build, import_module(f"{__name__}.{MODELS.get(arch, 'generic')}").build)
