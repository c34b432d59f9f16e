"""`inspect` of a model whose architecture has no rule: what its tensors say, and an estimate from them."""

import argparse
import sys
from collections.abc import Callable

from ggufphys.arch import no_rule
from ggufphys.arch.anatomy import anatomy_of
from ggufphys.arch.guess import guess
from ggufphys.builds.newer import known_since, may_know
from ggufphys.builds.proven import why_unknown
from ggufphys.commands.attached import predicting
from ggufphys.errors import GGUFError, UnsupportedError
from ggufphys.frozen import replace
from ggufphys.gguf import GGUFFile
from ggufphys.loads import check_loads
from ggufphys.memory.predict import Predictor, predict_weights
from ggufphys.memory.prediction import MemoryPrediction
from ggufphys.memory.terms import Term
from ggufphys.params import Params
from ggufphys.report.guess import anatomy_section
from ggufphys.report.inspection import Inspection
from ggufphys.units import shortened, shown


def run_guess(
    args: argparse.Namespace,
    known: Inspection,
    params: Params,
    error: UnsupportedError,
    show: Callable[[Inspection], str],
) -> int:
    """Print all that can be said; 0 where llama.cpp may know the architecture and an estimate could be made, else 4.

    Whether it fits is no question for an estimate of this kind: asked for it, the answer is the error.
    """
    gguf = known.gguf
    if why_unknown(gguf.architecture, params.llama_build):
        refusals = check_loads(gguf, params)
        print(show(replace(known, refusals=refusals, weights=_weights(gguf, params))))
        print(f"ggufphys: error: {gguf.location}: {error}", file=sys.stderr)
        return 4
    arch, is_new = gguf.architecture, may_know(gguf.architecture, params.llama_build)
    found = replace(known, is_unknown=is_new, refusals=() if is_new else check_loads(gguf, params))
    try:
        section = anatomy_section(anatomy_of(gguf), arch, known_since(arch))
        found = replace(found, sections=(section, *found.sections))
    except GGUFError:
        pass  # no language model, or not one that says so in the usual words
    prediction = _estimate(args, gguf, params)
    if prediction is None:
        print(show(replace(found, weights=_weights(gguf, params))))
    else:
        print(show(replace(found, params=params, prediction=prediction)))
    answers = prediction is not None and is_new and args.assert_fits is None
    why = no_rule(arch) or str(error)
    if prediction is not None:
        why += ": its figures are estimated from its tensors"
        if args.assert_fits is not None:
            why += ", by which --assert-fits does not decide"
    elif no_rule(arch):
        why += ": without an estimate, for which a size is missing"
    print(f"ggufphys: {'warning' if answers else 'error'}: {shown(shortened(why))}", file=sys.stderr)
    return 0 if answers else 4


def _estimate(args: argparse.Namespace, gguf: GGUFFile, params: Params) -> MemoryPrediction | None:
    try:
        guessed = guess(gguf)
        with predicting(args, Predictor(gguf, guessed=(guessed.row, guessed.h))) as predict:
            return predict(params)
    except (GGUFError, UnsupportedError):
        return None  # a key is missing, or a type of tensor is not known


def _weights(gguf: GGUFFile, params: Params) -> tuple[Term, ...]:
    """What can be said of a model that has no prediction; nothing where even a tensor's type is unknown."""
    try:
        return predict_weights(gguf, params)
    except UnsupportedError:
        return ()
