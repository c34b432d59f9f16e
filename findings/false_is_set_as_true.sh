#!/bin/sh
# `gguf-set-metadata FILE tokenizer.ggml.add_bos_token false` should stop a model from getting a BOS. It says that the key is set to True
# already and ends with 0: the word is made a value by NumPy's bool, for which every text but the empty one is true. So is "0". What turns
# the key off is no word at all, "".
# Source: gguf 0.19.0 gguf/scripts/gguf_set_metadata.py, set_metadata (handler(args.value)); gguf/gguf_reader.py, gguf_scalar_to_np.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'gguf==0.19.0'
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import importlib.metadata
import subprocess
import sys

import gguf

folder = sys.argv[1]
path = folder + "/model.gguf"
KEY = "tokenizer.ggml.add_bos_token"


def after_setting(text):
    """What the key is once it was set to a text, from True; and how the tool ended."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_add_bos_token(True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    ended = subprocess.run([folder + "/env/bin/gguf-set-metadata", path, KEY, text, "--force"], capture_output=True, text=True)
    return gguf.GGUFReader(path).get_field(KEY).contents(), ended.returncode, ended.stderr.splitlines()[-1]


seen = {text: after_setting(text) for text in ("false", "False", "0", "")}
print("version:   gguf", importlib.metadata.version("gguf"))
print("expected:  a key that is set to false is false, or the word is refused")
print("behaviour: it is true for every word, and false for none")
print("seen:     ", "; ".join(f"{text!r}: {value}, exit {code}, {line}" for text, (value, code, line) in seen.items()))
sys.exit([(value, code) for value, code, _ in seen.values()] != [(True, 0)] * 3 + [(False, 0)])
PYTHON
