"""Random single changes of a model's header: a value, a key's type, a key less, a tensor, a token.

What a change is depends on the generator that is given alone, so that a seed names it.
"""

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final

from ggufphys.gguf import GGMLType, GGUFArray, GGUFFile, open_gguf
from ggufphys.gguf.ggml_types import SIZES
from ggufphys.gguf.values import Scalar, ValueType
from ggufphys.gguf.writer import TensorSpec, Typed, data_bytes, encode_header
from ggufphys.loads.hparams import WANTED
from ggufphys.loads.table import EVERY, GLOBAL, Branch, Read, statements

INTEGERS: Final = {
    ValueType.UINT8: (0, 255), ValueType.INT8: (-128, 127), ValueType.UINT16: (0, 65535),
    ValueType.INT16: (-32768, 32767), ValueType.UINT32: (0, (1 << 32) - 1),
    ValueType.INT32: (-(1 << 31), (1 << 31) - 1),
    ValueType.UINT64: (0, (1 << 64) - 1), ValueType.INT64: (-(1 << 63), (1 << 63) - 1),
}  # fmt: skip
FLOATS: Final = (ValueType.FLOAT32, ValueType.FLOAT64)


@dataclass(frozen=True, slots=True)
class Draft:
    """A header as it will be written."""

    name: str
    metadata: Mapping[str, Typed]
    tensors: tuple[TensorSpec, ...]

    def write(self, path: Path) -> None:
        """The file at its full length, with a hole for weights."""
        header = encode_header(self.metadata, self.tensors)
        with path.open("wb") as file:
            file.write(header)
            file.truncate(len(header) + data_bytes(self.tensors))


@dataclass(frozen=True, slots=True)
class Change:
    """`kind` of change, `what` was changed in words, and the header after it."""

    kind: str
    what: str
    draft: Draft


def draft_of(gguf: GGUFFile, name: str) -> Draft:
    """The header as it is; tensors of unknown types are left out."""
    metadata = {}
    for key, value in gguf.metadata.items():
        is_array = isinstance(value, GGUFArray)
        metadata[key] = Typed(tuple(value), value.element_type) if is_array else Typed(value, gguf.value_types[key])  # type: ignore[union-attr, arg-type]
    return Draft(
        name,
        metadata,
        tuple(TensorSpec(t.name, t.ne, t.ggml_type) for t in gguf.tensors if isinstance(t.ggml_type, GGMLType)),
    )


def read_draft(path: Path) -> Draft:
    """The header of a file."""
    with open_gguf(path) as gguf:
        return draft_of(gguf, path.stem)


def random_change(draft: Draft, rng: random.Random) -> Change:
    """One change of one kind, all kinds alike often."""
    while True:
        kind = rng.choice(tuple(KINDS))
        found = KINDS[kind](draft, rng)
        if found is not None and found[1] != draft:
            return Change(kind, *found)


Found = tuple[str, Draft] | None


def _value(draft: Draft, rng: random.Random) -> Found:
    key = rng.choice([key for key in draft.metadata if key not in TOKENIZER_LISTS])
    old = draft.metadata[key]
    if isinstance(old.value, tuple):
        new = _other_array(old, rng)
    else:
        new = Typed(_other_scalar(old.value, old.value_type, rng), old.value_type)
    return f"{key}: {_short(old)} -> {_short(new)}", _with_key(draft, key, new)


def _type(draft: Draft, rng: random.Random) -> Found:
    key = rng.choice(list(draft.metadata))
    old = draft.metadata[key]
    kinds = [kind for kind in ValueType if kind not in (ValueType.ARRAY, old.value_type)]
    kind = rng.choice(kinds)
    if isinstance(old.value, tuple) and rng.random() < 0.5:
        new = Typed(_cast(old.value[0] if old.value else 0, old.value_type), old.value_type)  # an array no longer
    elif isinstance(old.value, tuple):
        new = Typed(tuple(_cast(value, kind) for value in old.value), kind)
    elif rng.random() < 0.2:
        new = Typed((_cast(old.value, old.value_type),) * rng.choice((1, 2, 3, 4)), old.value_type)  # now an array
    else:
        new = Typed(_cast(old.value, kind), kind)
    return f"{key}: {_short(old)} -> {_short(new)}", _with_key(draft, key, new)


def _key_more(draft: Draft, rng: random.Random) -> Found:
    """A key that the architecture's loader reads, with an odd value for one or for each layer."""
    arch = str(draft.metadata["general.architecture"].value)
    read = rng.choice(_reads(arch))
    key = read.key if read.key.startswith(GLOBAL) else f"{arch}.{read.key}"
    kind = WANTED.get(re.split(r"[*\[]", read.how)[0], ValueType.STRING)
    if "[" in read.how or ("*" in read.how and rng.random() < 0.5):
        new = Typed(tuple(_odd(kind, rng) for _ in range(rng.randint(1, 5))), kind)
    else:
        new = Typed(_odd(kind, rng), kind)
    return f"{key}: -> {_short(new)}", _with_key(draft, key, new)


