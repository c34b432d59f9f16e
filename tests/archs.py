"""A small model of every architecture, as data: hyperparameters, tensors, and what llama.cpp accounts for it.

`data/archs.toml` holds hyperparameters, written by hand. `data/archs.json` holds what `scripts/record_oracle.py` has
learned from llama.cpp about them: the tensors it wants, and its memory breakdown for each of `GRID`.
"""

import argparse
import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from ggufphys.gguf import GGMLType
from ggufphys.gguf.values import ValueType
from ggufphys.gguf.writer import TensorSpec, Typed, WriteValue, data_bytes, encode_header
from ggufphys.params import HOST, Device, Params, rpc_device

DATA = Path(__file__).with_name("data")
HYPERPARAMETERS = DATA / "archs.toml"
RECORDS = DATA / "archs.json"

GLOBAL_KEYS = ("tokenizer.", "xielu.")  # without the architecture in front
UINT64_KEYS = ("ple.layer_multipliers", "ple.head_offsets", "ple.head_vocab_sizes")

_BASE = Params(n_ctx=4096, use_extra_bufts=False, use_mmap=False, no_alloc=True)  # what the oracle simulates


def _grid() -> Iterator[Params]:
    for changes in (
        {},
        {"n_ctx": 1000, "n_ubatch": 64},
        {"n_ctx": 300, "n_batch": 100},
        {"n_ctx": 8192, "n_seq_max": 4},
        {"n_ctx": 5000, "n_seq_max": 2},
        {"n_ctx": 1000, "n_seq_max": 3, "n_ubatch": 1024},
        {"n_seq_max": 4, "kv_unified": True},
        {"n_ctx": 6000, "n_seq_max": 2, "kv_unified": True, "swa_full": True},
        {"n_ctx": 5000, "n_seq_max": 4, "kv_unified": True, "flash_attn": "off", "n_ubatch": 1024},
        {"n_ctx": 2048, "type_k": "q8_0", "type_v": "q8_0", "flash_attn": "on"},
        {"n_ctx": 2048, "type_k": "q4_0", "type_v": "q4_0"},
        {"n_ctx": 32768, "type_k": "q4_0", "n_ubatch": 256},
        {"n_ctx": 2048, "flash_attn": "off", "n_ubatch": 128},
        {"n_ctx": 3000, "flash_attn": "off", "n_seq_max": 2},
        {"n_ctx": 2048, "flash_attn": "off", "type_k": "q8_0"},
        {"n_ctx": 8192, "n_seq_max": 2, "swa_full": True},
        {"n_ctx": 16384, "n_ubatch": 2048},
        {"n_outputs_max": 1},
        {"n_ctx": 2048, "type_k": "bf16", "type_v": "f32"},
        {"n_ctx": 2048, "type_k": "q5_1", "type_v": "iq4_nl"},
        {"n_ctx": 1500, "n_seq_max": 2, "type_k": "q8_0", "type_v": "q8_0"},
        {"n_ctx": 2048, "n_seq_max": 2, "n_rs_seq": 3},
        {"n_ctx": 2048, "load_mtp": True, "ctx_type": "mtp"},
        {"n_ctx": 2048, "load_mtp": True, "ctx_type": "mtp", "n_seq_max": 2, "flash_attn": "off"},
    ):
        yield Params.from_json({**asdict(_BASE), **changes})


GRID = tuple(_grid())
N_MTP = sum(p.load_mtp for p in GRID)  # the last ones

