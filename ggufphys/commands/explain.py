"""`ggufphys inspect MODEL --explain`: why are there so many bytes? Layer by layer, term by term."""

import argparse

from ggufphys.gguf import GGUFFile
from ggufphys.memory.predict import MemoryPrediction, Predictor
from ggufphys.params import Params
from ggufphys.report.inspection import Section


def explained_sections(
    args: argparse.Namespace, gguf: GGUFFile, params: Params, prediction: MemoryPrediction
) -> tuple[Section, ...]:
    """The answer to --explain; none when it was not asked."""
    if not args.explain:
        return ()
    from ggufphys.plan.explain import layer_rows  # what other questions do not need
    from ggufphys.report.explain import explain_section

    return (explain_section(layer_rows(Predictor(gguf, force=args.force), params, prediction.context), prediction),)