@cache
def _reads(arch: str) -> tuple[Read, ...]:
    """All keys that are read for the architecture, whatever else the file says."""
    lines, found = [*statements(EVERY), *statements(arch)], list[Read]()
    for line in lines:
        if isinstance(line, Branch):
            lines += (*line.then, *line.otherwise)
        elif isinstance(line, Read) and line.how != "count":
            found.append(line)
    return tuple(found)


def _odd(kind: ValueType, rng: random.Random) -> int | float | bool | str:
    """A value of the type that no model has, or some have."""
    old = {ValueType.BOOL: rng.random() < 0.5, ValueType.STRING: "none"}.get(kind, 16)
    return _other_scalar(old, kind, rng)


def _key_less(draft: Draft, rng: random.Random) -> Found:
    key = rng.choice(list(draft.metadata))
    rest = {name: value for name, value in draft.metadata.items() if name != key}
    return key, replace(draft, metadata=rest)


def _tensor_less(draft: Draft, rng: random.Random) -> Found:
    tensor = rng.choice(draft.tensors)
    return tensor.name, replace(draft, tensors=tuple(t for t in draft.tensors if t is not tensor))


def _tensor_more(draft: Draft, rng: random.Random) -> Found:
    tensor = rng.choice(draft.tensors)
    name = rng.choice(
        (
            "extra.weight", tensor.name.replace("weight", "bias"), f"{tensor.name}.extra", "blk.99.attn_q.weight",
            tensor.name.replace("weight", "scale"), "output.weight", "rope_freqs.weight", "blk.0.attn_q.bias",
            "blk.0.attn_q_norm.weight", "blk.0.ffn_up.bias", "output_norm.bias", "blk.1.attn_output.bias",
        )
    )  # fmt: skip
    if any(t.name == name for t in draft.tensors):
        return None
    ne = (tensor.ne[-1],) if name.endswith("bias") else (1,) if name.endswith("scale") else tensor.ne
    more = TensorSpec(name, ne, GGMLType.F32)
    return f"{name} {ne}", replace(draft, tensors=(*draft.tensors, more))


def _tensor_shape(draft: Draft, rng: random.Random) -> Found:
    tensor = rng.choice(draft.tensors)
    ne = list(tensor.ne)
    axis = rng.randrange(len(ne))
    step = SIZES[tensor.ggml_type].block_size if axis == 0 else 1
    way = rng.choice(("more", "less", "double", "half", "swap", "flat", "deep"))
    if way == "more":
        ne[axis] += step
    elif way == "less" and ne[axis] > step:
        ne[axis] -= step
    elif way == "double":
        ne[axis] *= 2
    elif way == "half" and ne[axis] % (2 * step) == 0:
        ne[axis] //= 2
    elif way == "swap":
        ne.reverse()
    elif way == "flat":
        ne = [tensor.n_elements]
    elif way == "deep" and len(ne) < 4:
        ne.append(rng.choice((1, 1, 2)))
    if tuple(ne) == tensor.ne or ne[0] % SIZES[tensor.ggml_type].block_size:
        return None
    return f"{tensor.name} {tensor.ne} -> {tuple(ne)}", _with_tensor(draft, tensor, replace(tensor, ne=tuple(ne)))


def _tensor_type(draft: Draft, rng: random.Random) -> Found:
    tensor = rng.choice(draft.tensors)
    kind = rng.choice([k for k, size in SIZES.items() if tensor.ne[0] % size.block_size == 0])
    return f"{tensor.name} {tensor.ggml_type.name} -> {kind.name}", _with_tensor(
        draft, tensor, replace(tensor, ggml_type=kind)
    )


TOKENIZER_LISTS: Final = (
    "tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type", "tokenizer.ggml.merges",
)  # fmt: skip


def _vocabulary(draft: Draft, rng: random.Random) -> Found:
    keys = [key for key in draft.metadata if key.startswith("tokenizer.")]
    key = rng.choice(keys)
    old = draft.metadata[key]
    names: tuple[str, ...]
    if key == "tokenizer.ggml.model":
        names = ("llama", "gpt2", "bert", "t5", "rwkv", "plamo2", "no_vocab", "none", "test", "gemma4", "LLAMA", "")
        new = Typed(rng.choice(names), ValueType.STRING)
    elif key == "tokenizer.ggml.pre":
        names = ("default", "llama-bpe", "llama3", "qwen2", "deepseek-r1-qwen", "gpt-2", "smollm", "nonesuch", "")
        new = Typed(rng.choice(names), ValueType.STRING)
    elif isinstance(old.value, tuple):
        new = _other_list(old, rng)
    else:
        return None
    return f"{key}: {_short(old)} -> {_short(new)}", _with_key(draft, key, new)


