#!/bin/sh
# buildGgufHeader of @huggingface/gguf writes a file's header anew with edited metadata, for the weights to follow as they are. It pads it to 32
# bytes unless it is told otherwise, though the metadata that it is given say general.alignment: where that is 64, the weights begin 32
# bytes too early in every other file, and a reader that keeps to the key reads each of them shifted. The header of a file with an array of
# bytes (tokenizer.ggml.precompiled_charsmap: T5, XLM-R, BGE-M3) it can't write at all: their type's number is 0, which it takes for none.
# Source: @huggingface/gguf 0.4.6 src/gguf.ts, buildGgufHeader (options.alignment ?? GGUF_DEFAULT_ALIGNMENT), writeMetadataValue (!subType).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'gguf==0.19.0'
npm install --silent --no-audit --no-fund --prefix "$folder" '@huggingface/gguf@0.4.6'
cat > "$folder/edit.mjs" <<'NODE'
import { readFileSync, writeFileSync } from "node:fs";
import { buildGgufHeader, gguf } from "@huggingface/gguf";

const [path, edited] = process.argv.slice(2);
const file = readFileSync(path);
const { typedMetadata, littleEndian, tensorInfoByteRange, tensorDataOffset } = await gguf(path, { allowLocalFile: true, typedMetadata: true });
try {
  const header = await buildGgufHeader(new Blob([file]), typedMetadata, { littleEndian, tensorInfoByteRange });
  writeFileSync(edited, Buffer.concat([Buffer.from(await header.arrayBuffer()), file.subarray(Number(tensorDataOffset))]));
} catch (error) {
  writeFileSync(edited, error.message);
}
NODE
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import importlib.metadata
import pathlib
import subprocess
import sys

import gguf
import numpy

folder = pathlib.Path(sys.argv[1])


def edited(**has):
    """What the header's writer makes of a file whose metadata stay as they are."""
    writer = gguf.GGUFWriter(folder / "model.gguf", "t5")
    if "alignment" in has:
        writer.add_custom_alignment(has["alignment"])
    writer.add_string("general.name", "n" * has.get("name", 1))
    if "charsmap" in has:
        writer.add_precompiled_charsmap(has["charsmap"])
    writer.add_tensor("token_embd.weight", numpy.arange(64, dtype=numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    subprocess.run(["node", "edit.mjs", "model.gguf", "edited.gguf"], cwd=folder, check=True)
    return (folder / "model.gguf").read_bytes(), (folder / "edited.gguf").read_bytes()


original, plain = edited()
moved = {after.index(original[-256:]) - before.index(original[-256:]) for before, after in (edited(alignment=64, name=length) for length in range(1, 65))}
_, refused = edited(charsmap=b"\x01\x02")
print("version:   @huggingface/gguf 0.4.6, gguf", importlib.metadata.version("gguf"))
print("expected:  a header that is written anew with the same metadata is the same")
print("behaviour: with general.alignment 64 the weights may begin 32 bytes early; with an array of bytes it is refused")
print(f"seen:      without either: {'the same' if plain == original else 'another'}; weights moved by {sorted(moved)} bytes; array of bytes: {refused.decode()!r}")
sys.exit(not (plain == original and moved == {-32, 0} and refused == b"Array type requires subType to be specified"))
PYTHON
