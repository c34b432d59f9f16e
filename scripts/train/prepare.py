"""Step 1: from the standard library to a tokenizer and two rows of token ids.

Writes `tokenizer.json`, `train.npy`, `held_out.npy` (uint16) and `corpus.json` (what went in) into the work folder.
"""

import argparse
import hashlib
import json
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from bench.corpus import Document, documents
from bench.running.program import run_program

N_VOCAB: Final = 4096
END_OF_TEXT: Final = "<|endoftext|>"
END_OF_TEXT_ID: Final = 0

Tokens = npt.NDArray[np.uint16]


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Train a byte-level BPE of `N_VOCAB` tokens that splits words as llama.cpp's pre-tokenizer `gpt-2` does.

    Source: llama.cpp 0c1e570 src/llama-vocab.cpp, LLAMA_VOCAB_PRE_TYPE_GPT2.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=N_VOCAB,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, corpus: Iterable[Document]) -> Tokens:
    """Return all documents' ids in one row, `(n_tokens,)`, an end-of-text token before each document."""
    encodings = tokenizer.encode_batch([document.text for document in corpus])
    return np.concatenate([np.array([END_OF_TEXT_ID, *encoding.ids], np.uint16) for encoding in encodings])


def main() -> None:
    """Write the tokenizer and the tokens."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/train"), help="the work folder")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)

    corpus = list(documents())
    seen = [document for document in corpus if not document.held_out]
    unseen = [document for document in corpus if document.held_out]
    tokenizer = train_tokenizer(document.text for document in seen)
    tokenizer.save(str(args.work / "tokenizer.json"))
    rows = {"train": encode(tokenizer, seen), "held_out": encode(tokenizer, unseen)}
    for name, row in rows.items():
        np.save(args.work / f"{name}.npy", row)

    digest = hashlib.sha256()
    for document in corpus:
        digest.update(f"{document.name}\0{document.text}\0".encode())
    record = {
        "python": platform.python_version(),
        "sha256": digest.hexdigest(),
        "documents": {"train": len(seen), "held_out": len(unseen)},
        "bytes": {"train": _n_bytes(seen), "held_out": _n_bytes(unseen)},
        "tokens": {name: len(row) for name, row in rows.items()},
    }
    (args.work / "corpus.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


def _n_bytes(corpus: Iterable[Document]) -> int:
    return sum(len(document.text.encode()) for document in corpus)


if __name__ == "__main__":
    run_program(main)
