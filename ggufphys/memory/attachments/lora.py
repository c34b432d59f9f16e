"""How many bytes does a LoRA adapter take beside the model, and which weights does it change?

An adapter holds two narrow matrices for each weight it changes, `a` and `b`: llama.cpp adds `b (a x)` to the weight's
product with x. The pair is read into a buffer of the kind that the weight lies in; what the CPU keeps repacked has its
pair in plain main memory. An activated LoRA (aLoRA) takes the same bytes; only the moment it applies differs.

Source: llama.cpp 0c1e570 src/llama-adapter.cpp, llama_adapter_lora_init_impl.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from ggufphys.arch.roles import embedding_is_output
from ggufphys.errors import GGUFError
from ggufphys.frozen import dataclass
from ggufphys.gguf import GGMLType, GGUFFile, TensorInfo
from ggufphys.graph.devices.placed import Buffer
from ggufphys.loads.attached import require_attached
from ggufphys.memory.terms import Term
from ggufphys.params import CPU_BUFFER, HOST

ON_CPU: Final = Buffer(HOST, CPU_BUFFER)
CPU_LAYOUTS: Final = frozenset({"CPU_REPACK", "AMX"})  # the CPU backend's extra buffer types
# Types that ggml's CPU code multiplies nothing by. Source: ggml/src/ggml-cpu/ggml-cpu.c, type_traits_cpu.
_NO_PRODUCT: Final = frozenset({
    GGMLType.I8, GGMLType.I16, GGMLType.I32, GGMLType.I64, GGMLType.F64, GGMLType.Q8_1, GGMLType.Q8_K,
})  # fmt: skip
_SKIPPED: Final = "_norm.weight"  # whole norms in an adapter are not applied, and not loaded
_EXPERTS: Final = "_exps."
_TOKEN_EMBD: Final = "token_embd.weight"


@dataclass(frozen=True, slots=True)
class LoraPair:
    """The two matrices for one weight, by the weight's name."""

    name: str
    a: TensorInfo
    b: TensorInfo


def lora_pairs(adapter: GGUFFile) -> tuple[LoraPair, ...]:
    """The pairs of an adapter file, by name.

    Raises:
        ValueError: the file is no LoRA adapter.
        GGUFError: llama.cpp does not read it; a tensor belongs to no pair, or half of a pair is missing.
    """
    require_attached(adapter)
    kind = adapter.get_str("adapter.type", "")
    if adapter.kind != "adapter" or adapter.get_str("general.type", "") != "adapter":
        raise ValueError(f"{adapter.location}: a GGUF of kind {adapter.kind!r}, expected a LoRA adapter")
    if kind != "lora":
        raise ValueError(f"{adapter.location}: adapter.type is {kind!r}, llama.cpp loads 'lora' alone")
    halves: dict[str, dict[str, TensorInfo]] = {}
    for tensor in adapter.tensors:
        stem, _, half = tensor.name.rpartition(".lora_")
        if half in ("a", "b") and stem:
            halves.setdefault(stem, {})[half] = tensor
        elif not tensor.name.endswith(_SKIPPED):
            raise GGUFError(
                f"{adapter.location}: tensor {tensor.name!r} ends neither in .lora_a nor in .lora_b, which llama.cpp "
                "refuses"
            )
    for name, pair in halves.items():
        if len(pair) < 2:
            missing = "b" if "a" in pair else "a"
            raise GGUFError(f"{adapter.location}: {name}.lora_{missing} is missing, its other half is there")
    return tuple(LoraPair(name, pair["a"], pair["b"]) for name, pair in sorted(halves.items()))


def adapters_of(files: Iterable[GGUFFile]) -> dict[str, list[tuple[TensorInfo, TensorInfo]]]:
    """The pairs of several adapter files by the weight they change, as graphs want them."""
    by_weight: dict[str, list[tuple[TensorInfo, TensorInfo]]] = {}
    for file in files:
        for pair in lora_pairs(file):
            by_weight.setdefault(pair.name, []).append((pair.a, pair.b))
    return by_weight


