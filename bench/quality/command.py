"""`ggufphys bench quality BASE OTHER...`: how well does a model predict a text, and how far are others from it?"""

import argparse
import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from math import inf
from pathlib import Path
from typing import Final

from bench.cache import BASES, MOST_BYTES, cache_folder, make_room, remove_unfinished, used
from bench.derive import FILE_TYPE_IDS, derived, file_type_named
from bench.quality import suite
from bench.quality.base import BaseFileError, file_bytes, opened, written
from bench.quality.report import as_json, as_text
from bench.quality.rows import Candidate, Row, judged_row, kept_row
from bench.quality.texts import Reading, Setting, read, text_of
from ggufphys.errors import GGUFError
from ggufphys.flags.installed import refuse_build
from ggufphys.flags.numbers import count
from ggufphys.flags.parser import exclude
from ggufphys.gguf import open_gguf
from ggufphys.gguf.locate import local_path
from ggufphys.params import CACHE_TYPES
from ggufphys.units import format_bytes, parse_bytes
from server.engine.checks import check_model_file

TYPES: Final = ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K", "IQ4_XS")
"""What `--quantize all` makes."""
FLOATS: Final = frozenset({"F32", "F16", "BF16"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `run` reads."""
    parser.add_argument(
        "models", nargs="*", default=["F16"], metavar="MODEL",
        help="the base and others: GGUF files, or types to make of the embedded model (Q8_0, ...; default F16)",
    )  # fmt: skip
    parser.add_argument(
        "--text", nargs="+", type=Path, default=[], metavar="FILE",
        help="UTF-8 texts to judge (default: the standard library's modules that the embedded model never saw)",
    )  # fmt: skip
    parser.add_argument(
        "-c", "--ctx-size", "--ctx", type=count, default=0, metavar="N",
        help="tokens of a window, of which the second half is judged (default 512, less for short texts)",
    )  # fmt: skip
    parser.add_argument("--chunks", type=count, default=0, metavar="N", help="windows at most (default: all)")
    parser.add_argument("-t", "--threads", type=count, default=0, metavar="N", help="threads (default: one a core)")
    parser.add_argument(
        "--quantize", metavar="TYPES",
        help=f"others made of the base by llama.cpp's quantiser: types with commas, or all ({', '.join(TYPES)})",
    )  # fmt: skip
    parser.add_argument(
        "--cache-types", metavar="TYPES",
        help="others: the base with its cache in these types, with commas (q8_0 for both, q8_0/q4_0 for K/V)",
    )  # fmt: skip
    parser.add_argument(
        "--base-engine", choices=("llama.cpp", "refengine"), default="llama.cpp",
        help="refengine: the base in numpy, exact in F32, and llama.cpp's run of it is an other (default llama.cpp)",
    )  # fmt: skip
    parser.add_argument(
        "--base-file", type=Path, metavar="FILE",
        help="where the base's log-probabilities are kept, as --kl-divergence-base (default: a cache)",
    )  # fmt: skip
    parser.add_argument(
        "--base-bytes", type=_size, default=MOST_BYTES, metavar="SIZE",
        help=f"the most that they may take (default {format_bytes(MOST_BYTES)})",
    )  # fmt: skip
    parser.add_argument(
        "--suite", type=Path, metavar="FILE.jsonl",
        help="instead of a text: prompts with expected answers; then a MODEL may be a server's address, http://...",
    )  # fmt: skip
    parser.add_argument("--forget", action="store_true", help="remove them afterwards")
    parser.add_argument(
        "--max-ratio", type=float, metavar="R", help="exit 1 if a model's perplexity is above R times the unigram's"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    refuse_build(parser)
    exclude(
        parser, "--suite", "--text", "--ctx-size", "--chunks", "--base-file", "--base-bytes", "--forget", "--max-ratio"
    )


def _size(text: str) -> int:
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run(args: argparse.Namespace) -> int:
    """Judge all models on the same text and print a table or JSON; 1 if one is above `--max-ratio`, else 0."""
    _check(args)
    if args.suite:
        return _run_suite(args)
    candidates = [*_candidates(args)]
    setting = Setting(text=text_of(args.text), n_ctx=args.ctx_size, n_chunks=args.chunks, n_threads=args.threads)
    rows = judged_rows(candidates, setting, base_file=args.base_file, base_bytes=args.base_bytes, forget=args.forget)
    sys.stdout.write(as_json(rows) + "\n" if args.json else as_text(rows))
    return int(args.max_ratio is not None and any(row["ratio"] > args.max_ratio for row in rows))


def _check(args: argparse.Namespace) -> None:
    """Refuse what would be overlooked."""
    for name in ("quantize", "cache_types"):
        if getattr(args, name) == "":
            raise ValueError(f"--{name.replace('_', '-')} names no type; expected such as q8_0,q4_0")
    if args.max_ratio is not None and not 0 < args.max_ratio < inf:
        raise ValueError(f"--max-ratio {args.max_ratio}: expected a number above 0")
    if args.base_file is not None and not args.base_file.absolute().parent.is_dir():
        raise ValueError(f"--base-file {args.base_file}: there is no folder {args.base_file.parent}")
    if args.suite is None:
        alone = len(args.models) == 1 and not args.quantize and not args.cache_types and args.base_engine == "llama.cpp"
        for name in ("base_file", "forget"):
            if alone and getattr(args, name):
                raise ValueError(f"--{name.replace('_', '-')}: nothing is compared with a base: name another model")
        return
    if is_address(args.models[0]) and (args.quantize or args.cache_types or args.base_engine == "refengine"):
        raise ValueError(f"{args.models[0]} is a server: other types and engines are made of a file, named first")


def _run_suite(args: argparse.Namespace) -> int:
    """Ask all models the suite's prompts; exit code 0 whatever they answer."""
    tasks = suite.read_tasks(args.suite)
    models: list[Candidate | suite.Server] = [
        suite.Server(model) if is_address(model) else _candidate(model) for model in args.models
    ]
    if isinstance(models[0], Candidate):
        models = [*_exact(args, models[0]), *models, *_variants(args, models[0])]
    results = suite.suite_results(models, tasks)
    sys.stdout.write(suite.as_json(results) + "\n" if args.json else suite.as_text(results))
    return 0


def is_address(model: str) -> bool:
    """Whether a model is a server's address."""
    return model.startswith(("http://", "https://"))


def judged_rows(
    candidates: Sequence[Candidate],
    setting: Setting,
    *,
    base_file: Path | None = None,
    base_bytes: int = MOST_BYTES,
    forget: bool = False,
) -> list[Row]:
    """A row a candidate, the first being what the others are compared with.

    An other that reads the text in other tokens is judged alone.

    Raises:
        GGUFError, UnsupportedError, EngineError: a model can't be read or run.
        BaseFileError: `base_file` is there and of something else.
        ValueError: the text is too short, or the base's log-probabilities would take more than `base_bytes`.
    """
    base, *others = candidates
    of_files = {path: read(path, setting) for path in dict.fromkeys(candidate.path for candidate in candidates)}
    readings = [of_files[candidate.path] for candidate in candidates]
    if not any(readings[0].same_as(reading) for reading in readings[1:]):
        return [judged_row(c, setting, r) for c, r in zip(candidates, readings, strict=True)]
    path = base_file or cache_folder() / f"base-{_key(base, setting)}.logits"
    with ExitStack() as stack:
        if forget:
            stack.callback(path.unlink, missing_ok=True)
        if base_file is None and not path.exists():
            remove_unfinished(path.parent, BASES)
            needed = file_bytes(readings[0].windows, readings[0].n_vocab)
            make_room(path.parent, BASES, base_bytes, needed_bytes=needed)
        if base_file is None and path.exists():
            _remove_damaged(path, readings[0])
        first = _base_row(base, setting, readings[0], path, base_bytes)
        kept = opened(path, readings[0].windows, readings[0].n_vocab)
        return [first] + [
            judged_row(other, setting, reading, base=kept if reading.same_as(readings[0]) else None)
            for other, reading in zip(others, readings[1:], strict=True)
        ]


def _remove_damaged(path: Path, reading: Reading) -> None:
    """A base that the cache keeps and that is none any more is made again: nobody else has written it."""
    try:
        opened(path, reading.windows, reading.n_vocab)
    except BaseFileError as error:
        print(f"ggufphys: {error}; it is made again", file=sys.stderr)
        path.unlink(missing_ok=True)


def _base_row(base: Candidate, setting: Setting, reading: Reading, path: Path, most: int) -> Row:
    """The base's row; its log-probabilities are at `path` then."""
    if path.exists():
        used(path)
        return kept_row(base, reading, opened(path, reading.windows, reading.n_vocab))
    needed = file_bytes(reading.windows, reading.n_vocab)
    if needed > most:
        n_fitting = int(len(reading.windows.tokens) * most / needed)
        fewer = f"--chunks {n_fitting}, or " if n_fitting else ""
        raise ValueError(
            f"the base's log-probabilities would take {format_bytes(needed)}, expected {format_bytes(most)} at most: "
            f"give {fewer}more --base-bytes"
        )
    print(f"the base's log-probabilities take {format_bytes(needed)}: {path}", file=sys.stderr)
    with written(path, reading.windows, reading.n_vocab) as keep:
        return judged_row(base, setting, reading, keep=keep)


def _key(base: Candidate, setting: Setting) -> str:
    """What the base's log-probabilities depend on, hashed: a file that is changed is another."""
    stat = base.path.stat()
    parts = (
        os.fspath(base.path.resolve()), stat.st_size, stat.st_mtime_ns, base.engine, base.type_k, base.type_v,
        setting.n_ctx, setting.n_chunks, hashlib.sha256(setting.text.encode()).hexdigest(),
    )  # fmt: skip
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _candidates(args: argparse.Namespace) -> Iterator[Candidate]:
    """All models that are asked for, checked before the first is run."""
    named = [_candidate(model) for model in args.models]
    yield from _exact(args, named[0])
    yield from named
    yield from _variants(args, named[0])


def _exact(args: argparse.Namespace, first: Candidate | suite.Server) -> Iterator[Candidate]:
    """The base in numpy, if that is asked for."""
    if args.base_engine == "refengine" and isinstance(first, Candidate):
        yield Candidate(name=first.name, path=first.path, engine="refengine", type_k="f32", type_v="f32")


def _variants(args: argparse.Namespace, first: Candidate) -> Iterator[Candidate]:
    """What is made of the base: other types, other types of cache."""
    if args.quantize:
        yield from _quantised(first, args.quantize)
    for types in args.cache_types.split(",") if args.cache_types else ():
        type_k, _, type_v = types.partition("/")
        type_v = type_v or type_k
        for name in (type_k, type_v):
            if name not in CACHE_TYPES:
                raise ValueError(f"--cache-types: {name!r} is no type of a cache: expected {', '.join(CACHE_TYPES)}")
        yield Candidate(name=f"{first.name}, cache {types}", path=first.path, type_k=type_k, type_v=type_v)


def _candidate(model: str) -> Candidate:
    """A model that can be opened, or a type of the embedded one.

    Raises:
        ValueError: neither a file nor a type.
        GGUFError: a file that is no GGUF: a text, most likely, which belongs behind --text.
    """
    if is_address(model):
        raise ValueError(f"{model}: a server says nothing of what it expects; it may answer a --suite")
    if model in FILE_TYPE_IDS:
        return Candidate(name=model, path=derived(model))
    path = local_path(model)
    if not path.exists() and len(path.parts) == 1 and not path.suffix:
        types = ", ".join(FILE_TYPE_IDS)
        raise ValueError(f"{model}: no such file, and no file type; expected a GGUF file, or one of {types}")
    try:
        check_model_file(path)
    except GGUFError as error:
        raise GGUFError(f"{error}; texts to judge are named behind --text") from None
    return Candidate(name=path.stem, path=path)


def _quantised(base: Candidate, types: str) -> Iterator[Candidate]:
    with open_gguf(base.path) as gguf:
        own = gguf.file_type
    wanted = (
        TYPES if types == "all" else tuple(dict.fromkeys(file_type_named(name.strip()) for name in types.split(",")))
    )
    for file_type in wanted:  # all of them are known before the first is made
        if file_type != own:
            path = derived(file_type, base.path)
            yield Candidate(name=file_type, path=path, requantised_from=None if own in FLOATS else own)
