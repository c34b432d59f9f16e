"""How large is it? Quantities of memory and files, by rules, on headers of published shapes."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.hypotheses.files import Setup, params_of, shape_of
from bench.hypotheses.finding import Finding
from ggufphys import GGUFFile, MemoryPrediction, predict_memory
from ggufphys.context import cache_type
from ggufphys.gguf.ggml_types import SIZES

GB: Final = 1e9


def _memory(setup: Setup, pick: Callable[[MemoryPrediction, GGUFFile], float]) -> Finding:
    with shape_of(setup) as gguf:
        found = predict_memory(gguf, params_of(setup))
        h = gguf.get_int(f"{gguf.architecture}.attention.head_count", 0)
        h_kv = gguf.get_int(f"{gguf.architecture}.attention.head_count_kv", h)
        value = pick(found, gguf)
        file_bytes = gguf.file_bytes
    grouped = f" ({h_kv} of {h} heads are kept: grouped queries)" if h_kv < h else ""
    return Finding(
        value=value,
        explanation=f"File {file_bytes / GB:.2f} GB; weights {found.model_bytes / GB:.2f}, cache "
        f"{found.context_bytes / GB:.2f}{grouped}, compute {found.compute_bytes / GB:.2f}, process "
        f"{found.process_bytes / GB:.2f} GB at {setup.get('ctx', 4096):,} tokens.",
    )


def total_gb(setup: Setup, model: Path | None) -> Finding:
    """GB of llama.cpp's buffers."""
    return _memory(setup, lambda found, _: found.total_bytes / GB)


def process_gb(setup: Setup, model: Path | None) -> Finding:
    """GB that the process has resident."""
    return _memory(setup, lambda found, _: found.process_bytes / GB)


def over_file(setup: Setup, model: Path | None) -> Finding:
    """The buffers, times the file."""
    return _memory(setup, lambda found, gguf: found.total_bytes / gguf.file_bytes)


def over_file_gb(setup: Setup, model: Path | None) -> Finding:
    """GB that the buffers take more than the file."""
    return _memory(setup, lambda found, gguf: (found.total_bytes - gguf.file_bytes) / GB)


def cache_gb(setup: Setup, model: Path | None) -> Finding:
    """GB of K and V."""
    return _memory(setup, lambda found, _: found.context_bytes / GB)


def cache_ratio(setup: Setup, model: Path | None) -> Finding:
    """K and V, times those in f16."""
    with shape_of(setup) as gguf:
        plain = predict_memory(gguf, params_of({**setup, "type_k": "f16", "type_v": "f16"})).context_bytes
        found = predict_memory(gguf, params_of(setup)).context_bytes
    types = dict.fromkeys(cache_type(setup.get(key, "f16")) for key in ("type_k", "type_v"))
    blocks = ", ".join(
        f"{size.block_size} numbers of {kind.name} take {size.type_size} bytes, their scale among them"
        for kind in types
        if (size := SIZES[kind]).block_size > 1
    )
    return Finding(
        value=found / plain,
        explanation=f"{found / GB:.3f} GB for {plain / GB:.3f} as f16{f': {blocks}' if blocks else ''}.",
    )


def file_gb(setup: Setup, model: Path | None) -> Finding:
    """GB of the file."""
    with shape_of(setup) as gguf:
        return Finding(
            value=gguf.file_bytes / GB,
            explanation=f"{gguf.bpw:.2f} bits a weight over {gguf.n_params / 1e9:.2f} billion: {_mix(gguf)}.",
        )


def file_ratio(setup: Setup, model: Path | None) -> Finding:
    """The file, times the same model's in F16."""
    with shape_of(setup) as gguf, shape_of(setup, "F16") as plain:
        return Finding(
            value=gguf.file_bytes / plain.file_bytes,
            explanation=f"{gguf.bpw:.2f} bits a weight for {plain.bpw:.2f}: {gguf.file_bytes / GB:.2f} GB for "
            f"{plain.file_bytes / GB:.2f}.",
        )


def _mix(gguf: GGUFFile) -> str:
    """Which types the matrices are of, and how many of their weights each has."""
    weights = Counter[str]()
    for tensor in gguf.tensors:
        if len(tensor.ne) > 1:
            weights[tensor.type_name] += tensor.n_elements
    if len(weights) == 1:
        return f"all matrices are {next(iter(weights))}"
    shares = (f"{n / weights.total():.0%} {name}" for name, n in weights.most_common())
    return f"the type names a mix, {', '.join(shares)}"
