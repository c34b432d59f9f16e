"""What a GGUF file will cost on your machine in bytes and seconds: the public API.

>>> import ggufphys
>>> gguf = ggufphys.open_gguf("model.gguf")                                           # doctest: +SKIP
"""

from ggufphys.errors import GGUFError, GGUFPhysError, MissingExtraError, TruncatedError, UnsupportedError
from ggufphys.gguf import GGMLType, GGUFFile, TensorInfo, open_gguf

__version__ = "0.1.0"

__all__ = [
    "GGMLType",
    "GGUFError",
    "GGUFFile",
    "GGUFPhysError",
    "MissingExtraError",
    "TensorInfo",
    "TruncatedError",
    "UnsupportedError",
    "__version__",
    "open_gguf",
]
