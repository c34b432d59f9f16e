"""The small models as llama.cpp before b8840 loads them, and what its builds say of them.

Those builds ask for keys that are optional now, and refuse files with tensors that they do not know: biases, mostly. A
model that is refused as recorded is asked about without its biases, or without all that may be missing.
`data/older.json.gz` holds the rows: what `scripts/record_older.py` was told.
"""

import gzip
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final

from ggufphys.gguf.writer import TensorSpec, WriteValue, encode_header
from tests import archs, builds, variants

RECORDS: Final = archs.DATA / "older.json.gz"
FORMS: Final[Mapping[str, re.Pattern[str]]] = {  # what is left out, of what may be missing
    "without biases": re.compile(r".*\.bias"),
    "and without extras": re.compile(r".*\.bias|rope_f.*|cls.*|dense_2.*|token_types.*|.*ffn_latent.*"),
    "bare": re.compile(r".*"),
}
Rows = tuple[builds.Row, ...]

_LOOKS_BOTH_WAYS: Final = (
    "bert", "eurobert", "jina-bert-v2", "jina-bert-v3", "neo-bert", "nomic-bert", "nomic-bert-moe", "wavtokenizer-dec",
    "modern-bert",
)  # fmt: skip
# Keys that were asked for, with what their absence means now.
_KEYS: Final[Mapping[str, WriteValue]] = {
    **{f"{arch}.attention.causal": False for arch in _LOOKS_BOTH_WAYS},
    **{f"{arch}.embedding_scale": 1.0 for arch in ("granite", "granitemoe")},
    **{f"{arch}.attention.max_alibi_bias": 8.0 for arch in ("jais", "mpt")},
    **{f"{arch}.rope.freq_base_swa": 10000.0 for arch in ("mimo2", "modern-bert", "plamo3", "step35")},
    "chameleon.swin_norm": False,
    **{f"{arch}.attention.scale": 0.0 for arch in ("granite", "granitemoe")},
    **{f"{arch}.pooling_type": 0 for arch in ("eurobert", "neo-bert", "nomic-bert", "nomic-bert-moe")},
    "gemma-embedding.pooling_type": 1,
}


def metadata(name: str) -> Mapping[str, WriteValue]:
    """The model's, and the keys that older builds ask for."""
    model = archs.models()[name]
    return {**{key: value for key, value in _KEYS.items() if key.startswith(f"{model.arch}.")}, **model.metadata}


def tensors(name: str, form: str) -> list[TensorSpec]:
    """The model's, less what this form leaves out."""
    left = {t for v in variants.records() if v.name == name and (v.less or v.label.startswith("none")) for t in v.less}
    every = archs.records()[name].tensors
    return [t for t in every if t.name not in left or not FORMS[form].fullmatch(t.name)]


def header(name: str, form: str) -> bytes:
    """The file less its weights."""
    return encode_header(metadata(name), tensors(name, form))


def refused(build: int) -> list[str]:
    """Models of which a build's record has no bytes, though the build knows the architecture."""
    unknown = builds.unknown(build)
    return [
        name
        for name, rows in builds.rows(build).items()
        if archs.models()[name].arch not in unknown and all(isinstance(row, str) for row in rows)
    ]


@cache
def records() -> Mapping[int, Mapping[str, tuple[str, Rows]]]:
    """By build and model: the form that the build loads, and a row for each configuration of `archs.GRID`."""
    return dict(_decoded(json.loads(gzip.decompress(RECORDS.read_bytes()))))


def _decoded(found: Mapping[str, Any]) -> Iterator[tuple[int, Mapping[str, tuple[str, Rows]]]]:
    for build, models in found.items():
        yield (
            int(build),
            {
                name: (form, tuple(row if isinstance(row, str) else (row[0], row[1], row[2]) for row in rows))
                for name, (form, rows) in models.items()
            },
        )


def write(found: Mapping[int, Mapping[str, tuple[str, Sequence[builds.Row]]]]) -> None:
    """Keep the rows."""
    text = json.dumps({build: found[build] for build in sorted(found)}, separators=(",", ":"))
    RECORDS.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
