"""`ggufphys fit FOLDER --memory 16GiB`: what of these models runs there, and how?"""

import argparse
from collections.abc import Collection, Sequence

from ggufphys.builds.proven import require_known
from ggufphys.commands.attached import attaches_files
from ggufphys.commands.fit_speed import Paces
from ggufphys.commands.folder import tell_skipped
from ggufphys.commands.opening import opened
from ggufphys.errors import GGUFError, GGUFPhysError
from ggufphys.frozen import dataclass
from ggufphys.gguf import GGUFFile
from ggufphys.graph.devices.runs import require_model
from ggufphys.memory.predict import Predictor
from ggufphys.params import Params
from ggufphys.plan.fit import Budget, Fitter
from ggufphys.plan.fit_flags import run_flags
from ggufphys.plan.folder import find_models, short_reason
from ggufphys.report.fit_folder import FitRow, fit_folder_json, fit_folder_text
from ggufphys.report.progress import Steps


@dataclass(frozen=True, slots=True)
class Fitting:
    """What is the same for all of them: how they are run, how much there is, and what is not to be chosen."""

    params: Params
    budget: Budget
    fixed: Collection[str]
    paces: Paces


def run_fit_folder(args: argparse.Namespace, asked: Fitting, notes: Sequence[str]) -> int:
    """Print a row a model: 0 when one of them fits (as fast as is wanted), 1 when none does, 3 when none is readable.

    Raises:
        GGUFError: there is no model to be found.
        ValueError: attachments, which belong to one model.
    """
    if attaches_files(args):
        raise ValueError("adapters, mmproj or a draft model stand beside one model; several are named")
    paths = find_models([args.model], on_error=tell_skipped)
    if not paths:
        raise GGUFError(f"{args.model}: no *.gguf file there")
    with Steps("fitting", total=len(paths)) as steps:
        rows = [_row(args, path, asked) for path in steps.over(paths)]
    if asked.paces.unknown:
        notes = (*notes, f"speed: {asked.paces.unknown}")
    print(fit_folder_json(rows, notes) if args.json else fit_folder_text(rows, notes, args.model))
    if all(row.architecture is None for row in rows):
        return 3
    return 0 if any(row.fits and row.enough for row in rows) else 1


def _row(args: argparse.Namespace, path: str, asked: Fitting) -> FitRow:
    try:
        with opened(path, use_cache=args.use_cache) as gguf:
            return _fitted(args, path, gguf, asked)
    except (GGUFPhysError, ValueError) as error:
        return FitRow(path=path, reason=short_reason(error, path))
    except OSError as error:
        return FitRow(path=path, reason=error.strerror or str(error))


def _fitted(args: argparse.Namespace, path: str, gguf: GGUFFile, asked: Fitting) -> FitRow:
    row = FitRow(
        path=path, architecture=gguf.architecture, name=gguf.name, file_type=gguf.file_type, file_bytes=gguf.file_bytes
    )
    try:
        require_model(gguf)
        require_known(gguf.architecture, asked.params.llama_build)
        fitter = Fitter(
            Predictor(gguf, force=args.force), asked.params, asked.budget, fixed=asked.fixed, n_ctx_min=args.ctx or 0
        )
        paced = asked.paces.choose(fitter, fitter.fit(args.prefer))
    except (GGUFPhysError, ValueError) as error:
        return row.but(reason=short_reason(error, path))
    fit = paced.fit
    chosen = fit.trial.params
    return row.but(
        fits=fit.fits,
        n_ctx=fit.trial.prediction.context.n_ctx,
        n_layers=fit.n_layers,
        n_offloaded=min(chosen.n_gpu_layers, fit.n_layers) if chosen.devices and chosen.n_gpu_layers >= 0 else 0,
        tightest=fit.trial.tightest,
        enough=paced.enough,
        tok_per_s=None if paced.speed is None else (paced.speed.decode or paced.speed.prefill).tok_per_s,
        flags=tuple(run_flags(chosen, name_devices=hasattr(args, "device_specs"))),
    )
