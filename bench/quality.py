"""How well does a model predict text it has not seen, and how much worse after quantisation? `ggufphys bench quality`.

Perplexity through llama.cpp, beside that of a unigram model on the same tokens. The unigram is the strictest there is:
its frequencies are those of the very tokens it is judged on, so no context-free model can do better.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bench.corpus import held_out
from bench.derive import FILE_TYPE_IDS, derived
from bench.perplexity import Scorer, Tokens
from ggufphys.errors import GGUFError
from ggufphys.flags.run import count
from ggufphys.gguf import open_gguf
from ggufphys.gguf.locate import local_path
from ggufphys.report.inspection import SCHEMA_VERSION, dumps, table
from ggufphys.report.progress import Steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """What one model made of one set of texts.

    Attributes:
        model: the GGUF file's name.
        file_bytes: its length.
        n_documents: texts, each read as a document of its own.
        text_bytes: their UTF-8 length.
        n_tokens: tokens judged.
        perplexity: exp of the mean of −ln p over the tokens.
        unigram_perplexity: exp of the entropy of the tokens' own frequencies.
        ratio: perplexity / unigram_perplexity; below 1, context helped.
        bits_per_byte: Σ −log₂ p over text_bytes; comparable between tokenizers.
        elapsed_s: seconds the measurement took.
    """

    model: str
    file_bytes: int
    n_documents: int
    text_bytes: int
    n_tokens: int
    perplexity: float
    unigram_perplexity: float
    ratio: float
    bits_per_byte: float
    elapsed_s: float


def unigram_perplexity(tokens: Tokens) -> float:
    """Return exp of the entropy, in nats, of the tokens' own frequencies: `(n,)` to a number from 1 to n.

    Raises:
        ValueError: there are no tokens.
    """
    if not len(tokens):
        raise ValueError("no tokens to judge: expected texts that are not empty")
    counts = np.bincount(tokens)
    frequencies = counts[counts > 0] / len(tokens)
    return float(np.exp(-(frequencies * np.log(frequencies)).sum()))


def cut(texts: Sequence[str], n_bytes_max: int | None) -> list[str]:
    """Return the texts up to `n_bytes_max` bytes of UTF-8 in all, the last one cut between two characters."""
    if n_bytes_max is None:
        return list(texts)
    kept, left = [], n_bytes_max
    for text in texts:
        if left <= 0:
            break
        raw = text.encode()
        kept.append(raw[:left].decode(errors="ignore"))
        left -= len(raw)
    return kept


def measure(
    model: Path, texts: Sequence[str], *, n_ctx: int = 0, n_threads: int = 0, n_bytes_max: int | None = None
) -> Quality:
    """Measure a model's perplexity on texts, each as a document of its own.

    Args:
        model: the GGUF file.
        texts: the documents, in the order in which they are read.
        n_ctx: tokens of context; 0 takes the trained length.
        n_threads: 0 means one for each core.
        n_bytes_max: read no more text than this; `None` reads everything.

    Raises:
        GGUFError, UnsupportedError, EngineError: the model can't be read or run.
        ValueError: the texts hold nothing to judge.
    """
    began = time.perf_counter()
    judged: list[Tokens] = []
    log_probabilities = []
    n_documents = text_bytes = 0
    with ExitStack() as stack:
        scorer = stack.enter_context(Scorer(model, n_ctx=n_ctx, n_threads=n_threads))
        documents = [(text, scorer.tokenize(text)) for text in cut(texts, n_bytes_max)]
        steps = stack.enter_context(
            Steps(f"judging {model.name}", total=sum(len(t) for _, t in documents), unit="tokens", ticks=True)
        )
        for text, tokens in documents:
            found = scorer.log_probabilities(tokens, steps.advance)
            log_probabilities.append(found)
            judged.append(tokens[len(tokens) - len(found) :])
            n_documents += 1
            text_bytes += len(text.encode())
    tokens, logs = np.concatenate([np.empty(0, np.int32), *judged]), np.concatenate([np.empty(0), *log_probabilities])
    unigram = unigram_perplexity(tokens)
    perplexity = float(np.exp(-logs.mean()))
    return Quality(
        model=model.name,
        file_bytes=model.stat().st_size,
        n_documents=n_documents,
        text_bytes=text_bytes,
        n_tokens=len(tokens),
        perplexity=perplexity,
        unigram_perplexity=unigram,
        ratio=perplexity / unigram,
        bits_per_byte=float(-logs.sum() / np.log(2) / text_bytes),
        elapsed_s=time.perf_counter() - began,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `run` reads."""
    parser.add_argument(
        "models", nargs="*", default=["F16"], metavar="MODEL",
        help="a GGUF file, or a file type to derive from the embedded model (Q8_0, Q4_K_M, ...; default F16)",
    )  # fmt: skip
    parser.add_argument(
        "--text", nargs="+", type=Path, metavar="FILE",
        help="UTF-8 texts to judge (default: the standard library's modules that the embedded model never saw)",
    )  # fmt: skip
    parser.add_argument(
        "-c", "--ctx-size", "--ctx", type=count, default=0, metavar="N", help="context (default: as trained)"
    )
    parser.add_argument("-t", "--threads", type=int, default=0, metavar="N", help="threads (default: one a core)")
    parser.add_argument("--max-bytes", type=int, metavar="N", help="read no more text than this")
    parser.add_argument(
        "--max-ratio", type=float, metavar="R", help="exit 1 if a model's perplexity is above R times the unigram's"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Measure every model on the same texts and print a table or JSON; 1 if one is above `--max-ratio`, else 0."""
    for name, value, least in (("--ctx-size", args.ctx_size, 0), ("--max-bytes", args.max_bytes, 1)):
        if value is not None and value < least:
            raise ValueError(f"{name} is {value}: expected at least {least}")
    models = [_checked(model) for model in args.models]
    texts = _read(args.text) if args.text else [document.text for document in held_out()]
    paths = [derived(model) if isinstance(model, str) else model for model in models]
    results = [
        measure(path, texts, n_ctx=args.ctx_size, n_threads=args.threads, n_bytes_max=args.max_bytes) for path in paths
    ]
    if args.json:
        document = {"schema_version": SCHEMA_VERSION, "results": [asdict(result) for result in results]}
        sys.stdout.write(dumps(document) + "\n")
    else:
        sys.stdout.write(_table(results))
    return int(args.max_ratio is not None and any(result.ratio > args.max_ratio for result in results))


def _checked(model: str) -> Path | str:
    """The path of a model that can be opened, or a file type: before anything is run.

    Raises:
        ValueError: neither a file nor a type.
        GGUFError: a file that is no GGUF: a text, most likely, which belongs behind --text.
    """
    if model in FILE_TYPE_IDS:
        return model
    path = local_path(model)
    if not path.exists():
        types = ", ".join(FILE_TYPE_IDS)
        raise ValueError(f"{model}: no such file, and no file type; expected a GGUF file, or one of {types}")
    try:
        open_gguf(path).close()
    except GGUFError as error:
        raise GGUFError(f"{error}; texts to judge are named behind --text") from None
    return path


def _read(paths: Sequence[Path]) -> list[str]:
    texts = []
    for path in paths:
        try:
            texts.append(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 text (byte {error.start}): expected a plain text file") from error
    if not any(texts):
        raise ValueError(f"{', '.join(map(str, paths))}: empty, expected texts to judge")
    return texts


def _table(results: Sequence[Quality]) -> str:
    rows = [
        (
            result.model,
            f"{result.file_bytes:,}",
            f"{result.n_tokens:,}",
            f"{result.perplexity:.3f}",
            f"{result.unigram_perplexity:.1f}",
            f"{result.ratio:.4f}",
            f"{result.bits_per_byte:.4f}",
        )
        for result in results
    ]
    header = ("model", "file bytes", "tokens", "perplexity", "unigram", "ratio", "bits/byte")
    read = f"{results[0].n_documents} documents, {results[0].text_bytes:,} bytes"
    return "\n".join([read, "", *table(header, rows, right=range(1, len(header)))]) + "\n"
