"""Files like the small models of `archs.py`, with a tensor less that may be missing, or one more that may be there.

`data/variants.json` holds what `scripts/record_variants.py` has learned from llama.cpp: which such files it loads for
every architecture, and its memory breakdown for each of `WAYS`, really allocated. Products are in Q4_0, which the CPU
of the recording repacks (AVX2), and the vocabulary is a multiple of 8, so that the output matrix is repacked too.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from ggufphys.gguf import GGMLType
from ggufphys.gguf.writer import TensorSpec, WriteValue, data_bytes, encode_header
from ggufphys.params import Params
from tests import archs, scales

RECORDS: Final = archs.DATA / "variants.json"
CPU_FEATURES: Final = frozenset({"avx2"})  # of the CPU that recorded, as far as they tell about Q4_0
N_VOCAB: Final = 300
N_VOCAB_HERE: Final = 304
PRODUCTS: Final = re.compile(
    r"(?:.*\.)?(attn_(q|k|v|qkv|output|o|q_a|q_b|kv_a_mqa|gate)|ffn_(gate|up|down|gate_up)(_exps|_shexp)?"
    r"|ssm_(in|out|alpha|beta|ba)|token_embd|output|nextn\.(eh_proj|embed_tokens|shared_head_head))\.weight"
    r"|.*\.lora_[ab]"
)

_BASE: Final = Params(n_ctx=512, use_mmap=False, use_extra_bufts=False)
WAYS: Final[tuple[Params, ...]] = (
    _BASE,
    replace(_BASE, use_extra_bufts=True),
    replace(_BASE, use_mmap=True),
    replace(_BASE, use_mmap=True, use_extra_bufts=True),
    replace(_BASE, n_ctx=1024, n_seq_max=2, n_ubatch=64, flash_attn="off"),
    replace(_BASE, load_mtp=True, ctx_type="mtp"),
)
LOADS: Final = len(WAYS) - 1  # the last one asks for a prediction head
AS_RECORDED: Final = "as recorded"
WITH_SCALES: Final = "with scales"

Row = tuple[int, int, int] | str
"""(model, context, compute) bytes, or "refused", or "aborts"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A recorded model that lacks tensors, or has others besides; `label` says which."""

    name: str
    label: str
    less: frozenset[str]
    more: tuple[TensorSpec, ...]

    @property
    def kind(self) -> str:
        """What kind of difference it is, for tables."""
        return next((kind for kind, pattern in KINDS if re.search(pattern, self.label)), "others")


KINDS: Final = (
    ("as recorded", r"^as recorded$"),
    ("all that may be missing", r"^none of"),
    ("scales of NVFP4", r"scale"),
    ("one product for queries, keys and values", r"^with .*attn_qkv\.weight"),
    ("one more tensor", r"^with "),
    ("tied embeddings", r"[ ]output\.weight"),
    ("biases", r"\.bias$"),
    ("rotary factors", r"rope_f"),
    ("norms", r"norm"),
    ("shared experts", r"shexp"),
    ("prediction heads", r"nextn"),
)


def tensors(variant: Variant) -> Sequence[TensorSpec]:
    """The tensors of its file, in the file's order."""
    recorded = archs.records()[variant.name].tensors
    more = {t.name for t in variant.more}
    kept = [here(t) for t in recorded if t.name not in variant.less and t.name not in more]
    return sorted([*kept, *variant.more], key=file_order)


def here(tensor: TensorSpec) -> TensorSpec:
    """A recorded tensor as these files have it: for their vocabulary, products in Q4_0 where rows are whole blocks."""
    ne = tuple(N_VOCAB_HERE if n == N_VOCAB else n for n in tensor.ne)
    product = PRODUCTS.fullmatch(tensor.name) is not None and ne[0] % 32 == 0
    return TensorSpec(tensor.name, ne, GGMLType.Q4_0 if product else tensor.ggml_type)


def header(variant: Variant) -> bytes:
    """The file less its weights."""
    return encode_header(metadata(variant.name), tensors(variant))


def write(path: Path, name: str, specs: Sequence[TensorSpec]) -> None:
    """The file at its full length, with a hole for weights."""
    start = encode_header(metadata(name), specs)
    path.write_bytes(start)
    os.truncate(path, len(start) + data_bytes(specs))


def metadata(name: str) -> Mapping[str, WriteValue]:
    """The model's metadata, for the vocabulary of these files."""
    model = archs.models()[name]
    return {
        key: N_VOCAB_HERE if key == f"{model.arch}.vocab_size" and value == N_VOCAB else value
        for key, value in model.metadata.items()
    }


