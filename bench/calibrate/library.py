"""How is one of ggml's graphs made and run from here? The functions that libggml exports, by ctypes.

Source: llama.cpp 0c1e570 ggml/include/ggml.h, ggml-backend.h, ggml-alloc.h, ggml-cpu.h.
"""

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from bench.synth.blocks import OCTAVES, SIGMA, random_blocks
from ggufphys.gguf import GGMLType
from ggufphys.gguf.ggml_types import SIZES
from server.engine.llama.library import load_library

_P, _I, _L, _F, _Z = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_float, ctypes.c_size_t
_TENSORS: Final = {  # all return a tensor; the arguments behind the context
    "ggml_new_tensor_4d": (_I, _L, _L, _L, _L),
    "ggml_mul_mat": (_P, _P),
    "ggml_add": (_P, _P),
    "ggml_mul": (_P, _P),
    "ggml_rms_norm": (_P, _F),
    "ggml_norm": (_P, _F),
    "ggml_scale": (_P, _F),
    "ggml_silu": (_P,),
    "ggml_gelu": (_P,),
    "ggml_gelu_erf": (_P,),
    "ggml_tanh": (_P,),
    "ggml_sigmoid": (_P,),
    "ggml_softplus": (_P,),
    "ggml_exp": (_P,),
    "ggml_cont": (_P,),
    "ggml_cpy": (_P, _P),
    "ggml_concat": (_P, _P, _I),
    "ggml_get_rows": (_P, _P),
    "ggml_set_rows": (_P, _P, _P),
    "ggml_swiglu_split": (_P, _P),
    "ggml_geglu_split": (_P, _P),
    "ggml_swiglu_oai": (_P, _P, _F, _F),
    "ggml_soft_max_ext": (_P, _P, _F, _F),
    "ggml_permute": (_P, _I, _I, _I, _I),
    "ggml_rope_ext": (_P, _P, _P, _I, _I, _I, _F, _F, _F, _F, _F, _F),
    "ggml_flash_attn_ext": (_P, _P, _P, _P, _F, _F, _F),
    "ggml_ssm_conv": (_P, _P),
    "ggml_ssm_scan": (_P, _P, _P, _P, _P, _P, _P),
    "ggml_gated_delta_net": (_P, _P, _P, _P, _P, _P, _L),
    "ggml_gated_linear_attn": (_P, _P, _P, _P, _P, _F),
    "ggml_rwkv_wkv6": (_P, _P, _P, _P, _P, _P),
    "ggml_rwkv_wkv7": (_P, _P, _P, _P, _P, _P, _P),
    "ggml_l2_norm": (_P, _F),
    "ggml_argsort": (_P, _I),
    "ggml_sum_rows": (_P,),
}
_OTHERS: Final[dict[str, tuple[Any, tuple[Any, ...]]]] = {
    "ggml_free": (None, (_P,)),
    "ggml_new_graph_custom": (_P, (_P, _Z, ctypes.c_bool)),
    "ggml_build_forward_expand": (None, (_P, _P)),
    "ggml_backend_alloc_ctx_tensors_from_buft": (_P, (_P, _P)),
    "ggml_backend_tensor_set": (None, (_P, _P, _Z, _Z)),
    "ggml_backend_buffer_free": (None, (_P,)),
    "ggml_backend_cpu_buffer_from_ptr": (_P, (_P, _Z)),
    "ggml_backend_tensor_alloc": (_I, (_P, _P, _P)),
    "ggml_get_data": (_P, (_P,)),
    "ggml_backend_buffer_clear": (None, (_P, ctypes.c_uint8)),
    "ggml_backend_buffer_set_usage": (None, (_P, _I)),
    "ggml_backend_graph_compute": (_I, (_P, _P)),
    "ggml_backend_reg_get_proc_address": (_P, (_P, ctypes.c_char_p)),
    "ggml_nbytes": (_Z, (_P,)),
    "ggml_tensor_overhead": (_Z, ()),
    "ggml_graph_overhead_custom": (_Z, (_Z, ctypes.c_bool)),
}
N_WEIGHTS: Final = 1 << 20  # of each type that are different
_USAGE_WEIGHTS: Final = 1  # GGML_BACKEND_BUFFER_USAGE_WEIGHTS
_MAX_NODES: Final = 4096


class _InitParams(ctypes.Structure):
    _fields_ = (("mem_size", _Z), ("mem_buffer", _P), ("no_alloc", ctypes.c_bool))


@functools.cache
def library() -> Any:
    """libggml-base with the types of its functions declared, and `cpu`, libggml-cpu."""
    api = load_library()
    folder = Path(str(api.__file__)).parent / "lib"
    base: Any = ctypes.CDLL(str(_library_file(folder, "ggml-base")))
    for name, arguments in _TENSORS.items():
        function = getattr(base, name)
        function.restype, function.argtypes = _P, (_P, *arguments)
    for name, (result, arguments) in _OTHERS.items():
        function = getattr(base, name)
        function.restype, function.argtypes = result, arguments
    base.ggml_init.restype, base.ggml_init.argtypes = _P, (_InitParams,)
    cpu: Any = ctypes.CDLL(str(_library_file(folder, "ggml-cpu")))
    cpu.ggml_backend_cpu_init.restype = _P
    cpu.ggml_backend_cpu_reg.restype = _P
    cpu.ggml_backend_cpu_set_n_threads.argtypes = (_P, _I)
    base.ggml_backend_cpu_buffer_type.restype = _P
    base.cpu = cpu
    base.backend = cpu.ggml_backend_cpu_init()
    return base


