"""Dataclasses to text tables; no arithmetic but rounding for the reader's eye. As JSON: `inspection_json.py`."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from ggufphys.builds import LATEST
from ggufphys.frozen import dataclass
from ggufphys.gguf import GGMLType, GGUFFile
from ggufphys.loads import Refusal
from ggufphys.memory.prediction import MemoryPrediction
from ggufphys.memory.terms import Quantity, Term
from ggufphys.params import HOST, Params, RunAs
from ggufphys.units import counted, format_bytes, format_count, format_mib, in_a_line

if TYPE_CHECKING:
    from ggufphys.plan.fits import Fit

SCHEMA_VERSION: Final = 1
HEADINGS: Final[dict[RunAs, str]] = {"server": "for llama-server", "library": "for a call of the library"}
_QUANTITIES: Final[tuple[Quantity, ...]] = ("model", "context", "compute", "output", "attachment")


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """The answer to a further question about a model: lines of text, and what stands under `key` in the document."""

    key: str
    lines: tuple[str, ...]
    value: object


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What `inspect` found out: the file, memory as far as it is known, further answers, whether it fits if asked.

    `refusals` say why llama.cpp would not load it, unless even that `is_unknown`; `weights` are all that is known of a
    model without a rule, `attachment` what a file that is no model takes.
    """

    gguf: GGUFFile
    params: Params | None = None
    prediction: MemoryPrediction | None = None
    weights: Sequence[Term] = ()
    attachment: Sequence[Term] = ()
    fits: "Sequence[Fit]" = ()
    notes: Sequence[str] = ()
    sections: Sequence[Section] = ()
    refusals: Sequence[Refusal] = ()
    is_unknown: bool = False

    @property
    def all_notes(self) -> tuple[str, ...]:
        """The file's, those given, the prediction's."""
        return (*self.gguf.notes, *self.notes, *(self.prediction.notes if self.prediction is not None else ()))