# One and two devices, for what lies where. Prediction cares for their names alone, so the recorder gives its own.
DEVICES = (rpc_device("first:1", 1 << 30), rpc_device("second:1", 1 << 30))
DEVICE_GRID = (
    replace(_BASE, devices=DEVICES[:1], n_gpu_layers=2),
    replace(_BASE, devices=DEVICES, tensor_split=(2.0, 1.0)),
    replace(_BASE, devices=DEVICES, n_gpu_layers=3, offload_kqv=False, flash_attn="off"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchModel:
    """A small model: `name` is the architecture's, with a variant behind a slash.

    It has `less` tensors than its metadata make llama.cpp ask for, or `more`; `given` are those whose shape and type
    nothing else tells.
    """

    name: str
    arch: str
    metadata: Mapping[str, WriteValue]
    less: tuple[str, ...]
    more: tuple[str, ...]
    given: tuple[TensorSpec, ...]
    required: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What llama.cpp said of a model: its tensors, and for each of `GRID` the bytes, or why there are none.

    A row holds (model, context, compute) bytes, one of `device_rows` (model, context) bytes of the host and of each
    device; "refused" or "aborts" stand for a configuration that gives no context.
    """

    tensors: tuple[TensorSpec, ...]
    rows: tuple[tuple[int, int, int] | str, ...]
    device_rows: tuple[tuple[tuple[int, int], ...] | str, ...]


@cache
def models() -> Mapping[str, ArchModel]:
    """All models by name."""
    data = tomllib.loads(HYPERPARAMETERS.read_text())
    entries: dict[str, dict[str, Any]] = {name: {} for name in data["dense"]}
    for name in data["moe"]:
        entries[f"{name}/moe" if name in entries else name] = {"use": ["moe"]}
    for name, entry in data["models"].items():
        assert name not in entries, name
        entries[name] = entry
    return {name: model_of(name, entry, data) for name, entry in entries.items()}


def known_name(text: str) -> str:
    """A small model's name, as an argument of a script.

    Raises:
        argparse.ArgumentTypeError: there is none of that name.
    """
    if text not in models():
        raise argparse.ArgumentTypeError(f"no small model is named {text!r}: tests/data/archs.toml has their names")
    return text


def model_of(name: str, entry: Mapping[str, Any], data: Mapping[str, Any]) -> ArchModel:
    """A model from its entry; `data` has [base] and the groups that entries use."""
    own = dict(entry)
    use, less, more = own.pop("use", []), own.pop("less", []), own.pop("more", [])
    given = unpack(own.pop("given", []))
    required, without = own.pop("required", False), own.pop("without", [])
    keys = {**data["base"]}
    for group in use:
        keys.update(data["groups"][group])
    keys.update(own)
    keys = {key: value for key, value in keys.items() if key not in without}
    arch = name.partition("/")[0]
    metadata: dict[str, WriteValue] = {
        "general.architecture": arch, "general.name": name, "tokenizer.ggml.model": "no_vocab",
        "tokenizer.ggml.token_type_count": 2,
    }  # fmt: skip
    for key, value in keys.items():
        typed = Typed(value, ValueType.UINT64) if key in UINT64_KEYS else value
        metadata[key if key.startswith(GLOBAL_KEYS) else f"{arch}.{key}"] = typed
    return ArchModel(
        name=name,
        arch=arch,
        metadata=metadata,
        less=tuple(less),
        more=tuple(more),
        given=tuple(given),
        required=required,
    )


@cache
def records() -> Mapping[str, Record]:
    """What llama.cpp said of each model."""
    return {name: decode(entry) for name, entry in json.loads(RECORDS.read_text())["models"].items()}


def row(answer: Mapping[str, Any]) -> tuple[int, int, int] | str:
    """What a record keeps of an answer of the oracle."""
    return "refused" if "error" in answer else (answer["model"], answer["context"], answer["compute"])


def device_row(answer: Mapping[str, Any], devices: Sequence[Device]) -> tuple[tuple[int, int], ...] | str:
    """The same for a configuration with devices: what is in no device's buffer is the host's."""
    if "error" in answer:
        return "refused"
    sums = {name: (0, 0) for name in (HOST, *(d.name for d in devices))}
    for buffer, sizes in answer["by_buffer"].items():
        name = buffer if buffer in sums else HOST
        sums[name] = (sums[name][0] + sizes["model"], sums[name][1] + sizes["context"])
    return tuple(sums.values())


def encode(record: Record) -> dict[str, Any]:
    """The record as JSON: columns, model bytes once for each way of loading, other rows by their word."""
    found = [(i, row) for i, row in enumerate(record.rows) if not isinstance(row, str)]
    loads = len(GRID) - N_MTP
    return {
        "tensors": pack(record.tensors),
        "model": [next((row[0] for i, row in found if (i >= loads) is mtp), 0) for mtp in (False, True)],
        "context": [row if isinstance(row, str) else row[1] for row in record.rows],
        "compute": [row[2] for _, row in found],
        "devices": record.device_rows,
    }


def decode(entry: Mapping[str, Any]) -> Record:
    """The reverse."""
    compute = iter(entry["compute"])
    loads = len(GRID) - N_MTP
    return Record(
        tensors=tuple(unpack(entry["tensors"])),
        rows=tuple(
            context if isinstance(context, str) else (entry["model"][i >= loads], context, next(compute))
            for i, context in enumerate(entry["context"])
        ),
        device_rows=tuple(
            row if isinstance(row, str) else tuple((model, context) for model, context in row)
            for row in entry["devices"]
        ),
    )


def header(name: str) -> bytes:
    """The recorded model's file less its weights, which are not read to predict."""
    return encode_header(models()[name].metadata, records()[name].tensors)


def deepened(name: str, n_layer: int) -> bytes:
    """The header of the recorded model with as many layers: those between its first and its last, again and again.

    Raises:
        ValueError: its tensors are not those of as many layers as it says that it has.
    """
    model, tensors = models()[name], records()[name].tensors
    key = f"{model.arch}.block_count"
    n, layers = model.metadata.get(key), dict[int, list[TensorSpec]]()
    for tensor in tensors:
        if tensor.name.startswith("blk."):
            layers.setdefault(int(tensor.name.split(".")[1]), []).append(tensor)
    if not isinstance(n, int) or n < 2 or layers.keys() != set(range(n)):
        raise ValueError(f"{name}: {key} is {n!r}, and the tensors are of layers {sorted(layers)}")
    source = [0, *(1 + il % (n - 2) if n > 2 else 1 for il in range(n_layer - 2)), n - 1]
    metadata = {
        k: [v[il] for il in source] if isinstance(v, list) and len(v) == n and "sections" not in k else v
        for k, v in model.metadata.items()
    }
    repeated = [
        replace(t, name=f"blk.{il}.{t.name.split('.', 2)[2]}") for il, of in enumerate(source) for t in layers[of]
    ]
    return encode_header({**metadata, key: n_layer}, [t for t in tensors if not t.name.startswith("blk.")] + repeated)


def write(path: Path, name: str, tensors: Sequence[TensorSpec]) -> None:
    """The model's file at its full length, with a hole for weights."""
    start = encode_header(models()[name].metadata, tensors)
    path.write_bytes(start)
    os.truncate(path, len(start) + data_bytes(tensors))


_LAYER = re.compile(r"((?:enc\.|dec\.)?blk|convnext|posnet)\.(\d+)\.(.+)")


def pack(tensors: Iterable[TensorSpec]) -> list[str]:
    """Tensors as lines, equal ones of several layers in one: "blk.0-2.attn_q.weight f16 256 128"."""
    layers: dict[tuple[str, str, str], list[int]] = {}
    for tensor in tensors:
        shape = " ".join(map(str, (tensor.ggml_type.name.lower(), *tensor.ne)))
        match = _LAYER.fullmatch(tensor.name)
        key = (match[1], match[3], shape) if match else ("", tensor.name, shape)
        layers.setdefault(key, []).append(int(match[2]) if match else 0)
    return [
        f"{prefix}.{_ranges(numbers)}.{stem} {shape}" if prefix else f"{stem} {shape}"
        for (prefix, stem, shape), numbers in layers.items()
    ]


def unpack(lines: Iterable[str]) -> Iterator[TensorSpec]:
    """The reverse, layer by layer within a line."""
    for line in lines:
        name, type_name, *ne = line.split(" ")
        ggml_type, shape = GGMLType[type_name.upper()], tuple(map(int, ne))
        match = re.fullmatch(r"((?:enc\.|dec\.)?blk|convnext|posnet)\.([\d,-]+)\.(.+)", name)
        if match is None:
            yield TensorSpec(name, shape, ggml_type)
            continue
        for part in match[2].split(","):
            low, _, high = part.partition("-")
            for il in range(int(low), int(high or low) + 1):
                yield TensorSpec(f"{match[1]}.{il}.{match[3]}", shape, ggml_type)


def _ranges(numbers: list[int]) -> str:
    parts: list[list[int]] = []
    for n in sorted(numbers):
        if parts and n == parts[-1][1] + 1:
            parts[-1][1] = n
        else:
            parts.append([n, n])
    return ",".join(f"{a}-{b}" if b > a else str(a) for a, b in parts)
