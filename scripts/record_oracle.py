"""Record what llama.cpp says about the small models of `tests/data/archs.toml` into `tests/data/archs.json`.

usage: python -m scripts.record_oracle [NAME...]        all models, or those named; the others keep their records

For each model it first asks which tensors llama.cpp loads: of a file without tensors, created as the loader's own tests
do (llama_model_init_from_user), then by mending what the loader complains about. Then it writes the header, and lets
`tests/oracle.py` create a context for each configuration of the grid, nothing allocated. llama.cpp may abort, so all
of this happens in child processes. Needs the pinned llama-cpp-python on Linux x86-64, and some minutes.

Source: llama.cpp 0c1e570 src/llama-model-loader.cpp, check_tensor_dims, create_tensor.
"""

import argparse
import ctypes
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

from bench.running.program import run_program
from ggufphys.gguf import GGMLType
from ggufphys.gguf.writer import TensorSpec, data_bytes, encode_header
from ggufphys.machine import llama_env
from ggufphys.machine.llama_log import hear
from ggufphys.params import Device, Params, rpc_device
from tests import archs, oracle
from tests.rpc_worker import workers

PRODUCTS = re.compile(
    r"(attn_(q|k|v|qkv|output|o|q_a|q_b|kv_a_mqa|gate)|ffn_(gate|up|down|gate_up)(_exps|_shexp)?|ssm_(in|out)"
    r"|token_embd|output)\.weight"
)
CONVOLUTIONS = re.compile(r"(conv1d|posnet\.\d+\.conv[12]|convnext\.\d+\.dw)\.weight")  # im2col takes F16 alone
SCALES = (".scale", ".input_scale")  # of weights in NVFP4, which these models have none of
MENDS = 400  # how often the loader may complain about one model


def main() -> None:
    """Record and write; of a child: print the tensors of a model."""
    if sys.argv[1:2] == ["--tensors"]:
        print_tensors(sys.argv[2], Path(sys.argv[3]))
        return
    names = names_asked()
    known = json.loads(archs.RECORDS.read_text())["models"] if archs.RECORDS.exists() and names else {}
    wanted = names or list(archs.models())
    with workers(2) as endpoints, ThreadPoolExecutor(os.cpu_count()) as pool:
        recorder = Recorder(tuple(rpc_device(endpoint, 1 << 30) for endpoint in endpoints))
        for name, record in zip(wanted, pool.map(recorder.record, wanted), strict=True):
            if isinstance(record, str):
                print(f"{name}: NO RECORD: {record}", flush=True)
                continue
            print(f"{name}: {_tally(record.rows)}; with devices {_tally(record.device_rows)}", flush=True)
            assert archs.decode(json.loads(json.dumps(archs.encode(record)))) == record, name
            known[name] = archs.encode(record)
    models = {name: known[name] for name in archs.models() if name in known}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(e, separators=(',', ':'))}" for name, e in models.items())
    archs.RECORDS.write_text(f'{{"llama_cpp": "0c1e570", "models": {{\n{lines}\n}}}}\n')


def _tally(rows: Sequence[object]) -> str:
    counts = {what: rows.count(what) for what in ("refused", "aborts")}
    return f"{len(rows) - sum(counts.values())} rows" + "".join(f", {n} {what}" for what, n in counts.items() if n)


