#!/bin/sh
# GGUFReader maps its file, so opening one should cost little: the tensors are read when they are looked at. The metadata is not so: each
# number and each string becomes NumPy arrays of its own, two for every token and every merge, when the reader is made. The
# vocabulary of a model of 152,064 tokens, 6 MB, takes hundreds of megabytes and seconds before anything is asked of it.
# Source: gguf 0.19.0 gguf/gguf_reader.py, GGUFReader.__init__, _build_fields, _get_field_parts.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'gguf==0.19.0'
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import importlib.metadata
import os
import subprocess
import sys

import gguf


path = sys.argv[1] + "/vocabulary.gguf"
writer = gguf.GGUFWriter(path, "llama")
writer.add_token_list([f"token{i}" for i in range(152064)])
writer.add_token_merges([f"ab{i} cd{i}" for i in range(151387)])
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
measured = """
import resource, sys, gguf
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
reader = gguf.GGUFReader(sys.argv[1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, len(reader.fields["tokenizer.ggml.tokens"].parts))
"""
kib, arrays = map(int, subprocess.check_output([sys.executable, "-c", measured, path], text=True).split())
file_bytes = os.path.getsize(path)
print("version:   gguf", importlib.metadata.version("gguf"))
print("expected:  a mapped file of 6 MB costs about as much to open")
print("behaviour: all of the metadata is turned into NumPy arrays at once, two for each string")
print(f"seen:      file {file_bytes} bytes, grown by {kib * 1024} bytes, {kib * 1024 / file_bytes:.0f} times as much; {arrays} arrays for 152064 tokens")
sys.exit(not (kib * 1024 > 20 * file_bytes and arrays > 2 * 152064))
PYTHON