def _special(draft: Draft, rng: random.Random) -> Found:
    """A token's id, a flag or the pre-tokenizer's name, which the model may not have had."""
    name = rng.choice(
        ("bos_token_id", "eos_token_id", "unknown_token_id", "padding_token_id", "eot_token_id", "fim_pre_token_id",
         "add_bos_token", "add_eos_token", "add_space_prefix", "pre", "token_type_count", "mask_token_id",
         "seperator_token_id", "precompiled_charsmap", "suppress_tokens")
    )  # fmt: skip
    number = rng.choice((0, 1, 2, 5, 299, 300, 100000, (1 << 32) - 1))
    new = rng.choice(
        (Typed(number, ValueType.UINT32), Typed(number & 0x7FFFFFFF, ValueType.INT32), Typed(True, ValueType.BOOL),
         Typed("llama-bpe", ValueType.STRING), Typed("nonesuch", ValueType.STRING), Typed((1, 2), ValueType.INT32))
    )  # fmt: skip
    key = f"tokenizer.ggml.{name}"
    return f"{key}: -> {_short(new)}", _with_key(draft, key, new)


KINDS: Final[Mapping[str, Callable[[Draft, random.Random], Found]]] = {
    "value": _value,
    "type": _type,
    "key more": _key_more,
    "key less": _key_less,
    "tensor less": _tensor_less,
    "tensor more": _tensor_more,
    "tensor shape": _tensor_shape,
    "tensor type": _tensor_type,
    "vocabulary": _vocabulary,
    "special": _special,
}


def _other_scalar(value: object, kind: ValueType, rng: random.Random) -> int | float | bool | str:
    if kind is ValueType.BOOL:
        return not value
    if isinstance(value, str):
        return rng.choice(("", "nonesuch", value + "x", value.upper(), "linear", "yarn", "none", "longrope", "gelu"))
    if kind in FLOATS:
        assert isinstance(value, int | float)
        return rng.choice((0.0, -1.0, 1.0, 1e-6, value * 2, float("nan"), float("inf"), 1e30))
    assert isinstance(value, int)
    new = rng.choice(
        (0, 1, 2, 3, value + 1, value - 1, value * 2, value // 2, value + 8, 7, 64, 100, 1000, 65536, 1 << 20, 1 << 31,
         (1 << 32) - 1)
    )  # fmt: skip
    low, high = INTEGERS[kind]
    return min(max(new, low), high)


def _other_array(old: Typed, rng: random.Random) -> Typed:
    assert isinstance(old.value, tuple)
    values = list(old.value)
    way = rng.choice(("longer", "shorter", "empty", "element", "element"))
    if way == "longer":
        values.append(values[-1] if values else _cast(0, old.value_type))
    elif way == "shorter" and values:
        values.pop()
    elif way == "empty":
        values = []
    elif values:
        at = rng.randrange(len(values))
        values[at] = _other_scalar(values[at], old.value_type, rng)
    return Typed(tuple(values), old.value_type)


def _other_list(old: Typed, rng: random.Random) -> Typed:
    """A list of the vocabulary: an entry more, less, twice, odd, or none at all."""
    assert isinstance(old.value, tuple)
    values = list(old.value)
    way = rng.choice(("more", "less", "twice", "odd", "none", "half"))
    if way == "more":
        values.append(values[-1] if values else _cast(0, old.value_type))
    elif way == "less" and values:
        values.pop(rng.randrange(len(values)))
    elif way == "twice" and len(values) > 1:
        a, b = rng.sample(range(len(values)), 2)
        values[a] = values[b]
    elif way == "odd" and values:
        words = ("", "a b", "nospace", "<unk>", "é", "a  b c")
        odd: dict[ValueType, Scalar] = {ValueType.STRING: rng.choice(words), ValueType.FLOAT32: float("nan")}
        values[rng.randrange(len(values))] = odd.get(old.value_type, 99)
    elif way == "none":
        values = []
    elif way == "half":
        values = values[: len(values) // 2]
    return Typed(tuple(values), old.value_type)


def _cast(value: object, kind: ValueType) -> int | float | bool | str:
    """The value as near to itself as the type allows."""
    if kind is ValueType.STRING:
        return str(value)
    if kind is ValueType.BOOL:
        return bool(value)
    number = float(len(value)) if isinstance(value, str) else float(value)  # type: ignore[arg-type]
    if kind in FLOATS:
        return number
    low, high = INTEGERS[kind]
    whole = int(number) if abs(number) < 1e30 else 0
    return min(max(whole, low), high)


def _with_key(draft: Draft, key: str, new: Typed) -> Draft:
    return replace(draft, metadata={**draft.metadata, key: new})


def _with_tensor(draft: Draft, old: TensorSpec, new: TensorSpec) -> Draft:
    return replace(draft, tensors=tuple(new if t is old else t for t in draft.tensors))


def _short(typed: Typed) -> str:
    kind = typed.value_type.name.lower()
    if isinstance(typed.value, tuple):
        return f"{kind}[{len(typed.value)}]{list(typed.value[:4])}"
    return f"{kind} {typed.value!r}"
