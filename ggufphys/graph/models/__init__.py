"""One file an architecture: its graph, composed of blocks. `MODELS` names those that are written."""

from collections.abc import Callable, Mapping
from typing import Final

from ggufphys.graph.blocks import Builder
from ggufphys.graph.ir import Graph
from ggufphys.graph.models import llama

MODELS: Final[Mapping[str, Callable[[Builder], Graph]]] = {
    "llama": llama.build,
}
