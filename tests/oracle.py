"""What does llama.cpp itself account for a file? Its memory breakdown in bytes, for tests to compare predictions with.

Runs as a child process, `python tests/oracle.py MODEL OPTIONS PARAMS...`, since llama.cpp may abort; prints one JSON
object a configuration. With `no_alloc` nothing is allocated and weights are not read, so a sparse file will do. The
breakdown is a std::map returned by value, read here by libstdc++'s layout on x86-64: good for test machines only.

Source: llama.cpp 0c1e570 src/llama-ext.h, llama_get_memory_breakdown, llama_memory_breakdown_data.
"""

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ggufphys.context import cache_type
from ggufphys.params import POOLING_TYPES, Params

QUANTITIES = ("model", "context", "compute")
FLASH_ATTN = {"auto": -1, "off": 0, "on": 1}
CONTEXT_TYPES = {"default": 0, "mtp": 1}
POOLINGS = {"model": -1, **{name: number for number, name in enumerate(POOLING_TYPES)}}


def ask(
    path: Path, params: Sequence[Params], *, no_alloc: bool = True, environment: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """llama.cpp's bytes by quantity, and `by_buffer`, for each configuration; {"error": ...} where it refuses.

    Devices are RPC workers, to which the child connects, or those of a backend that its `environment` names.
    """
    answer = _run(path, params, no_alloc, environment or {})
    if answer.returncode:
        raise AssertionError(f"the oracle ended with {answer.returncode}: {answer.stderr[-2000:]}")
    return _parse(answer.stdout)


def ask_until_death(
    path: Path, params: Sequence[Params], environment: Mapping[str, str] | None = None, *, no_alloc: bool = True
) -> tuple[list[dict[str, Any]], bool]:
    """The same as far as llama.cpp goes, and whether it aborted at the next configuration."""
    answer = _run(path, params, no_alloc, environment or {})
    return _parse(answer.stdout), answer.returncode != 0


def _run(
    path: Path, params: Sequence[Params], no_alloc: bool, environment: Mapping[str, str]
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [
            sys.executable,
            __file__,
            os.fspath(path),
            json.dumps({"no_alloc": no_alloc}),
            *(json.dumps(asdict(p)) for p in params),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )


def _parse(stdout: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stdout.splitlines()]


def main(path: str, options: dict[str, Any], configurations: Sequence[dict[str, Any]]) -> None:
    """Load the file once for each configuration and print what llama.cpp accounts."""
    from ggufphys.machine import llama_env
    from ggufphys.machine.llama_log import hear

    llama_env.prepare()
    import llama_cpp as api

    from server.engine.llama.devices import load_backend

    said: list[str] = []

    hear(api, lambda text: said.append(text.strip()))
    api.llama_backend_init()
    load_backend(api)
    oracle = Oracle(api, path, options["no_alloc"])
    for configuration in configurations:
        said.clear()
        result = oracle.breakdown(Params.from_json(configuration))
        print(json.dumps(result or {"error": said[-3:]}), flush=True)


class Oracle:
    """One file in llama.cpp; a model serves all configurations that load it alike, since reading 262,144 tokens takes
    a second, and is never freed: the process is short.
    """

    def __init__(self, api: Any, path: str, no_alloc: bool) -> None:
        self.api = api
        self.path = path
        self.no_alloc = no_alloc
        self.models: dict[Params, int | None] = {}

    def breakdown(self, p: Params) -> dict[str, Any] | None:
        """Totals by quantity and the same `by_buffer`, or None when llama.cpp refuses the model or the context."""
        model = self.load(p)
        if not model:
            return None
        api = self.api
        native = context_params(api, p)
        context = api.llama_init_from_model(model, native)
        if not context:
            return None
        by_buffer = breakdown(api, context)
        api.llama_free(context)
        totals = {q: sum(sizes[q] for sizes in by_buffer.values()) for q in QUANTITIES}
        return {**totals, "by_buffer": by_buffer}

    def free(self) -> None:
        """Free all models, for those who ask about many files in one process."""
        for model in self.models.values():
            if model:
                self.api.llama_model_free(model)
        self.models.clear()

    def load(self, p: Params) -> int | None:
        """The model, loaded as `p` says."""
        from server.engine.llama.devices import use_devices

        loaded = ("use_extra_bufts", "use_mmap", "devices", "n_gpu_layers", "split_mode", "tensor_split", "main_gpu",
                  "override_tensor", "n_cpu_moe", "no_host", "load_mtp")  # fmt: skip
        key = replace(Params(), **{name: getattr(p, name) for name in loaded})
        if key not in self.models:
            native = self.api.llama_model_default_params()
            keep = use_devices(self.api, native, p)
            native.use_extra_bufts, native.load_mtp = p.use_extra_bufts, p.load_mtp
            native.no_alloc = self.no_alloc
            native.load_mode = 0 if self.no_alloc or not p.use_mmap else 1
            self.models[key] = self.api.llama_model_load_from_file(self.path.encode(), native)
            del keep
        return self.models[key]


def context_params(api: Any, p: Params) -> Any:
    """llama.cpp's structure with everything that `p` says of a context."""
    native = api.llama_context_default_params()
    for name in (
        "n_ctx", "n_batch", "n_ubatch", "n_seq_max", "n_outputs_max", "kv_unified", "swa_full", "offload_kqv",
        "op_offload", "n_rs_seq", "embeddings",
    ):  # fmt: skip
        setattr(native, name, getattr(p, name))
    native.type_k, native.type_v = int(cache_type(p.type_k)), int(cache_type(p.type_v))
    native.flash_attn_type, native.ctx_type = FLASH_ATTN[p.flash_attn], CONTEXT_TYPES[p.ctx_type]
    native.pooling_type = POOLINGS[p.pooling]
    return native


def breakdown(api: Any, context: int) -> dict[str, dict[str, int]]:
    """Bytes by buffer type and quantity."""
    library = api.llama_cpp._lib
    get, name = library._Z26llama_get_memory_breakdownPK13llama_context, library.ggml_backend_buft_name
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_void_p]
    name.restype, name.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
    storage = (ctypes.c_uint64 * 8)()
    get(ctypes.addressof(storage), context)
    sums: dict[str, dict[str, int]] = {}
    pending = [storage[2]]  # the root; a node is: colour, parent, left, right, key, model, context, compute
    while pending:
        address = pending.pop()
        if not address:
            continue
        node = (ctypes.c_uint64 * 8).from_address(address)
        pending += [node[2], node[3]]
        row = sums.setdefault(name(node[4]).decode(), dict.fromkeys(QUANTITIES, 0))
        for quantity, nbytes in zip(QUANTITIES, node[5:8], strict=True):
            row[quantity] += nbytes
    return sums


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]), [json.loads(text) for text in sys.argv[3:]])
