"""What types would llama-quantize give the tensors of this model, were it asked for that file type?

>>> from ggufphys.gguf.writer import TensorSpec
>>> model = quantize_model({"general.architecture": "llama", "llama.block_count": 2, "llama.attention.head_count": 4})
>>> choose_types(model, [TensorSpec("blk.1.attn_v.weight", (256, 256), GGMLType.F16)], "Q4_K_M")
[<GGMLType.Q6_K: 14>]

Source: llama.cpp 0c1e570 src/llama-quant.cpp, llama_model_quantize_impl, llama_tensor_get_type.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

from ggufphys.errors import GGUFError
from ggufphys.gguf.ggml_types import FILE_TYPES, SIZES, GGMLType
from ggufphys.gguf.values import GGUFArray
from ggufphys.plan.quantize_options import QuantizeOptions, parse_tensor_type
from ggufphys.plan.quantize_rules import LAYER, QuantizeModel, Subject, mix_type
from ggufphys.plan.quantize_tables import (
    ADDED_LAYERS,
    ALIASES,
    BASE_TYPES,
    COPY,
    FALLBACKS,
    KEPT_NAMES,
    KEPT_PARTS,
    KEPT_PARTS_OF,
    LOOPS_KEYS,
    ROLES_BY_NAME,
    ROLES_BY_PART,
    UNQUANTIZED,
    WITHOUT_LAYERS,
    Role,
)

__all__ = [
    "QuantizeModel",
    "QuantizeOptions",
    "check_conversions",
    "choose_types",
    "ftype_number",
    "needs_imatrix",
    "parse_file_type",
    "parse_tensor_type",
    "quantize_model",
    "quantized_order",
    "types_as_made",
]

_KEPT = re.compile("|".join(map(re.escape, KEPT_PARTS)))
_NUMBER: Final = re.compile(r"\s*([+-]?\d{1,9})")  # std::stoi reads a number, and nothing behind it
_FTYPES = {name: number for number, name in FILE_TYPES.items()}
_IMATRIX_TYPES = frozenset(
    {GGMLType.IQ1_S, GGMLType.IQ1_M, GGMLType.IQ2_XXS, GGMLType.IQ2_XS, GGMLType.IQ2_S, GGMLType.IQ3_XXS}
)


_WITHOUT_DEQUANTIZATION: Final = frozenset({GGMLType.Q8_1, GGMLType.Q8_K})
PER_LAYER_EMBD: Final = "per_layer_token_embd.weight"  # an embedding that --tensor-type may name
_DEFAULT: Final = QuantizeOptions()


class Tensor(Protocol):
    """What of a tensor decides: `TensorInfo` and `TensorSpec` both fit."""

    @property
    def name(self) -> str: ...
    @property
    def ne(self) -> tuple[int, ...]: ...
    @property
    def ggml_type(self) -> GGMLType | int: ...


def parse_file_type(text: str) -> str:
    """A file type by llama-quantize's name, in any case, aliases resolved (`q4_k` gives `Q4_K_M`), or by its number.

    >>> parse_file_type("15")
    'Q4_K_M'

    Raises:
        ValueError: llama-quantize knows no such file type; the message lists what it knows.
    """
    name = text.upper()
    name = ALIASES.get(name, name)
    if name in BASE_TYPES or name == COPY:
        return name
    number = _NUMBER.match(text)
    name = FILE_TYPES.get(int(number[1]), "") if number else ""
    if name not in BASE_TYPES:
        known = ", ".join((*BASE_TYPES, COPY))
        raise ValueError(f"no file type of llama-quantize: {text!r} (expected one of {known}, or its number)")
    return name


def ftype_number(file_type: str) -> int:
    """`general.file_type` of a file of this type."""
    return _FTYPES[file_type]


def quantize_model(metadata: Mapping[str, object]) -> QuantizeModel:
    """The hyperparameters that the choice depends on, from a GGUF file's metadata.

    Raises:
        GGUFError: the architecture or its block_count is missing, or one of the keys is not an integer.
    """
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str):
        raise GGUFError("general.architecture is missing: without it llama-quantize's choice of types is not defined")
    if architecture in WITHOUT_LAYERS:
        return QuantizeModel(architecture=architecture, n_layer_all=0, n_layer=0, n_expert=0, n_head=0, n_head_kv=0)

    def get(key: str, default: int | None) -> int:
        return _first_int(metadata, f"{architecture}.{key}", default)

    n_layer_all = get("block_count", None)
    n_layer = n_layer_all - get("nextn_predict_layers", 0)
    if architecture in ADDED_LAYERS:
        n_layer_all = n_layer + ADDED_LAYERS[architecture]
    n_loops = get(LOOPS_KEYS[architecture], 1) if architecture in LOOPS_KEYS else 1
    if n_loops > 1:
        n_layer_all = n_layer * n_loops
    n_head = get("attention.head_count", 0)
    return QuantizeModel(
        architecture=architecture,
        n_layer_all=n_layer_all,
        n_layer=n_layer,
        n_expert=get("expert_count", 0),
        n_head=n_head,
        n_head_kv=get("attention.head_count_kv", n_head),
    )


def choose_types(
    model: QuantizeModel, tensors: Sequence[Tensor], file_type: str, options: QuantizeOptions = _DEFAULT
) -> list[GGMLType]:
    """The type of each tensor in llama-quantize's output, in the order given.

    Tensors that it leaves alone keep the type they have. The mixes go by a tensor's place among its kind, counted in
    llama-quantize's own order, so the order given does not matter, but all tensors of the model must be there.

    Raises:
        ValueError: llama-quantize would refuse: a file type or a tensor's type that it does not know, a row that no
            fallback of the type fits, a model with experts whose FFN tensors do not name their layer, or a projector
            in a mix that looks at attention heads.
    """
    file_type = parse_file_type(file_type)
    if file_type == COPY:
        return list(map(_known_type, tensors))
    base = BASE_TYPES[file_type]
    roles = {t.name: role_of(t.name) for t in tensors}
    n_attn_v = sum(role is Role.ATTN_V for role in roles.values())
    tied = Role.OUTPUT not in roles.values()
    seen: Counter[Role] = Counter()
    chosen: dict[str, GGMLType] = {}
    for t in sorted(tensors, key=lambda t: order_key(t.name)):
        known = _known_type(t)
        role = roles[t.name]
        if not is_quantized(model.architecture, t, options):
            chosen[t.name] = known
        elif (asked := _asked_type(t, role, options)) is not None:
            chosen[t.name] = asked
        elif base in UNQUANTIZED:
            chosen[t.name] = base
        elif (named := options.named_type(t.name)) is not None or options.pure:
            chosen[t.name] = _fitting(t, base if named is None else named)
        else:
            subject = Subject(
                model=model, file_type=file_type, base=base, name=t.name, ne=t.ne, role=role, index=seen[role],
                n_attn_v=n_attn_v, tied=tied, options=options,
            )  # fmt: skip
            chosen[t.name] = _fitting(t, mix_type(subject))
            seen[role] += 1
    return [chosen[t.name] for t in tensors]


def types_as_made(
    model: QuantizeModel, tensors: Sequence[Tensor], file_type: str, options: QuantizeOptions = _DEFAULT
) -> tuple[list[GGMLType], bool]:
    """The types, with an importance matrix where llama-quantize insists on one, and whether it does.

    Raises:
        ValueError: see `choose_types`.
    """
    types = choose_types(model, tensors, file_type, options)
    insists = file_type != COPY and any(
        needs_imatrix(t.name, chosen, file_type) and is_quantized(model.architecture, t, options)
        for t, chosen in zip(tensors, types, strict=True)
    )
    if insists and not options.has_imatrix:
        types = choose_types(model, tensors, file_type, options.with_imatrix())
    return types, insists


def check_conversions(tensors: Sequence[Tensor], types: Sequence[GGMLType], options: QuantizeOptions) -> None:
    """Refuse what llama-quantize refuses while it converts; a tensor that keeps its type is copied, whatever it is.

    Raises:
        ValueError: naming the tensor.
    """
    for t, chosen in zip(tensors, types, strict=True):
        if t.ggml_type == chosen or not isinstance(t.ggml_type, GGMLType) or t.ggml_type in UNQUANTIZED:
            continue
        name = t.ggml_type.name
        if SIZES[t.ggml_type].block_size == 1 or t.ggml_type in _WITHOUT_DEQUANTIZATION:
            raise ValueError(f"llama-quantize refuses tensor {t.name!r}: it cannot convert from type {name}")
        if not options.allow_requantize:
            raise ValueError(
                f"llama-quantize refuses tensor {t.name!r}: requantizing from type {name.lower()} is disabled; take an "
                "F16, BF16 or F32 file, or ask with --allow-requantize"
            )


def needs_imatrix(name: str, ggml_type: GGMLType, file_type: str) -> bool:
    """Whether llama-quantize refuses to make this tensor this type without an importance matrix."""
    if name in ROLES_BY_NAME:
        return False
    return ggml_type in _IMATRIX_TYPES or (ggml_type is GGMLType.Q2_K and file_type == "Q2_K_S")


def is_quantized(architecture: str, tensor: Tensor, options: QuantizeOptions) -> bool:
    """Whether llama-quantize touches the tensor: weights of two or more dimensions, with exceptions by name."""
    name = tensor.name
    if all(n <= 1 for n in tensor.ne[1:]):
        return False
    if name.rfind("weight") != len(name) - len("weight"):
        return False
    if name in KEPT_NAMES or _KEPT.search(name):
        return False
    if options.leave_output_tensor and ROLES_BY_NAME.get(name) is Role.OUTPUT:
        return False
    return not any(part in name for part in KEPT_PARTS_OF.get(architecture, ()))


def role_of(name: str) -> Role:
    """What a tensor is for, by its name."""
    if name in ROLES_BY_NAME:
        return ROLES_BY_NAME[name]
    return next((role for part, role in ROLES_BY_PART if part in name), Role.OTHER)


def quantized_order(names: Iterable[str]) -> list[str]:
    """Tensor names in the order of llama-quantize's output: no layer first, then by layer, then by name.

    Source: llama.cpp 0c1e570 src/llama-model-loader.h, weight_name_comparer.
    """
    return sorted(names, key=order_key)


def order_key(name: str) -> tuple[int, str]:
    """A name's place in `quantized_order`."""
    match = LAYER.match(name)
    return (int(match[1]) if match else -1, name)


