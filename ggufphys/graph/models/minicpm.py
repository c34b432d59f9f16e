"""minicpm: as granite, with factors that follow from the model's size unless the file has them.

Source: llama.cpp 0c1e570 src/models/minicpm.cpp, llama_model_minicpm.
"""

from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph
from ggufphys.graph.models import granite
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    keys = b.keys
    return granite.build_with(
        b,
        read_rope(keys, b.h, "norm"),
        embedding_scale=keys.real("embedding_scale", 12.0),
        residual_scale=keys.real("residual_scale", 1.4 / sqrtf(b.h.n_layer)),
        attention_scale=0.0,
        logit_scale=keys.real("logit_scale", 256 / b.h.n_embd),
    )
