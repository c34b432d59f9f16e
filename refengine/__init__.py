"""The same model in numpy: what llama.cpp computes, computed again, to check one against the other."""

from refengine.dequant import dequantize

__all__ = ["dequantize"]
