"""A small model's logits against llama.cpp's, in the ways that models are run."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

import refengine
from ggufphys.arch import rule_for
from ggufphys.graph.models import MODELS
from refengine.checks.logits import Agreement
from refengine.peers.llama_logits import TIMEOUT_S
from tests import archs
from tests.refengine.beside_llama import compare_logits

N_PROMPT: Final = 64
N_STEPS: Final = 8
WAYS: Final[Mapping[str, Mapping[str, Any]]] = {
    "F32": {"type_k": "f32", "type_v": "f32", "flash_attn": False},
    "F16": {"flash_attn": False},
    "flash": {"flash_attn": True},
}
# What is computed with every sum in ggml's own order (`emulate`): these amplify its last bit.
AMPLIFIES: Final[Mapping[str, str]] = {
    "gemma4": "scores that no factor makes small pass on what a last bit does to the halves that GELU is looked up by",
}
LLAMA_DOES_NOT: Final[Mapping[str, str]] = {
    "llama4/none": "llama_decode aborts: no attention.temperature_scale",
    "plamo2/first": "llama_decode does not come back",
    "dots3note": "llama_decode aborts: a layer with a window has an indexer; dots3note/matched is compared",
    "dots3note/head": "as dots3note",
    "cogvlm": "reads V behind a row's end where keys have fewer heads than queries; cogvlm/mha is compared",
}
ABORTS: Final[Mapping[str, str]] = {"plm": "flash"}  # models that llama.cpp dies of when they are run that way
NO_LOGITS: Final = ("llama-embed",)  # embeddings alone, though llama.cpp makes it a cache


def generating() -> Iterator[str]:
    """The small models with a graph that keep something from token to token, and so give logits step by step.

    Those with an encoder want to be told more than tokens.
    """
    for name, record in archs.records().items():
        keeps = any(not isinstance(row, str) and row[1] > 0 for row in record.rows)
        if (
            keeps
            and arch_of(name) in MODELS
            and not rule_for(arch_of(name)).has_encoder
            and arch_of(name) not in NO_LOGITS
            and name not in LLAMA_DOES_NOT
        ):
            yield name


def arch_of(name: str) -> str:
    """The architecture of a small model."""
    return name.partition("/")[0]


def ways_of(name: str) -> list[str]:
    """The ways in which llama.cpp runs a small model."""
    return [way for way in WAYS if way != ABORTS.get(name)]


def opened(path: Path, way: str, *, emulate: bool = False) -> refengine.Model:
    """The model, to be run in that way."""
    return refengine.load(path, n_ctx=256, n_threads=2, emulate=emulate, **WAYS[way])


def agreements(models: Sequence[refengine.Model], *, timeout_s: float = TIMEOUT_S) -> list[Agreement]:
    """Of a prompt, then steps of one token."""
    tokens = np.random.default_rng(1).integers(0, models[0].h.n_vocab, N_PROMPT + N_STEPS)
    return compare_logits(models, tokens.tolist(), N_PROMPT, timeout_s=timeout_s)
