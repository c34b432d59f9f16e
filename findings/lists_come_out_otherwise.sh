#!/bin/sh
# GGUF's arrays may be empty and may hold arrays; what GGUFWriter takes should be what GGUFReader gives. An empty list is left out of the file
# without a word. A list of lists is written as one and read as flat, and `gguf-new-metadata`, which should copy what it was not told
# to change, writes it so: the copy has another number of values. A file that has an empty list after all, as llama.cpp saves them
# (llama_model_save_to_file, classifier.output_labels), it cannot copy.
# Source: gguf 0.19.0 gguf/gguf_writer.py, GGUFWriter.add_array, GGUFWriter._pack_val; gguf/gguf_reader.py, ReaderField.contents;
# gguf/scripts/gguf_new_metadata.py, copy_with_new_metadata (field.types[-1]).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'gguf==0.19.0'
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import importlib.metadata
import struct
import subprocess
import sys

import gguf

folder = sys.argv[1]


def text(characters):
    return struct.pack("<Q", len(characters)) + characters.encode()


def copied(path):
    """How the copy of a file with another name ended, and what it has besides."""
    copy = path + ".copy"
    command = [folder + "/env/bin/gguf-new-metadata", path, copy, "--general-name", "copy"]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        return next(line for line in ended.stderr.splitlines() if line.startswith("ValueError"))
    field = gguf.GGUFReader(copy).get_field("x.lists")
    return [kind.name for kind in field.types], field.contents()


path = folder + "/lists.gguf"
writer = gguf.GGUFWriter(path, "llama")
writer.add_array("x.none", [])
writer.add_array("x.lists", [[1, 2], [3]])
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
fields = gguf.GGUFReader(path).fields
written = [kind.name for kind in fields["x.lists"].types], fields["x.lists"].contents()

empty = folder + "/empty.gguf"
STRING, ARRAY = 8, 9
with open(empty, "wb") as file:
    file.write(b"GGUF" + struct.pack("<IQQ", 3, 0, 2))  # version, tensors, keys
    file.write(text("general.architecture") + struct.pack("<I", STRING) + text("llama"))
    file.write(text("x.none") + struct.pack("<IIQ", ARRAY, STRING, 0))
read = gguf.GGUFReader(empty).get_field("x.none").contents()

seen = ["x.none" in fields, written, copied(path), read, copied(empty)]
print("version:   gguf", importlib.metadata.version("gguf"))
print("expected:  [] and [[1, 2], [3]] are read as they were written, and copied as they were read")
print("behaviour: [] isn't written, [[1, 2], [3]] becomes [1, 2, 3], in a copy for good; a file with [] can be read and not copied")
print("seen:      [] written: {}; lists read: {}; their copy: {}; [] of another writer read: {}, copied: {}".format(*seen))
flat = ["ARRAY", "ARRAY", "INT32"], [1, 2, 3]
sys.exit(seen != [False, flat, (["ARRAY", "INT32"], [1, 2, 3]), [], "ValueError: Invalid GGUF metadata array. Empty array"])
PYTHON
