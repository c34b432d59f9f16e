"""Files that lack a tensor which may be missing, or have one more that may be there, are predicted like any other."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from ggufphys.arch import RULES
from ggufphys.arch.loading import OUTPUT_BEFORE_EMBEDDING, OUTPUT_IS_EMBEDDING
from tests import archs, variants
from tests.variant_checks import checks
from tests.variants import Variant

STEP = 12  # of all variants, so many apart, in the quick tests
SOME = [
    variant
    for i, variant in enumerate(variants.records())
    if i % STEP == 0
    or (variant.kind == "tied embeddings" and archs.models()[variant.name].arch in OUTPUT_BEFORE_EMBEDDING)
    or (variant.label == "without token_embd.weight" and archs.models()[variant.name].arch in OUTPUT_IS_EMBEDDING)
]


def test_every_architecture() -> None:
    """There are variants of every architecture that has records."""
    recorded = {archs.models()[name].arch for name in archs.records()}

    assert {archs.models()[variant.name].arch for variant in variants.records()} == recorded
    assert len(recorded) == len(RULES) - 1


def test_a_sample(tmp_path: Path) -> None:
    """Of variants of all kinds, model, context and compute bytes are llama.cpp's, mapped and read, repacked and not."""
    assert len(SOME) > len(variants.records()) / STEP
    assert wrong(SOME, tmp_path) == []


@pytest.mark.slow
def test_all(tmp_path: Path) -> None:
    """The same of all of them."""
    assert wrong(variants.records(), tmp_path) == []


def wrong(which: Iterable[Variant], folder: Path) -> list[str]:
    """What is not as recorded, in words."""
    return [
        f"{variant.name} {variant.label}, {check.params}: {check.ours}, llama.cpp says {check.llama_cpp}"
        for variant in which
        for check in checks(variant, variants.records()[variant], folder)
        if check.counts and not check.exact
    ]
