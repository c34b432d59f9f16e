"""Run in a child process: which types does llama.cpp's own quantiser choose?

Reads one JSON request a line, {"path", "ftype", "imatrix", "output", "options"}, answers each with one JSON line,
{"types"} or {"error"}. Without an output it is a dry run, which chooses types and writes nothing, so that file types
which need an importance matrix answer too; its choice is read from the log, the only place where it is said. `imatrix`
holds the number of weights for each tensor, all 1; `options` are fields of llama_model_quantize_params, and
tensor_types, pairs of a pattern and a type.
"""

import ctypes
import json
import re
import sys
from typing import Any

from ggufphys.machine import llama_env
from ggufphys.machine.llama_log import ALL, hear

llama_env.prepare()

import llama_cpp  # noqa: E402

LINE = re.compile(r"\[ *\d+/ *\d+\] (\S+) +- \[.*?\], type = +(\S+), size = .*?(?:-> .*\((\S+)\))?$")
log: list[str] = []  # what llama.cpp prints


def quantize(
    path: str, ftype: int, imatrix: dict[str, int] | None, output: str | None = None, **options: Any
) -> dict[str, object]:
    """Type by tensor name, or the error."""
    log.clear()
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = ftype
    params.dry_run = output is None
    params.nthread = 1
    tensor_types = [(pattern.encode(), number) for pattern, number in options.pop("tensor_types", [])]
    overrides = (llama_cpp.llama_model_tensor_override * (len(tensor_types) + 1))(*tensor_types)
    if tensor_types:
        params.tt_overrides = overrides
    for name, value in options.items():
        setattr(params, name, value)
    ones = {name: (ctypes.c_float * size)(*[1.0] * size) for name, size in (imatrix or {}).items()}
    entries = (llama_cpp.llama_model_imatrix_data * (len(ones) + 1))()
    for entry, (name, data) in zip(entries, ones.items(), strict=False):
        entry.name, entry.data, entry.size = name.encode(), data, len(data)
    if imatrix is not None:
        params.imatrix = entries
    code = llama_cpp.llama_model_quantize(path.encode(), (output or "").encode(), ctypes.byref(params))
    text = "".join(log)
    if code:
        return {"error": text[-400:]}
    found = (LINE.match(line) for line in text.splitlines())
    return {"types": {m[1]: (m[3] or m[2]).upper() for m in found if m}}


if __name__ == "__main__":
    hear(llama_cpp, log.append, ALL)
    for line in sys.stdin:
        request = json.loads(line)
        sys.stdout.write(json.dumps(quantize(**request)) + "\n")
        sys.stdout.flush()
