"""The same model in numpy: what llama.cpp computes, computed again, to check one against the other."""

from refengine.activations import quantize_activations, round_activations
from refengine.dequant import dequantize
from refengine.quant import quantize

__all__ = ["dequantize", "quantize", "quantize_activations", "round_activations"]
