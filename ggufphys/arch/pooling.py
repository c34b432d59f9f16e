"""How do architectures make one vector, or scores, of a sequence? Sets of names; what all do alike is in the graph.

Source: llama.cpp 0c1e570 src/llama-graph.cpp, build_pooling.
"""

from typing import Final

# Whose scores of a rank are shares that add up to one.
SCORES_ARE_SHARES: Final = frozenset({"qwen3", "qwen3vl"})
# Whose classifier has a GELU, where others have tanh, and takes the mean of tokens unless the file says otherwise.
GELU_CLASSIFIERS: Final = frozenset({"modern-bert"})
