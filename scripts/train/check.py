"""Step 4: does llama.cpp cut the held-out text into the same tokens as the trainer did? Exit code 1 if not.

Needs no torch: run it with the project's own environment, where llama-cpp-python is.
"""

import argparse
from pathlib import Path

import numpy as np

from bench.corpus import held_out
from bench.running.program import run_program
from ggufphys import open_gguf
from ggufphys.embedded import MODEL
from refengine.text.llama import LlamaTokenizer


def main() -> int:
    """Compare token by token and report the first difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/train"), help="the work folder")
    parser.add_argument("--model", type=Path, default=MODEL, help="the exported GGUF file")
    args = parser.parse_args()

    expected = np.load(args.work / "held_out.npy")
    with open_gguf(args.model) as gguf:
        tokenizer = LlamaTokenizer(gguf)
    texts = [tokenizer.tokenize(d.text, add_special=False, parse_special=False) for d in held_out()]
    found = np.array([token for text in texts for token in (tokenizer.bos, *text)], np.int64)
    if np.array_equal(found, expected):
        print(f"{len(found):,} tokens, all equal")
        return 0
    shorter = min(len(found), len(expected))
    at = int(np.argmax(found[:shorter] != expected[:shorter])) if shorter else 0
    print(f"tokens differ from number {at}: llama.cpp {found[at : at + 5]}, trainer {expected[at : at + 5]}")
    return 1


if __name__ == "__main__":
    run_program(main)