def _known_type(tensor: Tensor) -> GGMLType:
    if not isinstance(tensor.ggml_type, GGMLType):
        raise ValueError(f"llama.cpp refuses tensor {tensor.name!r}: it knows no type {tensor.ggml_type}")
    return tensor.ggml_type


def _asked_type(tensor: Tensor, role: Role, options: QuantizeOptions) -> GGMLType | None:
    """The type that an option of its own asks for the output matrix or an embedding; its rows must fit."""
    asked = None
    if role is Role.OUTPUT:
        asked = options.output_tensor_type
    elif role is Role.TOKEN_EMBD and (tensor.name != PER_LAYER_EMBD or options.named_type(tensor.name) is None):
        asked = options.token_embedding_type
    if asked is not None and tensor.ne[0] % SIZES[asked].block_size:
        raise ValueError(
            f"llama-quantize aborts at tensor {tensor.name!r}: its rows of {tensor.ne[0]} are no multiple of "
            f"{asked.name}'s block of {SIZES[asked].block_size}"
        )
    return asked


def _fitting(tensor: Tensor, ggml_type: GGMLType) -> GGMLType:
    """The type, or the one that replaces it where a row is no multiple of its block."""
    n_columns = tensor.ne[0]
    if n_columns % SIZES[ggml_type].block_size == 0:
        return ggml_type
    fallback = FALLBACKS.get(ggml_type)
    if fallback is None and SIZES[ggml_type].block_size > 32:
        raise ValueError(
            f"llama-quantize refuses tensor {tensor.name!r}: its rows of {n_columns} are no multiple of "
            f"{ggml_type.name}'s block of {SIZES[ggml_type].block_size}, and {ggml_type.name} has no fallback"
        )
    if fallback is None or n_columns % SIZES[fallback].block_size:
        return GGMLType.F16
    return fallback


def _first_int(metadata: Mapping[str, object], key: str, default: int | None) -> int:
    """An integer, or the first of an array of them (a value for each layer)."""
    value = metadata.get(key, default)
    if isinstance(value, GGUFArray | Sequence) and not isinstance(value, str) and len(value):
        value = value[0]
    if value is None:
        raise GGUFError(f"key {key!r} is missing: llama-quantize's choice of types depends on it")
    if not isinstance(value, int) or isinstance(value, bool):
        raise GGUFError(f"key {key!r} is {value!r}, expected an integer")
    return value
