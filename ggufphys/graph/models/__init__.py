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
}
# fmt: on


def build_of(arch: str) -> Build:
    """What builds the architecture's graph; the generic one where none is written."""
    return cast(Build, import_module(f"{__name__}.{MODELS.get(arch, 'generic')}").build)
