"""Are compute buffers of devices what llama.cpp makes of them? Two RPC workers on loopback, full and partial offload.

llama.cpp reckons without allocating (no_alloc), so that models of any size can be compared; the smallest shapes are
really allocated too. Run by `python -m bench.estimate --devices`.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bench.running.rpc_worker import workers
from ggufphys import Device, GGUFFile, Params, open_gguf, predict_memory
from ggufphys.logs.lines import MIB, RESOLUTION_BYTES, logged_buffers
from ggufphys.params import HOST, rpc_device
from ggufphys.synth.catalogue import Shape
from ggufphys.synth.plan import plan_file
from server.engine.llama.library import create_context, load_model
from server.engine.llama.log import LOG

N_LAYER: Final = 7
N_VOCAB: Final = 8000  # reading a real vocabulary for every way of loading would take most of the time
REALLY_BYTES: Final = 1 << 28  # weights that are sent to the workers
EXPERTS: Final = r"ffn_.*_exps"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceErrors:
    """Relative errors of one shape: of each device that computes anything, in each configuration."""

    shape: str
    architecture: str
    basis: str
    allocated: bool
    n_exact: int  # configurations in which every device was
    n_runs: int
    errors: tuple[float, ...]


def device_grid(devices: tuple[Device, ...]) -> tuple[Params, ...]:
    """Ways to use one or two devices."""
    base = Params(n_ctx=4096, use_extra_bufts=False, use_mmap=False)
    one, two = replace(base, devices=devices[:1]), replace(base, devices=devices)
    return (
        one,
        two,
        replace(one, n_gpu_layers=4),
        replace(two, n_gpu_layers=5, tensor_split=(3.0, 1.0)),
        replace(two, n_ctx=16384, n_seq_max=4, n_outputs_max=4),
        replace(one, offload_kqv=False),
        replace(two, offload_kqv=False, flash_attn="off", n_gpu_layers=4),
        replace(two, flash_attn="off", n_ubatch=128),
        replace(two, n_cpu_moe=3),
        replace(one, override_tensor=((EXPERTS, "CPU"), (r"blk\.[12]\.ffn", "CPU"))),
    )


def all_errors(shapes: Sequence[Shape], folder: Path) -> Iterator[DeviceErrors]:
    """Compare each shape over the grid."""
    with workers(2) as endpoints:
        grid = device_grid(tuple(rpc_device(endpoint, 1 << 30) for endpoint in endpoints))
        for shape in shapes:
            plan = plan_file(replace(shape.cut(min(N_LAYER, shape.n_layer)), n_vocab=N_VOCAB), "Q4_K_M")
            path = folder / f"{shape.name}.gguf"
            path.write_bytes(plan.header)
            os.truncate(path, plan.file_bytes)
            for allocated in (False, True) if plan.file_bytes <= REALLY_BYTES else (False,):
                yield _errors(shape, path, [replace(p, no_alloc=not allocated) for p in grid], allocated=allocated)
            path.unlink()


def _errors(shape: Shape, path: Path, grid: Sequence[Params], *, allocated: bool) -> DeviceErrors:
    errors, basis, n_exact = list[float](), "", 0
    with open_gguf(path) as gguf:
        for params in grid:
            prediction = predict_memory(gguf, params)
            basis = prediction.basis["compute"]
            measured = _measured(gguf, params)
            off = [_error(device.compute_bytes, *measured.get(device.name, (0, 0))) for device in prediction.devices]
            errors += [error for error in off if error is not None]
            n_exact += not any(off)
    return DeviceErrors(
        shape=shape.name, architecture=shape.architecture, basis=basis, allocated=allocated,
        n_exact=n_exact, n_runs=len(grid), errors=tuple(errors),
    )  # fmt: skip


def _measured(gguf: GGUFFile, params: Params) -> dict[str, tuple[int, int]]:
    """Compute bytes of each device by llama.cpp's log, and how far rounding may be off."""
    with load_model(gguf.path, params) as model:
        mark = LOG.mark
        create_context(model, params).close()
    sizes: dict[str, tuple[int, int]] = {}
    names = [device.name for device in params.devices]
    for line in logged_buffers(line.text for line in LOG.since(mark)):
        if line.quantity == "compute":
            name = line.buffer if line.buffer in names else HOST
            nbytes, resolution = sizes.get(name, (0, 0))
            sizes[name] = nbytes + round(line.mib * MIB), resolution + round(RESOLUTION_BYTES)
    return sizes


def _error(predicted: int, measured: int, resolution: int) -> float | None:
    """How far off, 0 within rounding; None where neither says anything."""
    if not measured:
        return None if predicted == 0 else 1.0
    difference = predicted - measured
    return 0.0 if abs(difference) <= resolution else difference / measured