def _library_file(folder: Path, stem: str) -> Path:
    for name in (f"lib{stem}.so", f"lib{stem}.dylib", f"{stem}.dll"):
        if (folder / name).exists():
            return folder / name
    raise OSError(f"{folder}: llama-cpp-python has no {stem} library here; expected lib{stem}.so")


@functools.cache
def repack_buffer_type() -> int:
    """The CPU's buffer type for repacked weights; 0 where this build has none."""
    base = library()
    address = base.ggml_backend_reg_get_proc_address(
        base.cpu.ggml_backend_cpu_reg(), b"ggml_backend_dev_get_extra_bufts"
    )
    if not address:
        return 0
    name = base.ggml_backend_buft_name
    name.restype, name.argtypes = ctypes.c_char_p, (_P,)
    device = base.ggml_backend_reg_dev_get
    device.restype, device.argtypes = _P, (_P, _Z)
    extra = ctypes.CFUNCTYPE(ctypes.POINTER(_P), _P)(address)(device(base.cpu.ggml_backend_cpu_reg(), 0))
    i = 0
    while extra and extra[i]:
        if name(extra[i]) == b"CPU_REPACK":
            return int(extra[i] or 0)
        i += 1
    return 0


class Tensors:
    """Tensors of one context, given memory by `allocate`. Close it, or use it in a `with`."""

    def __init__(self) -> None:
        self.base = library()
        size = _MAX_NODES * 2 * self.base.ggml_tensor_overhead() + self.base.ggml_graph_overhead_custom(
            _MAX_NODES, False
        )
        self.context = self.base.ggml_init(_InitParams(size, None, True))
        self.buffer = 0

    def new(self, ggml_type: GGMLType, *ne: int) -> int:
        """A tensor of that shape."""
        return int(self.base.ggml_new_tensor_4d(self.context, int(ggml_type), *ne, *(1,) * (4 - len(ne))))

    def call(self, name: str, *arguments: Any) -> int:
        """A node."""
        return int(getattr(self.base, f"ggml_{name}")(self.context, *arguments))

    def allocate(self, *, repacked: bool = False) -> None:
        """Memory for all tensors, zeroed."""
        kind = repack_buffer_type() if repacked else self.base.ggml_backend_cpu_buffer_type()
        self.buffer = self.base.ggml_backend_alloc_ctx_tensors_from_buft(self.context, kind)
        if not self.buffer:
            raise MemoryError("ggml could not allocate the tensors of a measurement")
        if repacked:
            self.base.ggml_backend_buffer_set_usage(self.buffer, _USAGE_WEIGHTS)
        else:
            self.base.ggml_backend_buffer_clear(self.buffer, 0)

    def lie_in(self, memory: npt.NDArray[np.uint8], tensors: Sequence[int]) -> None:
        """Tensors one behind the other in memory that is somebody else's, and stays there as long as these."""
        address = memory.ctypes.data
        self.buffer = self.base.ggml_backend_cpu_buffer_from_ptr(address, memory.nbytes)
        for tensor in tensors:
            self.base.ggml_backend_tensor_alloc(self.buffer, tensor, address)
            address += int(self.base.ggml_nbytes(tensor))

    def put(self, tensor: int, *, at: int, of: "Tensors", behind: int = 0, shift: int = 0) -> None:
        """Give a tensor the memory of one of another context, behind as many of its own size and so many bytes."""
        data = self.base.ggml_get_data(at) + behind * self.base.ggml_nbytes(tensor) + shift
        self.base.ggml_backend_tensor_alloc(of.buffer, tensor, data)

    def set(self, tensor: int, data: npt.NDArray[Any]) -> None:
        """Fill a tensor, with the data as often as they go into it."""
        n_bytes = int(self.base.ggml_nbytes(tensor))
        raw = data.view(np.uint8).reshape(-1)
        raw = raw if raw.size == n_bytes else np.resize(raw, n_bytes)
        self.base.ggml_backend_tensor_set(tensor, raw.ctypes.data_as(_P), 0, n_bytes)

    def graph(self, nodes: Sequence[int]) -> int:
        """The graph of these nodes."""
        graph = self.base.ggml_new_graph_custom(self.context, min(_MAX_NODES, 64 + 4 * len(nodes)), False)
        for node in nodes:
            self.base.ggml_build_forward_expand(graph, node)
        return int(graph)

    def compute(self, graph: int, n_threads: int) -> None:
        """Run it."""
        self.base.cpu.ggml_backend_cpu_set_n_threads(self.base.backend, n_threads)
        if self.base.ggml_backend_graph_compute(self.base.backend, graph):
            raise RuntimeError("ggml could not run a measurement's graph")

    def close(self) -> None:
        """Free it all."""
        if self.buffer:
            self.base.ggml_backend_buffer_free(self.buffer)
        self.base.ggml_free(self.context)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@functools.cache
def weights(ggml_type: GGMLType) -> npt.NDArray[np.uint8]:
    """Valid blocks of random bits, with as many different scales as a model's tensor has."""
    n_blocks = N_WEIGHTS // SIZES[ggml_type].block_size
    return random_blocks(ggml_type, n_blocks, np.random.default_rng(1), SIGMA, octaves=OCTAVES).reshape(-1)