class Recorder:
    """Asks llama.cpp about models, several at a time; an RPC worker serves one client at a time."""

    def __init__(self, devices: tuple[Device, ...]) -> None:
        self.devices = devices
        self.workers_free = Lock()

    def record(self, name: str) -> archs.Record | str:
        """The record of one model, its tensors and a row for each configuration; or why there is none."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.gguf")
            answer = _child("--tensors", name, os.fspath(path))
            if answer.returncode:
                return answer.stderr[-1500:]
            tensors = tuple(archs.unpack(json.loads(answer.stdout)))
            archs.write(path, name, tensors)
            rows = tuple(archs.row(a) if a else "aborts" for a in _answers(path, archs.GRID))
            grid = [replace(p, devices=self.devices[: len(p.devices)]) for p in archs.DEVICE_GRID]
            with self.workers_free:
                answers = list(_answers(path, grid))
        device_rows = tuple(
            archs.device_row(a, p.devices) if a else "aborts" for a, p in zip(answers, grid, strict=True)
        )
        return archs.Record(tensors=tensors, rows=rows, device_rows=device_rows)


def _answers(path: Path, grid: Sequence[Params]) -> Iterator[dict[str, Any] | None]:
    """What the oracle says for each configuration, None where it dies; the next one then has a process of its own."""
    while grid:
        answers, died = oracle.ask_until_death(path, grid)
        yield from answers
        if died:
            yield None
        grid = grid[len(answers) + died :]


def _child(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "scripts.record_oracle", *arguments], capture_output=True, text=True, check=False
    )


# -- in the child: which tensors?


def print_tensors(name: str, path: Path) -> None:
    """Print the model's tensors, packed, as JSON."""
    llama_env.prepare()
    import llama_cpp as api

    said: list[str] = []

    hear(api, said.append)
    api.llama_backend_init()
    model = archs.models()[name]
    shapes = {} if model.required else wanted(api, model, path)
    shapes = {n: ne for n, ne in shapes.items() if not n.endswith((*SCALES, *model.less))}
    shapes = {**{n: (1,) for n in model.more}, **shapes, **{t.name: t.ne for t in model.given}}
    types = {t.name: t.ggml_type for t in model.given}
    for _ in range(MENDS):
        tensors = [TensorSpec(n, ne, types.get(n) or _type(n, ne)) for n, ne in sorted(shapes.items(), key=_file_order)]
        archs.write(path, name, tensors)
        said.clear()
        if load(api, path):
            print(json.dumps(archs.pack(tensors)))
            return
        complaint = "".join(said)
        if found := re.search(r"tensor '(.+)' not found", complaint):
            shapes[found[1]] = (1,)
        elif found := re.search(r"tensor '(.+)' has wrong shape; expected ([\d, ]+), got", complaint):
            shapes[found[1]] = tuple(int(n) for n in found[2].split(",") if n.strip())
        else:
            break
    raise SystemExit("".join(said)[-1500:])


def wanted(api: Any, model: archs.ArchModel, path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors that llama.cpp creates for a file without any."""
    library = api.llama_cpp._lib
    shapes: dict[str, tuple[int, ...]] = {}
    library.ggml_get_name.restype, library.ggml_get_name.argtypes = ctypes.c_char_p, [ctypes.c_void_p]

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)  # type: ignore[untyped-decorator]
    def note(tensor: int, user_data: int) -> None:
        ne = list((ctypes.c_int64 * 4).from_address(tensor + 16))  # behind type and buffer
        while len(ne) > 1 and ne[-1] == 1:
            ne.pop()
        shapes[library.ggml_get_name(tensor).decode()] = tuple(ne)

    convolutions = [f"{name}.weight" for il in range(8) for name in (
        f"posnet.{il}.conv1", f"posnet.{il}.conv2", f"convnext.{il}.dw")]  # fmt: skip
    typed = [TensorSpec(name, (32,), GGMLType.F16) for name in ("conv1d.weight", *convolutions, *model.more)]
    typed += model.given
    path.write_bytes(encode_header(model.metadata, typed) + bytes(data_bytes(typed)))

    class GGUFInit(ctypes.Structure):
        _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))

    library.gguf_init_from_file.restype = ctypes.c_void_p
    library.gguf_init_from_file.argtypes = [ctypes.c_char_p, GGUFInit]
    params = api.llama_model_default_params()
    params.load_mtp = True
    init = library.llama_model_init_from_user
    init.restype, init.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, type(params)]
    metadata = library.gguf_init_from_file(os.fsencode(path), GGUFInit(True, None))
    if not init(metadata, ctypes.cast(note, ctypes.c_void_p), None, params):
        raise RuntimeError(f"llama.cpp creates no model from the metadata of {model.name}")
    return shapes


def load(api: Any, path: Path) -> bool:
    """Does llama.cpp load the file?"""
    params = api.llama_model_default_params()
    params.no_alloc, params.load_mode, params.use_extra_bufts = True, 0, False
    return bool(api.llama_model_load_from_file(os.fsencode(path), params))


def _type(name: str, ne: tuple[int, ...]) -> GGMLType:
    """A mixture of types, each where llama.cpp can use it."""
    if CONVOLUTIONS.fullmatch(name):
        return GGMLType.F16
    if name.endswith("ffn_gate_tid2eid.weight"):  # numbers of experts
        return GGMLType.I32
    if len(ne) == 1 or not PRODUCTS.search(name):
        return GGMLType.F32
    return GGMLType.Q8_0 if ne[0] % 32 == 0 and "ffn_" in name else GGMLType.F16


def _file_order(item: tuple[str, tuple[int, ...]]) -> tuple[int, int, str]:
    name = item[0]
    match = re.search(r"\.(\d+)\.", name)
    if match is None:
        return (2 if name.startswith("output") else 0, 0, name)
    return (1, int(match[1]), name)


def names_asked() -> list[str]:
    """The names of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names",
        nargs="*",
        type=archs.known_name,
        metavar="NAME",
        help="small models of tests/data/archs.toml (default: all)",
    )
    names: list[str] = parser.parse_args().names
    return names


if __name__ == "__main__":
    run_program(main)
