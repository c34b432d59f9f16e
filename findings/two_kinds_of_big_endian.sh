#!/bin/sh
# A model written for big-endian machines (GGUFWriter, endianess=BIG) should be the file that `gguf-convert-endian` makes of the little-endian
# one. Both swap F32 and F16; of Q8_0's blocks the converter swaps the scale, and the writer nothing, as its data is bytes to it: converted
# back, a weight of 1 is one of 0.016. Both files look alike, in metadata, types and sizes. And gguf's own dequantize() gives right numbers
# for the writer's Q8_0 alone, and for no F32 of either, though the reader's array of it is right.
# Source: gguf 0.19.0 gguf/gguf_writer.py, GGUFWriter.add_tensor (tensor.byteswap); gguf/scripts/gguf_convert_endian.py, byteswap_q8_0;
# gguf/quants.py, dequantize (data.view(np.float32)).
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
import numpy

folder = sys.argv[1]
F32, Q8_0 = gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.Q8_0
weights = numpy.ones((1, 32), numpy.float32)


def write(name, order):
    path = f"{folder}/{name}.gguf"
    writer = gguf.GGUFWriter(path, "llama", endianess=order)
    for kind in (F32, Q8_0):
        writer.add_tensor(kind.name, gguf.quants.quantize(weights, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def convert(path, order):
    subprocess.run([folder + "/env/bin/gguf-convert-endian", path, order], input="YES\n", text=True, check=True, capture_output=True)


def first_weights(path):
    """The first number of each tensor by dequantize()."""
    return {t.name: float(gguf.quants.dequantize(t.data, t.tensor_type).flat[0]) for t in gguf.GGUFReader(path).tensors}


little, written, converted = write("little", gguf.GGUFEndian.LITTLE), write("written", gguf.GGUFEndian.BIG), write("converted", gguf.GGUFEndian.LITTLE)
convert(converted, "big")
pairs = zip(gguf.GGUFReader(written).tensors, gguf.GGUFReader(converted).tensors)
same = {a.name: a.data.tobytes() == b.data.tobytes() for a, b in pairs}
array = float(gguf.GGUFReader(written).tensors[0].data.flat[0])
big = first_weights(written)
convert(written, "little")
back = first_weights(written)
print("version:   gguf", importlib.metadata.version("gguf"))
print("expected:  the file written as big-endian is the one converted to it, and converted back it is the little-endian one")
print("behaviour: scales of blocks are swapped by the converter alone; dequantize() takes big-endian F32 for little-endian")
print(f"seen:      same bytes: {same}; weights of 1, little: {first_weights(little)}, written as big: {big} (the reader's F32: {array}), converted back: {back}")
right = round(big["Q8_0"], 2) == 1 and array == 1 and back["F32"] == 1 and abs(first_weights(little)["Q8_0"] - 1) < 0.01
sys.exit(not (same == {"F32": True, "Q8_0": False} and right and big["F32"] < 1e-30 and abs(back["Q8_0"] - 1) > 0.5))
PYTHON
