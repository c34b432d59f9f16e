#!/bin/sh
# MLX reads GGUF (mx.load) and says in its documentation which quantisations it keeps. One would expect an error for a tensor of another type. For
# Q5_0 there is one. At MXFP4 (gpt-oss) or the ternary types, which are newer than its reader, the list of tensors ends: that tensor and all that
# follow it are missing from what mx.load returns, without a word, whatever their types are. And BF16, a type that MLX has, is read as
# float16: what is beyond 65504 becomes infinite, and what is below 6e-8 nothing.
# Source: mlx 0.32.4 mlx/io/gguf.cpp, load_arrays (while (gguf_get_tensor(ctx, &tensor))), gguf_type_to_dtype, extract_tensor_data; gguflib
# gguflib.c, gguf_get_tensor (returns 0 for a type that it doesn't know).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'mlx[cpu]==0.32.4' 'gguf==0.19.0'
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import importlib.metadata
import sys

import gguf
import mlx.core as mx
import numpy

F32, BF16, Q5_0, MXFP4, TQ2_0 = (gguf.GGMLQuantizationType[name] for name in ("F32", "BF16", "Q5_0", "MXFP4", "TQ2_0"))


def loaded(weights, **kinds):
    """What mx.load makes of a file of these tensors, each with the same weights; or its error."""
    path = sys.argv[1] + "/model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for name, kind in kinds.items():
        writer.add_tensor(name, gguf.quants.quantize(weights, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert [tensor.name for tensor in gguf.GGUFReader(path).tensors] == list(kinds)
    try:
        return mx.load(path)
    except RuntimeError as error:
        return str(error)


ones = numpy.ones((1, 256), numpy.float32)
seen = {kind.name: loaded(ones, a=F32, b=kind, c=F32) for kind in (BF16, Q5_0, MXFP4, TQ2_0)}
seen = {name: found if isinstance(found, str) else sorted(found) for name, found in seen.items()}
wide = loaded(numpy.array([[2.0**17, 2.0**-30, 1.0]], numpy.float32), a=BF16)["a"]
print("version:   mlx", importlib.metadata.version("mlx"), "gguf", importlib.metadata.version("gguf"))
print("expected:  a, b and c, or an error; bfloat16 as it is")
print("behaviour: the tensors end where the first one of an unknown type is, without an error; bfloat16 becomes float16")
print(f"seen:      a in F32, b in another type, c in F32: {seen}; 2^17, 2^-30, 1 in BF16: {wide.tolist()[0]}, {wide.dtype}")
error = "[load_gguf] gguf_tensor_to_f16 failed"
right = seen == {"BF16": ["a", "b", "c"], "Q5_0": error, "MXFP4": ["a"], "TQ2_0": ["a"]}
sys.exit(not (right and wide.dtype == mx.float16 and wide.tolist() == [[float("inf"), 0.0, 1.0]]))
PYTHON
