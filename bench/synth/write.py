"""Plan to disk: how is a file of many GB written in seconds, and never left half written?

Weights come from a pool of random blocks of each type, repeated from a random start in each tensor. A pool has a prime
number of blocks, so that it never lines up with a tensor's rows and no row occurs twice. That leaves the disk, or the
page cache, to set the pace.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from bench.synth.blocks import OCTAVES, Blocks, random_blocks
from bench.synth.sparse import write_all
from bench.synth.values import special_values
from ggufphys.errors import OutputError
from ggufphys.gguf.ggml_types import SIZES, GGMLType
from ggufphys.gguf.reader import padded
from ggufphys.gguf.writer import TensorSpec
from ggufphys.machine.output import whole_file
from ggufphys.synth.plan import SynthPlan
from ggufphys.units import format_bytes

POOL_BYTES: Final = 8 << 20

Progress = Callable[[int], object]


def write_file(plan: SynthPlan, path: Path, *, seed: int, progress: Progress = lambda nbytes: None) -> None:
    """Write the file whole, with random weights; the same seed gives the same bytes.

    `progress` is called with the number of bytes written since its last call.

    Raises:
        OutputError: the file cannot be written; whether the disk has room is asked first.
        ValueError: a folder, or in one that is not there.
    """
    pools = _pools(plan, seed)

    def chunks() -> Iterator[memoryview]:
        yield memoryview(plan.header)
        for index, tensor in enumerate(plan.tensors):
            rng = np.random.default_rng((seed, 1, index))
            yield from _tensor_chunks(plan, tensor, pools, rng)
            yield memoryview(bytes(padded(tensor.nbytes) - tensor.nbytes))

    with whole_file(path) as partial:
        free_bytes = shutil.disk_usage(path.absolute().parent).free
        if free_bytes < plan.file_bytes:
            raise OutputError(
                f"no room: {path} would take {format_bytes(plan.file_bytes)}, its disk has {format_bytes(free_bytes)} "
                "free (--sparse takes next to none); no part of it is left"
            )
        with partial.open("wb", buffering=0) as file:
            for chunk in chunks():
                progress(write_all(file.fileno(), chunk))


def _tensor_chunks(
    plan: SynthPlan, tensor: TensorSpec, pools: Mapping[GGMLType, Blocks], rng: np.random.Generator
) -> Iterator[memoryview]:
    if tensor.ggml_type is GGMLType.F32:
        values = special_values(plan.shape, tensor.name, tensor.n_elements, rng)
        if values is not None:
            yield values.view(np.uint8).data
            return
    pool = pools[tensor.ggml_type]
    start = int(rng.integers(len(pool))) * SIZES[tensor.ggml_type].type_size
    raw = pool.reshape(-1).data
    left = tensor.nbytes
    while left > 0:
        chunk = raw[start : start + left]
        yield chunk
        left -= len(chunk)
        start = 0


def _pools(plan: SynthPlan, seed: int) -> Mapping[GGMLType, Blocks]:
    types = sorted({t.ggml_type for t in plan.tensors})
    return {t: random_blocks(t, pool_blocks(t), np.random.default_rng((seed, 0, t)), octaves=OCTAVES) for t in types}


def pool_blocks(ggml_type: GGMLType) -> int:
    """The largest prime number of blocks that fits the pool."""
    n = POOL_BYTES // SIZES[ggml_type].type_size
    while any(n % divisor == 0 for divisor in range(2, int(n**0.5) + 1)):
        n -= 1
    return n
