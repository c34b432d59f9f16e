"""Would llama.cpp load this file and make a context of it? If not, why: every reason, not only the first."""

from ggufphys.loads.check import check_loads
from ggufphys.loads.refusal import Refusal, RefusedError

__all__ = ["Refusal", "RefusedError", "check_loads"]
