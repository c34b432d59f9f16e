"""`ggufphys inspect MODEL --explain`: why are there so many bytes? Layer by layer, term by term."""

import argparse

from ggufphys.gguf import GGUFFile
from ggufphys.memory.predict import Predictor
from ggufphys.memory.prediction import MemoryPrediction
from ggufphys.params import Params
from ggufphys.plan.explain import layer_rows
from ggufphys.report.explain import explain_section
from ggufphys.report.inspection import Section


def explained_section(
    args: argparse.Namespace, gguf: GGUFFile, params: Params, prediction: MemoryPrediction
) -> Section:
    """The answer to --explain."""
    return explain_section(layer_rows(Predictor(gguf, force=args.force), params, prediction.context), prediction)
