"""t5encoder: t5's encoder by itself.

Source: llama.cpp 0c1e570 src/models/t5encoder.cpp; src/models/models.h.
"""

from ggufphys.graph.models.t5 import build_encoder as build

__all__ = ["build"]