def check_pairs(adapter: GGUFFile, pairs: Sequence[LoraPair], base: GGUFFile) -> None:
    """Refuse an adapter that does not belong to the model.

    Raises:
        ValueError: another architecture, a weight that the model lacks, or a shape or type that does not fit it.
    """
    if len({adapter.architecture, base.architecture}) > 1:
        raise ValueError(
            f"{adapter.location} is an adapter for {adapter.architecture!r}, but the model is {base.architecture!r}: "
            "llama.cpp refuses it"
        )
    for pair in pairs:
        weight = base.tensors_by_name.get(pair.name)
        if weight is None:
            raise ValueError(
                f"{adapter.location} changes {pair.name}, which the model has not: another model's adapter"
            )
        if pair.name == _TOKEN_EMBD and embedding_is_output(base):
            raise ValueError(
                f"{adapter.location} changes {_TOKEN_EMBD}, which is {base.path.name}'s output matrix too: llama.cpp "
                "ends there, since the pair is made for looking up"
            )
        shape, a, b = (tuple((*t.ne, 1, 1))[:2] for t in (weight, pair.a, pair.b))
        lookup = shape == (b[1], a[1])  # a has a row for each token, b is not transposed
        product = shape == (a[0], b[1]) and a[1] == b[0]
        fits = lookup if pair.name.endswith(_TOKEN_EMBD) else product
        if not fits:
            raise ValueError(
                f"{adapter.location}: {pair.name} has shape {pair.a.ne} x {pair.b.ne}, which does not fit the model's "
                f"{weight.ne}"
            )
        for half in (pair.a, pair.b):
            _check_half(adapter, half, weight)


def _check_half(adapter: GGUFFile, half: TensorInfo, weight: TensorInfo) -> None:
    """Refuse what llama.cpp loads, and ends of when a token is computed."""
    n_experts = (*weight.ne, 1, 1)[2]
    if half.ggml_type in _NO_PRODUCT:
        raise ValueError(
            f"{adapter.location}: {half.name} is {half.type_name}, which ggml does not multiply by: llama.cpp would end"
        )
    if _EXPERTS in weight.name and (*half.ne, 1, 1)[2] < n_experts:
        raise ValueError(
            f"{adapter.location}: {half.name} of shape {half.ne} lacks experts, expected {n_experts} as {weight.name} "
            "has: llama.cpp would end"
        )


def lora_terms(
    adapter: GGUFFile, base: GGUFFile | None = None, weights: Mapping[Buffer, Sequence[TensorInfo]] | None = None
) -> tuple[Term, ...]:
    """Terms of attachment_bytes, one for each buffer.

    `weights` says in which buffers the model's weights lie (`place_weights`); without a model all is on the CPU.

    Raises:
        GGUFError, ValueError, UnsupportedError: see `lora_pairs`, `check_pairs` and `GGUFFile.require_sizes`.
    """
    pairs = lora_pairs(adapter)
    if base is not None:
        check_pairs(adapter, pairs, base)
    homes = _homes(weights or {})
    if unread := next((pair.name for pair in pairs if homes and pair.name not in homes), None):
        raise ValueError(
            f"{adapter.location} changes {unread}, which llama.cpp does not load of this model unless it is asked for "
            "its prediction head, if at all: it refuses the adapter"
        )
    buffers: dict[Buffer, list[TensorInfo]] = {}
    for pair in pairs:
        adapter.require_sizes((pair.a, pair.b))
        buffers.setdefault(homes.get(pair.name, ON_CPU), []).extend((pair.a, pair.b))
    return tuple(
        Term(
            quantity="attachment",
            name=f"LoRA {adapter.path.stem}",
            nbytes=sum(buffer.backend.tensor_bytes(t.nbytes or 0, t.ggml_type, (*t.ne, 1)[0]) for t in tensors),
            buffer=buffer.name,
            formula=f"{len(tensors) // 2} pairs of matrices, each padded to {buffer.backend.alignment}",
            source="src/llama-adapter.cpp, llama_adapter_lora_init_impl",
            device=buffer.device,
        )
        for buffer, tensors in buffers.items()
    )


def _homes(weights: Mapping[Buffer, Sequence[TensorInfo]]) -> dict[str, Buffer]:
    """The buffer that each weight's pair goes to; of a weight in two buffers, llama.cpp finds the first by name."""
    homes: dict[str, Buffer] = {}
    for buffer in sorted(weights, key=lambda b: b.name):
        home = ON_CPU if buffer.name in CPU_LAYOUTS else buffer
        for tensor in weights[buffer]:
            homes.setdefault(tensor.name, home)
    return homes
