"""How fast are our tokenizers beside llama.cpp's, and do both give the same tokens on a megabyte of text?

`python -m bench.token_speed [MODEL ...] [--json]`, the embedded model by default;
a vocabulary alone will do.
The text is the standard library's sources. Both tokenise it in turn; rates are medians over repetitions. Exit code 1
when their tokens differ.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Final, TypeVar

from bench.corpus import documents
from bench.running.program import existing_file, run_program
from ggufphys import open_gguf
from ggufphys.embedded import MODEL
from refengine.text.llama import LlamaTokenizer
from refengine.text.open import open_tokenizer

A = TypeVar("A")
R = TypeVar("R")

N_CHARACTERS: Final = 1_000_000
REPETITIONS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenized:
    """One vocabulary: seconds to open it, and tokens a second, ours and llama.cpp's."""

    model: str
    n_vocab: int
    n_tokens: int
    equal: bool
    open_s: float
    tok_per_s: float
    llama_tok_per_s: float

    @property
    def ratio(self) -> float:
        """Our rate over llama.cpp's."""
        return self.tok_per_s / self.llama_tok_per_s


def measure(path: Path, text: str, repetitions: int) -> Tokenized:
    """Measure one vocabulary; each repetition of ours opens it anew, so that nothing is remembered.

    Raises as `open_tokenizer` does.
    """
    with open_gguf(path) as gguf:
        theirs = LlamaTokenizer(gguf)
        theirs.tokenize(text[:100])
        opens, ours_s, theirs_s = [], [], []
        for _ in range(repetitions):
            open_s, ours = _timed(open_tokenizer, gguf)
            first_s, _ = _timed(ours.tokenize, "a")
            opens.append(open_s + first_s)
            seconds, tokens = _timed(ours.tokenize, text)
            ours_s.append(seconds)
            seconds, expected = _timed(theirs.tokenize, text)
            theirs_s.append(seconds)
    return Tokenized(
        model=path.stem,
        n_vocab=ours.n_vocab,
        n_tokens=len(tokens),
        equal=tokens == expected,
        open_s=median(opens),
        tok_per_s=len(tokens) / median(ours_s),
        llama_tok_per_s=len(expected) / median(theirs_s),
    )


def _timed(call: Callable[[A], R], argument: A) -> tuple[float, R]:
    start = time.perf_counter()
    result = call(argument)
    return time.perf_counter() - start, result


def corpus(n_characters: int) -> str:
    """The first so many characters of the standard library's sources."""
    text = ""
    for document in islice(documents(), 10_000):
        text += document.text
        if len(text) >= n_characters:
            break
    return text[:n_characters]


def as_text(rows: Sequence[Tokenized]) -> str:
    """The results as a table."""
    lines = [f"{'':28}{'vocabulary':>11}{'open, s':>9}{'tokens/s':>11}{'llama.cpp':>11}{'ratio':>7}  tokens"]
    lines += [
        f"{row.model[:27]:28}{row.n_vocab:11,}{row.open_s:9.2f}{row.tok_per_s:11,.0f}{row.llama_tok_per_s:11,.0f}"
        f"{row.ratio:7.2f}  {'equal' if row.equal else 'DIFFER'}"
        for row in rows
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure each vocabulary, print the table or JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.token_speed", description=__doc__)
    parser.add_argument("models", nargs="*", type=existing_file, default=[MODEL], metavar="MODEL", help="GGUF files")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS, metavar="R", help="of each measurement (3)")
    args = parser.parse_args(argv)
    text = corpus(N_CHARACTERS)
    rows = [measure(path, text, max(1, args.repetitions)) for path in args.models]
    document = {"schema_version": 1, "rows": [asdict(row) | {"ratio": row.ratio} for row in rows]}
    sys.stdout.write((json.dumps(document, indent=2) if args.json else as_text(rows)) + "\n")
    return 0 if all(row.equal for row in rows) else 1


if __name__ == "__main__":
    run_program(main)
