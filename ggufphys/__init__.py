"""What will a GGUF file cost on your machine, in bytes? The public API.

A file is opened (its header alone is read), a prediction asked for, and every byte of it explained:

>>> import ggufphys
>>> gguf = ggufphys.open_gguf(ggufphys.EMBEDDED_MODEL)  # or the path of yours
>>> gguf.architecture, len(gguf.tensors)
('llama', 56)
>>> prediction = ggufphys.predict_memory(gguf, ggufphys.Params(n_ctx=1024))
>>> prediction.context_bytes, prediction.basis["context"]
(3145728, 'exact')
>>> [term.formula for term in prediction.terms if term.quantity == "context"]
['6 layers x 1 streams x 1,024 cells x (K 128 f16 = 256 B + V 128 f16 = 256 B)']

`Params` has llama.cpp's names and defaults. Errors: `GGUFError` for what a file is or lacks, `UnsupportedError` for
what has no answer here, `ValueError` for what llama.cpp would refuse. `predict_costs`: what is computed and moved;
`predict_speed`: how long that takes on a `Machine` (`read_machine` of what `bench calibrate -o FILE` wrote).
"""

import sys as _sys

if _sys.version_info < (3, 11):  # noqa: UP036  # in words that older ones read
    _said = "ggufphys needs Python 3.11 or newer, and this is %d.%d.%d" % _sys.version_info[:3]  # noqa: UP031
    if _sys.argv[:1] == ["-m"]:  # `python -m ggufphys` from a checkout, which pip would have refused to install
        _sys.stderr.write("ggufphys: error: %s\n" % _said)  # noqa: UP031
        _sys.exit(2)
    raise ImportError(_said)

TYPE_CHECKING = False  # what type checkers take for true; `typing` is most of a millisecond in which Ctrl-C is unheard
if TYPE_CHECKING:
    from ggufphys.embedded import MODEL as EMBEDDED_MODEL
    from ggufphys.errors import GGUFError, GGUFPhysError, MissingExtraError, TruncatedError, UnsupportedError
    from ggufphys.gguf import GGMLType, GGUFFile, TensorInfo, open_gguf
    from ggufphys.limits import DeviceLimits
    from ggufphys.loads import Refusal, RefusedError, check_loads
    from ggufphys.memory.phases import ProcessMemory, ProcessPhase
    from ggufphys.memory.predict import predict_memory
    from ggufphys.memory.prediction import DeviceMemory, MemoryPrediction
    from ggufphys.memory.terms import Term
    from ggufphys.params import Device, Params
    from ggufphys.speed.costs import CostPrediction, predict_costs
    from ggufphys.speed.predict import SpeedPrediction, predict_speed
    from ggufphys.speed.rates import Machine, read_machine
del TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "EMBEDDED_MODEL",
    "CostPrediction",
    "Device",
    "DeviceLimits",
    "DeviceMemory",
    "GGMLType",
    "GGUFError",
    "GGUFFile",
    "GGUFPhysError",
    "Machine",
    "MemoryPrediction",
    "MissingExtraError",
    "Params",
    "ProcessMemory",
    "ProcessPhase",
    "Refusal",
    "RefusedError",
    "SpeedPrediction",
    "TensorInfo",
    "Term",
    "TruncatedError",
    "UnsupportedError",
    "__version__",
    "check_loads",
    "open_gguf",
    "predict_costs",
    "predict_memory",
    "predict_speed",
    "read_machine",
]

# Where they are. Each is imported when somebody asks for it: `ggufphys inspect` starts through this package, too.
_HOMES = {
    "CostPrediction": "speed.costs",
    "Device": "params",
    "DeviceLimits": "limits",
    "DeviceMemory": "memory.prediction",
    "GGMLType": "gguf",
    "GGUFError": "errors",
    "GGUFFile": "gguf",
    "GGUFPhysError": "errors",
    "Machine": "speed.rates",
    "MemoryPrediction": "memory.prediction",
    "MissingExtraError": "errors",
    "Params": "params",
    "ProcessMemory": "memory.phases",
    "ProcessPhase": "memory.phases",
    "Refusal": "loads",
    "RefusedError": "loads",
    "TensorInfo": "gguf",
    "Term": "memory.terms",
    "TruncatedError": "errors",
    "UnsupportedError": "errors",
    "check_loads": "loads",
    "open_gguf": "gguf",
    "predict_costs": "speed.costs",
    "predict_memory": "memory.predict",
    "SpeedPrediction": "speed.predict",
    "predict_speed": "speed.predict",
    "read_machine": "speed.rates",
}


def __getattr__(name: str) -> object:
    if name == "EMBEDDED_MODEL":
        from ggufphys.embedded import MODEL

        return MODEL
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # when somebody asks

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
