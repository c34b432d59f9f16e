"""What does Vulkan hold in the process where the device is the processor itself? Shaders, beside the buffers.

The backend's library brings its shaders, and the driver keeps what it makes of each that is used, most of it for the
few large ones: products of matrices and attention. That follows from which operations there are, and not from how
large the model is. A driver whose cache on disk lacks them compiles them, which leaves more behind.

Error: measured on one driver, Mesa's lavapipe 22.3.6 with LLVM 15, as growth of RssAnon around each pipeline that
llama.cpp creates (docs/backends.md); others hold other amounts.

Source: llama.cpp 0c1e570 ggml/src/ggml-vulkan/ggml-vulkan.cpp, ggml_vk_load_shaders, ggml_vk_create_pipeline_func.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ggufphys.context import ContextParams
from ggufphys.gguf import TensorInfo
from ggufphys.gguf.ggml_types import SIZES, GGMLType
from ggufphys.graph.allocating.layout import Layouts
from ggufphys.graph.batch import reserved_batches
from ggufphys.graph.devices.backends.attends import ATTENTION
from ggufphys.graph.devices.placed import Buffer
from ggufphys.graph.devices.split import VIEWS
from ggufphys.memory.terms import Backing, Phase, Term

# What is made of an operation's shaders for prompts and for single tokens, KiB.
OPERATIONS: Final[Mapping[str, int]] = {
    "MUL_MAT": 11_088 + 5_524,
    "MUL_MAT_ID": 8_116 + 7_076,
    "ARGSORT": 4_148,
    "TOP_K": 4_148,
}
OTHER: Final = 250
# The same by the size of its heads, whose loops are unrolled: measured at two, a line between them and beyond.
ATTENTION_OF_HEADS: Final = (64, 11_852 + 7_316), (256, 21_772 + 14_512)
# A product with weights of one quantised type, the same.
QUANTISED: Final = 2_292 + 2_424
DEVICE: Final = 3_100  # the device, its threads
LIBRARY: Final = 8_600  # file-backed: shaders as they come, read when the device is opened
CODE: Final = 4_700  # file-backed: the driver's, as it comes to be used
# With nothing in the driver's cache, more.
COMPILED: Final = 49_000  # without flash attention
COMPILED_WITH_HEADS: Final = (64, 91_000), (256, 585_000)
COMPILER: Final = 12_000
_SOURCE: Final = "ggml/src/ggml-vulkan/ggml-vulkan.cpp, ggml_vk_create_pipeline_func"
_MEASURED: Final = "measured on lavapipe 22.3.6"


def driver_terms(
    layouts: Layouts,
    context: ContextParams,
    placed: Mapping[Buffer, Sequence[TensorInfo]],
    inside: frozenset[str],
    *,
    runs: bool,
) -> Iterator[Term]:
    """Terms of the process, for devices that are `inside` it; where the weights lie, `placed` says.

    A device that `runs` nothing is opened all the same.
    """
    yield _term("Vulkan: the device", DEVICE, _MEASURED, "weights", "anon")
    yield _term("Vulkan: shaders of the library", LIBRARY, _MEASURED, "weights", "file")
    if not runs:
        return
    graph = layouts.graph(context, reserved_batches(context)[0], layouts.samples((None,) * layouts.n_layer).built)
    ops = {node.op for node in graph.nodes} - VIEWS
    head = max((node.src[1].ne[0] for node in graph.nodes if node.op == ATTENTION), default=0)
    on_device = {t.ggml_type for buffer, ts in placed.items() if buffer.device in inside for t in ts}
    types = [t for t in on_device if isinstance(t, GGMLType) and SIZES[t].block_size > 1]
    large = {op: OPERATIONS[op] for op in ops if op in OPERATIONS}
    if head:
        large[ATTENTION] = _on_line(ATTENTION_OF_HEADS, head)
    n_other = len(ops) - len(large)
    kib = sum(large.values()) + n_other * OTHER + len(types) * QUANTISED
    compiled = (_on_line(COMPILED_WITH_HEADS, head) if head else COMPILED) + COMPILER
    formula = f"{', '.join(sorted(large))}; {n_other} other operations, {len(types)} quantised types: {_MEASURED}"
    yield _term("Vulkan: shaders as the driver keeps them", kib, formula, "prefill", "anon")
    yield _term("Vulkan: the driver's code", CODE, _MEASURED, "prefill", "file")
    yield Term(
        quantity="ceiling", name="Vulkan: shaders that the driver's cache lacks", nbytes=compiled << 10,
        buffer="", formula=f"what compiling them leaves, {COMPILER:,} KiB of it code: {_MEASURED}", source=_SOURCE,
    )  # fmt: skip


def _on_line(points: tuple[tuple[int, int], tuple[int, int]], head: int) -> int:
    """KiB for heads of a size, on a line through what two sizes take; smaller ones as much as the smaller of these."""
    (small, least), (large, most) = points
    return least + max(head - small, 0) * (most - least) // (large - small)


def _term(name: str, kib: int, formula: str, phase: Phase, backing: Backing) -> Term:
    return Term(
        quantity="process", name=name, nbytes=kib << 10, buffer="", formula=formula, source=_SOURCE, backing=backing,
        phase=phase,
    )  # fmt: skip
