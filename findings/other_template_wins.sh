#!/bin/sh
# A model's folder may hold its chat template twice: in tokenizer_config.json, where it used to be, and in chat_template.jinja, where it is kept now, and
# where makers mend it. Transformers takes the newer place, whatever the older one says. gguf's SpecialVocab, by which llama.cpp's converter writes the
# template into a GGUF, takes the older one. So one folder is two models: tests with Transformers see the mended template, the GGUF has the one
# before.
# Source: gguf 0.19.0 gguf/vocab.py, SpecialVocab._try_load_from_tokenizer_json (tokenizer_config.get("chat_template", chat_template_alt));
# transformers 5.23.0 src/transformers/tokenization_utils_base.py, PreTrainedTokenizerBase._from_pretrained (chat_template_file).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'transformers==5.23.0' 'gguf==0.19.0'
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import importlib.metadata
import json
import sys

import gguf
import tokenizers
import transformers

folder = sys.argv[1]
tokenizers.Tokenizer(tokenizers.models.BPE(vocab={"<s>": 0, "a": 1}, merges=[])).save(f"{folder}/tokenizer.json")


def templates(in_config, in_file):
    """What Transformers and gguf take of a folder with these two."""
    with open(f"{folder}/tokenizer_config.json", "w") as file:
        json.dump({"tokenizer_class": "PreTrainedTokenizerFast"} | ({"chat_template": in_config} if in_config else {}), file)
    with open(f"{folder}/chat_template.jinja", "w") as file:
        file.write(in_file)
    return transformers.AutoTokenizer.from_pretrained(folder).chat_template, gguf.SpecialVocab(folder).chat_template


one, two = templates(None, "mended"), templates("first", "mended")
print("version:   transformers", importlib.metadata.version("transformers") + ", gguf", importlib.metadata.version("gguf"))
print("expected:  of two chat templates both take the same one")
print("behaviour: Transformers takes chat_template.jinja, gguf the one in tokenizer_config.json")
print(f"seen:      (transformers, gguf) with chat_template.jinja alone {one}, with both {two}")
sys.exit((one, two) != (("mended", "mended"), ("mended", "first")))
PYTHON
