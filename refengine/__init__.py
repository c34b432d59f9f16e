"""The same model in numpy: what llama.cpp computes, computed again, to check one against the other."""

from refengine.dequant.table import dequantize
from refengine.footprint import predict_footprint
from refengine.model import Model, load
from refengine.quant.activations import quantize_activations, round_activations
from refengine.quant.table import quantize
from refengine.sample import Sampling

__all__ = [
    "Model",
    "Sampling",
    "dequantize",
    "load",
    "predict_footprint",
    "quantize",
    "quantize_activations",
    "round_activations",
]
