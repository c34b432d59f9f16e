"""What does an architecture's loader do with weights that tensors' names don't tell? The exceptions, no logic.

Source: llama.cpp 0c1e570 src/models/<arch>.cpp, load_arch_tensors; src/llama-arch.cpp, LLM_TENSOR_INFOS.
"""

from typing import Final

# fmt: off
# Everything else computes its output with the token embedding when the file has no output.weight.
EMBEDDING_IS_NO_OUTPUT: Final[frozenset[str]] = frozenset({
    "bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3", "eurobert",
    "bitnet",  # multiplies with the embedding itself, where that lies
    "eagle3", "wavtokenizer-dec",
})

# Rotary factors are copied to each device that has a layer; here only layers without a window have them.
ROPE_FACTORS_ON_FULL_LAYERS: Final[frozenset[str]] = frozenset({"gemma4", "gemma4-assistant"})

# Whose token_embd_norm is the output's norm under a wrong name, not the first layer's.
EMBEDDING_NORM_IS_OUTPUT: Final[frozenset[str]] = frozenset({"lfm2", "lfm2moe"})

# Names without ".weight" or ".bias". What is neither "blk.N." nor here belongs to the first layer.
INPUT_TENSORS: Final[frozenset[str]] = frozenset({
    "token_embd", "position_embd", "token_types", "per_layer_token_embd", "masked_embd_centroids",
    "masked_embd_ordering",
})
OUTPUT_TENSORS: Final[frozenset[str]] = frozenset({
    "output", "output_norm", "output_res_score", "cls", "cls.output", "cls.norm", "dense_2", "dense_3",
    "dec.output_norm", "enc.output_norm", "output_hc_fn", "output_hc_base", "output_hc_scale", "output_hc_norm",
    "output_hc_down", "output_hc_up", "altup_proj", "altup_unembd_proj", "nextn.post_projection", "fc", "d2t",
    "markov_w1", "markov_w2", "conf_proj", "selector_predecessor", "selector_successor", "selector_hidden",
})
ROPE_FACTORS: Final[frozenset[str]] = frozenset({"rope_freqs", "rope_factors_long", "rope_factors_short"})
# fmt: on
