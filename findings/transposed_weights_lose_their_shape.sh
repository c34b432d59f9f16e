#!/bin/sh
# Weights are transposed on their way from one framework to another, and a transposed NumPy array is a view: other strides over the same memory. What is
# saved with safetensors.numpy.save_file should be what is loaded again, as it was up to 0.7.0 and as numpy.save does it, or be refused, as
# safetensors.torch refuses such tensors. Since 0.8.0 the memory is written as it lies, with the array's shape beside it: the file has all the right
# numbers at other places, and nothing says so. numpy.asfortranarray's, which many solvers of linear algebra return, come out the same way.
# Source: safetensors 0.8.0 safetensors/numpy.py, _flatten (data_ptr=tensor.ctypes.data); issue 825 of the project.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'safetensors==0.8.0' 'numpy==2.4.6'
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import importlib.metadata
import sys

import numpy
from safetensors.numpy import load_file, save_file

path = f"{sys.argv[1]}/model.safetensors"
weight = numpy.arange(6, dtype=numpy.float32).reshape(2, 3)
views = {"as it is": weight, "transposed": weight.T, "in Fortran's order": numpy.asfortranarray(weight)}
seen = {}
for name, view in views.items():
    save_file({"weight": view}, path)
    loaded = load_file(path)["weight"]
    seen[name] = "the same" if numpy.array_equal(loaded, view) else f"{view.astype(int).tolist()} has become {loaded.astype(int).tolist()}"
print("version:   safetensors", importlib.metadata.version("safetensors") + ", numpy", importlib.metadata.version("numpy"))
print("expected:  what is loaded is what was saved")
print("behaviour: of an array that isn't in C's order the memory is saved as it lies")
print("seen:     ", "; ".join(f"{name}: {what}" for name, what in seen.items()))
sys.exit([what == "the same" for what in seen.values()] != [True, False, False])
PYTHON
