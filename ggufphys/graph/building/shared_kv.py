"""Whose cache does a layer read? Late layers of some models have none of their own.

Source: llama.cpp 0c1e570 src/llama-model.cpp, llama_model::create_memory (reuse).
"""

from ggufphys.graph.building.blocks import Builder


def owner(b: Builder, il: int, n_layer_kv: int) -> int:
    """The layer itself, or of the `n_layer_kv` layers with a cache the last but one with windows, the last without."""
    if il < n_layer_kv:
        return il
    assert isinstance(b.h.swa_pattern, tuple), "the architecture's row resolves the pattern"
    return n_layer_kv - (2 if b.h.swa_pattern[il] else 1)
