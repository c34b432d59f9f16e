"""`ggufphys inspect FOLDER` (or several models, or without any: those of this machine): a row a file."""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from ggufphys.commands.attached import predict_here, with_server
from ggufphys.commands.devices import params_here
from ggufphys.commands.opening import opened
from ggufphys.commands.quantize import quantizing
from ggufphys.errors import GGUFError
from ggufphys.gguf.known import KnownArrays
from ggufphys.gguf.locate import is_remote
from ggufphys.gguf.split import model_of
from ggufphys.plan.folder import Asked, FileRow, file_row, find_models
from ggufphys.report.folder import folder_json, folder_text
from ggufphys.report.progress import Steps
from ggufphys.units import in_a_line, shown

FILES_PER_JOB: Final = 16  # from twice as many on, reading vocabularies takes longer than starting processes


def run_folder(args: argparse.Namespace, limit_bytes: int | None) -> int:
    """Print a row a model.

    Exit code 3 when none of them could be read; with a limit 1 when one does not fit, 4 when one has no prediction.

    Raises:
        GGUFError: there is no model to be found.
    """
    params, notes = params_here(args)
    for note in notes:
        print(f"ggufphys: note: {shown(note)}", file=sys.stderr)
    params = with_server(args, params)
    asked = Asked(
        params=params,
        predict=partial(predict_here, args),
        limit_bytes=limit_bytes,
        quantize=None if args.quantize is None else quantizing(args, params),
    )
    named: Sequence[str] = getattr(args, "models", ())
    rows = list(_answered(_named(named) if named else _stored(), asked, use_cache=args.use_cache))
    folder = named[0] if len(named) == 1 and Path(named[0]).is_dir() else ""
    print(folder_json(rows) if args.json else folder_text(rows, asked, folder))
    return _exit_code(rows, limit_bytes)


def _named(texts: Sequence[str]) -> list[FileRow]:
    paths = find_models(texts, on_error=tell_skipped)
    if not paths:
        raise GGUFError(f"{' '.join(texts)}: no *.gguf file there")
    return [FileRow(path=path) for path in paths]


def _stored() -> list[FileRow]:
    """A row for each model that another program keeps."""
    from ggufphys.stores import STORES, stored_models  # what named models do without

    stored = stored_models()
    if not stored:
        raise GGUFError(
            f"no model found on this machine, where {', '.join(STORES)} keep theirs; name a file, a folder, "
            "hf:owner/repo or an address"
        )
    rows: dict[tuple[str, str], FileRow] = {}  # by what tells models apart, and the name that Ollama has for a file
    for s in stored:
        rows.setdefault((model_of(s.path), s.address), FileRow(path=s.path, label=s.address or s.name, store=s.store))
    return list(rows.values())


def _answered(rows: Sequence[FileRow], asked: Asked, *, use_cache: bool) -> Iterator[FileRow]:
    read = partial(_read, asked=asked, use_cache=use_cache)
    n_jobs = min(os.cpu_count() or 1, len(rows) // FILES_PER_JOB)
    with Steps("reading", total=len(rows)) as steps:
        if n_jobs < 2 or any(is_remote(row.path) for row in rows):
            yield from steps.over(read(rows))
            return
        from concurrent.futures import ProcessPoolExecutor  # what only large folders need

        parts = [rows[i : i + FILES_PER_JOB] for i in range(0, len(rows), FILES_PER_JOB)]
        with ProcessPoolExecutor(n_jobs, initializer=_begin_job) as pool:
            for answered in pool.map(partial(_read_all, asked=asked, use_cache=use_cache), parts):
                yield from steps.over(answered)


def _begin_job() -> None:
    """Ctrl-C is the parent's: it stops handing out work, and the children end with what they have in hand.

    A parent that is ended otherwise tells them nothing: they would wait for work for ever.
    """
    import signal
    import threading

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    from multiprocessing import parent_process

    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)


def _read(rows: Iterable[FileRow], asked: Asked, *, use_cache: bool) -> Iterator[FileRow]:
    known = KnownArrays()
    for row in rows:
        yield file_row(row, asked, partial(opened, use_cache=use_cache, known=known))


def _read_all(rows: Sequence[FileRow], asked: Asked, *, use_cache: bool) -> list[FileRow]:
    return list(_read(rows, asked, use_cache=use_cache))


def _exit_code(rows: Sequence[FileRow], limit_bytes: int | None) -> int:
    if not any(row.readable for row in rows):
        return 3
    if limit_bytes is None:
        return 0
    if any(row.fits is False for row in rows):
        return 1
    return 4 if any(row.kind == "model" and row.fits is None for row in rows) else 0


def tell_skipped(error: OSError) -> None:
    """Name a folder that cannot be searched."""
    print(f"ggufphys: skipped {in_a_line(str(error.filename))}: {error.strerror}", file=sys.stderr)