def scaled(name: str) -> Variant:
    """The model with a scale beside every weight that may have one."""
    known = {t.name for t in archs.records()[name].tensors}
    more = [here(t) if t.name in known else t for t in scales.with_scales(name, head=False)]
    more = [t for t in more if t.name not in known]
    return Variant(
        name=name,
        label=WITH_SCALES,
        less=frozenset(),
        more=tuple(t for t in more if not t.name.startswith("output.")),
    )


@cache
def records() -> Mapping[Variant, tuple[Row, ...]]:
    """What llama.cpp said of each variant, in each of `WAYS`."""
    return dict(decode(json.loads(RECORDS.read_text())["models"]))


def encode(rows: Mapping[Variant, Sequence[Row]]) -> dict[str, Any]:
    """As JSON, by model: rows as what each has more than the model as recorded, one number where that is all there is.

    What a label says of the tensors that are left out, or added, is not said again.
    """
    models: dict[str, Any] = {}
    base: Sequence[Row] = ()
    for variant, found in rows.items():
        if variant.label == AS_RECORDED:
            base = found
            models[variant.name] = {"rows": list(found), "variants": {}}
            continue
        differences = [_minus(row, of_base) for row, of_base in zip(found, base, strict=True)]
        if len({*map(str, differences[:LOADS])}) == 1 and not any(differences[LOADS:]):
            differences = differences[:1]
        said = variant.less == said_less(variant.name, variant.label)
        less = 0 if said else archs.pack(TensorSpec(n, (1,), GGMLType.F32) for n in sorted(variant.less))
        more = [] if variant.label == WITH_SCALES else archs.pack(variant.more)
        entry = [differences if len(differences) > 1 else differences[0], less, more]
        while not entry[-1] and len(entry) > 1:
            entry.pop()
        models[variant.name]["variants"][variant.label] = entry
    return models


def decode(models: Mapping[str, Any]) -> Iterator[tuple[Variant, tuple[Row, ...]]]:
    """The reverse."""
    for name, entry in models.items():
        base: list[Row] = [row if isinstance(row, str) else tuple(row) for row in entry["rows"]]
        yield Variant(name=name, label=AS_RECORDED, less=frozenset(), more=()), tuple(base)
        for label, (differences, *rest) in entry["variants"].items():
            less: Any = rest[0] if rest else 0
            more: Any = rest[1] if len(rest) > 1 else archs.pack(scaled(name).more) if label == WITH_SCALES else ()
            variant = Variant(
                name=name,
                label=label,
                less=said_less(name, label) if less == 0 else frozenset(t.name for t in archs.unpack(less)),
                more=tuple(archs.unpack(more)),
            )
            many = differences if isinstance(differences, list) and len(differences) == len(WAYS) else None
            each = many or [differences] * LOADS + [0] * (len(WAYS) - LOADS)
            yield variant, tuple(_plus(d, of_base) for d, of_base in zip(each, base, strict=True))


def said_less(name: str, label: str) -> frozenset[str]:
    """The tensors that a label says are left out: of one kind, in all layers or in the last."""
    match = re.fullmatch(r"without (the last )?(\S+)", label)
    if match is None:
        return frozenset()
    names = [t.name for t in archs.records()[name].tensors if stem_of(t.name) == match[2]]
    return frozenset(names[-1:] if match[1] else names)


def _minus(row: Row, base: Row) -> Any:
    if row == base:
        return 0
    if isinstance(row, str) or isinstance(base, str):
        return row if isinstance(row, str) else list(row)
    difference = [a - b for a, b in zip(row, base, strict=True)]
    return difference if any(difference[1:]) else difference[0]


def _plus(difference: Any, base: Row) -> Row:
    if difference == 0:
        return base
    if isinstance(difference, str):
        return difference
    if isinstance(base, str):
        model, context, compute = difference
        return model, context, compute
    model, context, compute = difference if isinstance(difference, list) else (difference, 0, 0)
    return base[0] + model, base[1] + context, base[2] + compute


def by_stem(names: Iterable[str]) -> Mapping[str, list[str]]:
    """Names of tensors by what they have in common in all layers: "blk.N.attn_q.bias"."""
    stems: dict[str, list[str]] = {}
    for name in names:
        stems.setdefault(stem_of(name), []).append(name)
    return stems


def stem_of(name: str) -> str:
    """A tensor's name with N for its layer."""
    return re.sub(r"^((?:enc\.|dec\.)?blk|convnext|posnet)\.\d+\.", r"\1.N.", name)


def file_order(tensor: TensorSpec) -> tuple[int, int, str]:
    """Where a tensor stands: what is looked up first, then layers, the output last."""
    match = re.search(r"\.(\d+)\.", tensor.name)
    if match is None:
        return (2 if tensor.name.startswith("output") else 0, 0, tensor.name)
    return (1, int(match[1]), tensor.name)
