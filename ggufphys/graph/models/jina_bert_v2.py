"""jina-bert-v2: bert with a bias for distances.

Source: llama.cpp 0c1e570 src/models/bert.cpp, llama_model_bert::graph; src/models/jina-bert-v2.cpp.
"""

from ggufphys.graph.models import bert

build = bert.build_biased