def inspect_text(found: Inspection) -> str:
    """The report of `inspect`."""
    lines = [*model_lines(found.gguf)]
    if found.refusals:
        from ggufphys.report.loads import refusal_lines, types_line  # what few files need

        lines += [types_line(found.gguf), "", *refusal_lines(found.refusals)]
    if found.prediction is not None and found.params is not None:
        lines += ["", *_memory_lines(found.gguf, found.prediction, found.params)]
    elif found.weights:
        rows = [(term.name, format_mib(term.nbytes), "exact", term.buffer) for term in found.weights]
        rows.append(("context, compute, process", "?", "refused" if found.refusals else "no rule yet", ""))
        lines += ["", *table(("memory", "MiB", "basis", "buffer"), rows, right=(1,))]
    elif found.attachment:
        beside = [(t.name, format_mib(t.nbytes), t.buffer) for t in found.attachment if t.quantity == "attachment"]
        lines += ["", *table(("memory beside a model", "MiB", "buffer"), beside, right=(1,))]
        lines += _ceiling_lines(found.attachment)
    for section in found.sections:
        lines += ["", *section.lines]
    if found.all_notes:
        lines += ["", *(f"note: {text}" for text in found.all_notes)]
    if found.fits:
        lines += ["", *map(fit_line, found.fits)]
    return "\n".join(lines)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> list[str]:
    """Lines of a text table: columns as wide as their widest cell, `right` ones aligned to the right."""
    cells = [tuple(header), *(tuple(map(in_a_line, row)) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    aligned = [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return [aligned[0], "  ".join("-" * width for width in widths).rstrip(), *aligned[1:]]


def dumps(document: object) -> str:
    """The document as indented JSON."""
    import json  # 4 ms that the text report does not need

    return json.dumps(document, indent=1, ensure_ascii=False)


def model_lines(gguf: GGUFFile) -> list[str]:
    """What the file is: its name and kind, its size."""
    kind = "" if gguf.kind == "model" else f", {gguf.kind}"
    architecture = gguf.architecture or "no architecture"
    shards = f" in {len(gguf.shards)} shards" if len(gguf.shards) > 1 else ""
    line = in_a_line(f"{gguf.name}: {architecture}{kind}{f', {gguf.file_type}' if gguf.file_type else ''}")
    place = "on its server" if gguf.url else "on disk"
    tensors = counted(len(gguf.tensors), "tensor")
    if not gguf.tensors:
        return [line, f"no tensors, {format_bytes(gguf.file_bytes)} {place}{shards}"]
    return [
        line,
        f"{format_count(gguf.n_params)} parameters in {tensors}, {gguf.bpw:.2f} bits a weight, "
        f"{format_bytes(gguf.file_bytes)} {place}{shards}",
        *_type_lines(gguf),
    ]


def _type_lines(gguf: GGUFFile) -> list[str]:
    """What a label hides: the types by their share of bytes; nothing where there is one type and its norms."""
    nbytes = type_bytes(gguf)
    shares = [(name, round(100 * n / gguf.tensor_bytes)) for name, n in nbytes.items() if gguf.tensor_bytes]
    shown = [f"{share} % {name}" for name, share in shares if share]
    return [f"by bytes: {', '.join(shown)}"] if len(shown) > 1 else []


def type_bytes(gguf: GGUFFile) -> dict[str, int]:
    """Bytes of the tensors of each type that is known, the most first."""
    found: Counter[str] = Counter()
    for tensor in gguf.tensors:
        if isinstance(tensor.ggml_type, GGMLType):
            found[tensor.ggml_type.name] += tensor.nbytes or 0
    return dict(found.most_common())


def run_lines(gguf: GGUFFile, prediction: MemoryPrediction, params: Params) -> list[str]:
    """How it is run: as what, how long, in which batches; with devices, what goes there."""
    c = prediction.context
    what = "slot" if params.run_as == "server" else "sequence"
    sequences = f"{c.n_seq_max} {what}{'s' if c.n_seq_max > 1 else ''}"
    if c.n_seq_max > 1:
        sequences += " sharing one cache" if c.kv_unified else f" of {c.n_ctx_seq:,}"
    newest = " (newest recorded)" if params.llama_build == LATEST else ""
    lines = [
        f"{HEADINGS[params.run_as]}, llama.cpp b{params.llama_build}{newest}: "
        f"n_ctx {c.n_ctx:,}{_unasked(gguf, prediction, params)}, {sequences}",
        f"n_batch {c.n_batch:,}, n_ubatch {c.n_ubatch:,}, cache K {c.type_k.name.lower()}, V {c.type_v.name.lower()}, "
        f"flash attention {params.flash_attn}",
    ]
    return [*lines, _offload_line(params)] if len(prediction.devices) > 1 else lines


def _memory_lines(gguf: GGUFFile, prediction: MemoryPrediction, params: Params) -> list[str]:
    head = run_lines(gguf, prediction, params)
    if len(prediction.devices) > 1:
        return [*head, "", *_device_table(prediction), *_ceiling_lines(prediction.ceilings)]
    rows: list[tuple[str, str, str, str]] = [
        (term.name, format_mib(term.nbytes), prediction.basis[quantity], term.buffer)
        for quantity in _QUANTITIES
        for term in prediction.terms
        if term.quantity == quantity
    ]
    rows.append(("llama.cpp's buffers", format_mib(prediction.total_bytes), "", ""))
    process = (format_mib(prediction.process_bytes), prediction.basis["process"], "Python and the library")
    rows.append(("process, resident", *process))
    rows.extend((f"  {name}", format_mib(nbytes), "", "") for name, nbytes in _process_parts(prediction))
    lines = table(("memory", "MiB", "basis", "buffer"), rows, right=(1,))
    return [*head, "", *lines, *_ceiling_lines(prediction.ceilings)]


def _unasked(gguf: GGUFFile, prediction: MemoryPrediction, params: Params) -> str:
    """Why a context is as long as it is, when nobody said."""
    if params.n_ctx:
        return ""
    n_ctx_train = gguf.get_int(f"{gguf.architecture}.context_length", 0)
    if prediction.context.n_ctx < n_ctx_train * params.n_stream_fitted:
        return " (shortened by --fit)"
    return " (as trained, for each slot)" if params.n_stream_fitted > 1 else " (as trained)"


def _process_parts(prediction: MemoryPrediction) -> Iterator[tuple[str, int]]:
    """Of which kind the process's memory is, and the most it holds while the model loads."""
    process = prediction.process
    yield "file-backed", process.file_bytes
    yield "anonymous", process.anon_bytes
    if process.locked_bytes:
        yield "of both, locked", process.locked_bytes
    yield "while loading, at most", process.phase("weights").peak_bytes


def _ceiling_lines(terms: Iterable[Term]) -> list[str]:
    """What may be taken later, one line each; nothing when there is nothing."""
    rows = [(term.name, format_mib(term.nbytes), term.device) for term in terms if term.quantity == "ceiling"]
    return ["", *table(("later, not counted above", "up to MiB", "on"), rows, right=(1,))] if rows else []


def _offload_line(params: Params) -> str:
    layers = "all layers" if params.n_gpu_layers < 0 else f"up to {params.n_gpu_layers} layers"
    split = f", tensor split {'/'.join(f'{share:g}' for share in params.tensor_split)}" if params.tensor_split else ""
    kv = "" if params.offload_kqv else ", KV cache on the host"
    experts = f", experts of {params.n_cpu_moe} layers on the CPU" if params.n_cpu_moe else ""
    overrides = f", {len(params.override_tensor)} tensor overrides" if params.override_tensor else ""
    return f"{layers} offloaded, split mode {params.split_mode}{split}{kv}{experts}{overrides}"


def _device_table(prediction: MemoryPrediction) -> list[str]:
    """MiB by term and device; what is free on a device stands below what it will hold."""
    devices = prediction.devices
    rows: dict[tuple[Quantity, str], dict[str, int]] = {}
    for quantity in _QUANTITIES:
        for term in prediction.terms:
            if term.quantity == quantity:
                row = rows.setdefault((quantity, term.name), {})
                row[term.device] = row.get(term.device, 0) + term.nbytes
    lines = [
        (name, *(_mib_or_dash(row.get(device.name)) for device in devices), prediction.basis[quantity])
        for (quantity, name), row in rows.items()
    ]
    lines.append(("llama.cpp's buffers", *(format_mib(device.total_bytes) for device in devices), ""))
    if any(device.memory_bytes for device in devices):
        lines.append(("free", *(_mib_or_dash(device.memory_bytes) for device in devices), ""))
    process = format_mib(prediction.process_bytes)
    lines.append(("process, resident", process, *("-" for _ in devices[1:]), prediction.basis["process"]))
    parts = _process_parts(prediction)
    lines.extend((f"  {name}", format_mib(nbytes), *("-" for _ in devices[1:]), "") for name, nbytes in parts)
    header = ("memory, MiB", *(device.name for device in devices), "basis")
    return table(header, lines, right=tuple(range(1, len(devices) + 1)))


def _mib_or_dash(nbytes: int | None) -> str:
    return "-" if nbytes is None else format_mib(nbytes)


def fit_line(fit: "Fit") -> str:
    """Whether it fits there, with what is left or too much."""
    name = "the process" if fit.name == HOST else fit.name
    return (
        f"{'fits' if fit.holds else 'does not fit'}: {name} needs {format_bytes(fit.needed_bytes)} of "
        f"{format_bytes(fit.memory_bytes)}, {format_bytes(abs(fit.margin_bytes))} "
        f"{'left' if fit.holds else 'too much'}"
    )
