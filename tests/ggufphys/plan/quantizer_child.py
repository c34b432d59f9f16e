"""Run in a child process: which types does llama.cpp's own quantiser choose?

Reads one JSON request a line, {"path", "ftype", "has_imatrix", "output"}, answers each with one JSON line, {"types"} or
{"error"}. Without an output it is a dry run, which chooses types and writes nothing, so that file types which need an
importance matrix answer too; its choice is read from the log, the only place where it is said.
"""

import ctypes
import json
import re
import sys

from ggufphys import llama_env

llama_env.prepare()

import llama_cpp  # noqa: E402

LINE = re.compile(r"\[ *\d+/ *\d+\] (\S+) +- \[.*?\], type = +(\S+), size = .*?(?:-> .*\((\S+)\))?$")
log: list[str] = []


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def keep(level: int, text: bytes, user_data: object) -> None:
    """Collect what llama.cpp prints."""
    log.append(text.decode(errors="replace"))


def quantize(path: str, ftype: int, has_imatrix: bool, output: str | None = None) -> dict[str, object]:
    """Type by tensor name, or the error."""
    log.clear()
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = ftype
    params.dry_run = output is None
    params.nthread = 1
    entries = (llama_cpp.llama_model_imatrix_data * 2)()
    entries[0].name, entries[0].data, entries[0].size = b"unused", (ctypes.c_float * 1)(1.0), 1
    if has_imatrix:
        params.imatrix = entries
    code = llama_cpp.llama_model_quantize(path.encode(), (output or "").encode(), ctypes.byref(params))
    text = "".join(log)
    if code:
        return {"error": text[-400:]}
    found = (LINE.match(line) for line in text.splitlines())
    return {"types": {m[1]: (m[3] or m[2]).upper() for m in found if m}}


if __name__ == "__main__":
    llama_cpp.llama_log_set(keep, ctypes.c_void_p(0))
    for line in sys.stdin:
        request = json.loads(line)
        sys.stdout.write(json.dumps(quantize(**request)) + "\n")
        sys.stdout.flush()
