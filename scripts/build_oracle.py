"""What does another build of llama.cpp account for a file? The child of `scripts/record_build.py`.

usage: python scripts/build_oracle.py UNPACKED_WHEEL JOBS.json OUT.jsonl

UNPACKED_WHEEL is a wheel of llama-cpp-py-sync in a folder. The layout of llama.cpp's structs is read from the wheel's
own cffi text, so one script serves all builds. JOBS is a list of {"name", "path", "configurations"}; each job has a
child of its own, since llama.cpp may abort, and goes on behind the configuration that ended it. OUT gets a line a
configuration: model, context and compute bytes, or "error", "unknown" (no such parameter) or "died".

Stands alone: it may run under another C library than the rest. Linux x86-64, as `tests/oracle.py`.
"""

import argparse
import ctypes
import importlib
import json
import os
from pathlib import Path
from typing import Any, Final

CACHE_TYPES: Final = {
    "f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "iq4_nl": 20, "bf16": 30,
}  # fmt: skip
FLASH_ATTN: Final = {"auto": -1, "off": 0, "on": 1}
_CDEF: Final = '_LLAMA_H_CDEF = """'


class BuildOracle:
    """One build's library."""

    def __init__(self, wheel: Path) -> None:
        folder = wheel / "llama_cpp_py_sync"
        text = (folder / "_cffi_bindings.py").read_text()
        start = text.index(_CDEF) + len(_CDEF)
        self.ffi = importlib.import_module("cffi").FFI()
        self.ffi.cdef(text[start : text.index('"""', start)])
        library = os.fspath(folder / "libllama.so")
        self.llama = self.ffi.dlopen(library)
        self.breakdown = ctypes.CDLL(library)._ZNK13llama_context16memory_breakdownEv
        self.breakdown.restype, self.breakdown.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_void_p]
        self.silent = self.ffi.callback("void(enum ggml_log_level, const char *, void *)", lambda *said: None)
        self.llama.llama_log_set(self.silent, self.ffi.NULL)
        self.llama.llama_backend_init()
        self.models: dict[tuple[str, bool], Any] = {}

    def ask(self, path: str, configuration: dict[str, Any]) -> dict[str, Any]:
        """Bytes by quantity, or why there are none."""
        model = self.model(path, load_mtp=configuration["load_mtp"])
        if model is None:
            return {"unknown": "load_mtp"}
        if not model:
            return {"error": "model"}
        native = self.llama.llama_context_default_params()
        known = self.fields(native)
        for name in ("n_ctx", "n_batch", "n_ubatch", "n_seq_max", "kv_unified", "swa_full"):
            setattr(native, name, configuration[name])
        for name in ("n_outputs_max", "n_rs_seq"):
            if name in known:
                setattr(native, name, configuration[name])
            elif configuration[name]:
                return {"unknown": name}
        if configuration["ctx_type"] != "default":
            if "ctx_type" not in known:
                return {"unknown": "ctx_type"}
            native.ctx_type = 1
        native.type_k, native.type_v = CACHE_TYPES[configuration["type_k"]], CACHE_TYPES[configuration["type_v"]]
        native.flash_attn_type = FLASH_ATTN[configuration["flash_attn"]]
        context = self.llama.llama_init_from_model(model, native)
        if not context:
            return {"error": "context"}
        model_bytes, context_bytes, compute_bytes = self.sums(context)
        self.llama.llama_free(context)
        return {"model": model_bytes, "context": context_bytes, "compute": compute_bytes}

    def model(self, path: str, *, load_mtp: bool) -> Any:
        """The file loaded, nothing allocated; None where the build cannot be asked for a prediction head."""
        key = (path, load_mtp)
        if key not in self.models:
            native = self.llama.llama_model_default_params()
            known = self.fields(native)
            if load_mtp and "load_mtp" not in known:
                return None
            for name, value in {
                "use_extra_bufts": False, "no_alloc": True, "load_mtp": load_mtp, "load_mode": 0, "use_mmap": False,
                "use_direct_io": False,
            }.items():  # fmt: skip
                if name in known:
                    setattr(native, name, value)
            self.models[key] = self.llama.llama_model_load_from_file(os.fsencode(path), native)
        return self.models[key]

    def fields(self, struct: Any) -> set[str]:
        """The names that this build's struct has."""
        return {name for name, _ in self.ffi.typeof(struct).fields}

    def sums(self, context: Any) -> tuple[int, int, int]:
        """Model, context and compute bytes: a std::map returned by value, read by libstdc++'s layout."""
        storage = (ctypes.c_uint64 * 8)()
        self.breakdown(ctypes.addressof(storage), int(self.ffi.cast("uintptr_t", context)))
        found = [0, 0, 0]
        pending = [storage[2]]  # the root; a node is: colour, parent, left, right, key, model, context, compute
        while pending:
            address = pending.pop()
            if address:
                node = (ctypes.c_uint64 * 8).from_address(address)
                pending += [node[2], node[3]]
                found = [total + node[5 + i] for i, total in enumerate(found)]
        return found[0], found[1], found[2]


def main(wheel: str, jobs: str, out: str) -> None:
    """Ask about each configuration of each job."""
    oracle = BuildOracle(Path(wheel))
    with Path(out).open("w") as file:
        for job in json.loads(Path(jobs).read_text()):
            done = 0
            while done < len(job["configurations"]):
                answers, died = _in_child(oracle, job, done)
                done += len(answers) + died
                lines = [*answers, *([{"died": True}] if died else [])]
                for answer in lines:
                    file.write(json.dumps({"name": job["name"], **answer}) + "\n")
            file.flush()


def _in_child(oracle: BuildOracle, job: dict[str, Any], first: int) -> tuple[list[dict[str, Any]], bool]:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        with os.fdopen(write, "w") as pipe:
            for configuration in job["configurations"][first:]:
                pipe.write(json.dumps(oracle.ask(job["path"], configuration)) + "\n")
                pipe.flush()
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        answers = [json.loads(line) for line in pipe.read().splitlines()]
    os.waitpid(pid, 0)
    return answers, first + len(answers) < len(job["configurations"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", metavar="UNPACKED_WHEEL", help="a wheel of llama-cpp-py-sync in a folder")
    parser.add_argument("jobs", metavar="JOBS.json", help="what to ask about")
    parser.add_argument("out", metavar="OUT.jsonl", help="where answers go")
    asked = parser.parse_args()
    main(asked.wheel, asked.jobs, asked.out)
