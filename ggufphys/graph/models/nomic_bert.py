"""nomic-bert, nomic-bert-moe and jina-bert-v3: bert with rotary positions.

Source: llama.cpp 0c1e570 src/models/bert.cpp, llama_model_bert::graph.
"""

from ggufphys.graph.models import bert

build = bert.build_rotated
