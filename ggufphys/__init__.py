"""What a GGUF file will cost on your machine in bytes and seconds: the public API.

>>> import ggufphys
>>> gguf = ggufphys.open_gguf(ggufphys.EMBEDDED_MODEL)
>>> gguf.architecture
'llama'
"""

from ggufphys.errors import GGUFError, GGUFPhysError, MissingExtraError, TruncatedError, UnsupportedError
from ggufphys.gguf import GGMLType, GGUFFile, TensorInfo, open_gguf
from ggufphys.loads import Refusal, check_loads
from ggufphys.memory.phases import ProcessMemory, ProcessPhase
from ggufphys.memory.predict import DeviceMemory, MemoryPrediction, predict_memory
from ggufphys.memory.terms import Term
from ggufphys.params import Device, Params
from ggufphys.speed.costs import CostPrediction, predict_costs

__version__ = "0.1.0"

__all__ = [
    "CostPrediction",
    "Device",
    "DeviceMemory",
    "GGMLType",
    "GGUFError",
    "GGUFFile",
    "GGUFPhysError",
    "MemoryPrediction",
    "MissingExtraError",
    "Params",
    "ProcessMemory",
    "ProcessPhase",
    "Refusal",
    "TensorInfo",
    "Term",
    "TruncatedError",
    "UnsupportedError",
    "__version__",
    "check_loads",
    "open_gguf",
    "predict_costs",
    "predict_memory",
]
