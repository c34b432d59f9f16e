#!/bin/sh
# `accelerate estimate-memory MODEL` says how much memory a model's weights take, from its configuration. Of a language model one would expect what
# AutoModelForCausalLM loads and pipelines serve. It makes an AutoModel, which ends before the output matrix: of a model that doesn't tie it to its
# embeddings, vocabulary times width are missing, 1.05 GB of Llama 3.1 8B in float16, 1.56 GB of Qwen2.5 32B; and four times
# that of the training's estimate. That a table for "loading the model" is of another class than the one in config.json's architectures, it doesn't say.
# Source: accelerate 1.15.0 src/accelerate/commands/estimate.py, create_empty_model (constructor = AutoModel).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --no-compile 'torch==2.13.0' 'transformers==5.23.0' 'accelerate==1.15.0'
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import argparse
import importlib.metadata
import sys
import types

import transformers
from accelerate.commands import estimate

folder = sys.argv[1]
estimate.verify_on_hub = lambda name, token=None: types.SimpleNamespace(config={}, library_name="transformers")  # the folder is no repository


def megabytes(tied):
    """Of a small Llama with a large vocabulary in float16: the estimate, and what its weights take."""
    config = transformers.LlamaConfig(vocab_size=32000, hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4, tie_word_embeddings=tied)
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    found = estimate.gather_data(argparse.Namespace(model_name=folder, library_name="transformers", trust_remote_code=False, dtypes=["float16"]))
    model = transformers.AutoModelForCausalLM.from_config(config)
    return round(found[0][2] / 1e6, 1), round(2 * sum(weight.numel() for weight in model.parameters()) / 1e6, 1)


tied, untied = megabytes(True), megabytes(False)
print("version:   accelerate", importlib.metadata.version("accelerate") + ", transformers", importlib.metadata.version("transformers"))
print("expected:  the estimate of a language model is of its weights")
print("behaviour: the output matrix is left out")
print(f"seen:      MB (estimated, weights) with embeddings tied to the output {tied}, with an output of its own {untied}; that is {2 * 32000 * 256 / 1e6:.1f}")
sys.exit(not (tied[0] == tied[1] == untied[0] and abs(untied[1] - untied[0] - 16.4) < 0.1))
PYTHON
