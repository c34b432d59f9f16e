"""`ggufphys inspect FOLDER` (or several models): a row a file."""

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from ggufphys.commands.devices import params_here
from ggufphys.commands.opening import opened
from ggufphys.errors import GGUFError
from ggufphys.gguf.known import KnownArrays
from ggufphys.gguf.locate import is_remote
from ggufphys.params import Params
from ggufphys.plan.folder import FileRow, file_row, find_models
from ggufphys.report import folder as report_folder

FILES_PER_JOB: Final = 16  # from twice as many on, reading vocabularies takes longer than starting processes


def run_folder(args: argparse.Namespace) -> int:
    """Print a row a model; exit code 3 when none of them could be read.

    Raises:
        GGUFError: there is no model to be found.
    """
    params, notes = params_here(args)
    for note in notes:
        print(f"ggufphys: note: {note}", file=sys.stderr)
    paths = find_models(args.models, on_error=_skipped)
    if not paths:
        raise GGUFError(f"{' '.join(args.models)}: no *.gguf file there")
    rows = _rows(paths, params, use_cache=args.use_cache)
    folder = args.models[0] if len(args.models) == 1 and Path(args.models[0]).is_dir() else ""
    print(report_folder.folder_json(rows) if args.json else report_folder.folder_text(rows, folder))
    return 0 if any(row.readable for row in rows) else 3


def _rows(paths: Sequence[str], params: Params, *, use_cache: bool) -> list[FileRow]:
    read = partial(_read, params=params, use_cache=use_cache)
    n_jobs = min(os.cpu_count() or 1, len(paths) // FILES_PER_JOB)
    if n_jobs < 2 or any(is_remote(path) for path in paths):
        return read(paths)
    import signal  # what only large folders need
    from concurrent.futures import ProcessPoolExecutor

    parts = [paths[i : i + FILES_PER_JOB] for i in range(0, len(paths), FILES_PER_JOB)]
    # Ctrl-C is the parent's: it stops handing out work, and the children end with what they have in hand.
    with ProcessPoolExecutor(n_jobs, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)) as pool:
        return [row for rows in pool.map(read, parts) for row in rows]


def _read(paths: Sequence[str], params: Params, *, use_cache: bool) -> list[FileRow]:
    known = KnownArrays()
    return [file_row(path, params, partial(opened, use_cache=use_cache, known=known)) for path in paths]


def _skipped(error: OSError) -> None:
    print(f"ggufphys: skipped {error.filename}: {error.strerror}", file=sys.stderr)
