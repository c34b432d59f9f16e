"""qwen3tts: as qwen3vl; logits end with those of the output's rows, and the tokens before them are impossible.

Source: llama.cpp 0c1e570 src/models/qwen3vl.cpp, llama_model_qwen3vl::graph, where it pads the logits.
"""

from math import inf

from ggufphys.errors import GGUFError
from ggufphys.graph import ops
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.ir import Graph
from ggufphys.graph.models.qwen3vl import hidden


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    logits = b.logits(hidden(b))
    n_before = b.weight("token_embd.weight").ne[1] - logits.ne[0]
    if n_before < 0:
        raise GGUFError(f"output.weight has {-n_before} rows more than token_embd.weight: llama.cpp aborts")
    if n_before > 0:
        one = ops.scale(ops.view(b.weight("output_norm.weight"), (1,)), 0.0, -inf)
        logits = ops.concat(ops.repeat(one, n_before, logits.ne[1]), logits, 0)
    return b.embeddings(logits)
