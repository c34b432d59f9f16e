"""Was the prediction right? Each buffer line of a log beside its prediction for the parameters that the log states."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from ggufphys.builds import LATEST
from ggufphys.builds.said import build_of
from ggufphys.context import resolve
from ggufphys.errors import GGUFError, UnsupportedError
from ggufphys.frozen import dataclass, replace
from ggufphys.gguf import GGUFFile
from ggufphys.logs.lines import MIB, RESOLUTION_BYTES, LoggedBuffer
from ggufphys.logs.runs import LoggedRun
from ggufphys.memory.predict import Predictor, predict_memory, predict_weights
from ggufphys.memory.terms import Basis, Quantity, Term
from ggufphys.params import Device, Params
from ggufphys.plan.fitting_build import FittingBuilds, fitting_builds

Verdict = Literal["equal", "differs", "not predicted", "not logged"]

QUANTITIES: Final[tuple[Quantity, ...]] = ("model", "context", "compute", "output", "attachment")
# Parameters that the buffers depend on, each with what is assumed when neither log nor flag says it.
ASSUMED: Final[Mapping[str, str]] = {
    "n_ctx": "as trained",
    "n_batch": "2048",
    "n_ubatch": "512",
    "n_seq_max": "1",
    "n_outputs_max": "n_batch",
    "kv_unified": "off",
    "swa_full": "off",
    "type_k": "f16",
    "type_v": "f16",
    "flash_attn": "auto",
    "use_mmap": "on",
    "use_extra_bufts": "on",
    "llama_build": "the newest recorded that fits",
}
LENGTHS: Final = ("n_ctx", "n_batch", "n_ubatch")  # which llama.cpp rounds and clips
ASSUMED_SPLIT: Final = "by the devices' free memory"  # of tensor_split, where there are several devices


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the comparison: what the log says of a buffer, what was predicted, and why they may differ.

    Where a buffer has as many lines as predicted terms they are paired by size, else their sums are compared.
    `resolution_bytes` is how far the logged figure is rounded; `predicted` and `logged` are None when there is none.
    """

    quantity: Quantity
    name: str
    predicted: int | None
    logged: int | None
    resolution_bytes: int
    basis: Basis | None
    reason: str = ""

    @property
    def difference(self) -> int | None:
        """Predicted less logged; 0 when they agree at the log's precision."""
        if self.predicted is None or self.logged is None:
            return None
        difference = self.predicted - self.logged
        return 0 if abs(difference) <= self.resolution_bytes else difference

    @property
    def verdict(self) -> Verdict:
        """`not logged` is said of quantities that the log is silent about."""
        if self.predicted is None:
            return "not predicted"
        if self.logged is None:
            return "not logged"
        return "equal" if self.difference == 0 else "differs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """A log's run beside its prediction. `sources` says of each parameter where it is from: flag, log or assumed."""

    run: LoggedRun
    params: Params
    sources: Mapping[str, str]
    unsupported: str  # why there is no prediction of more than the weights; empty when there is
    lines: tuple[Line, ...]
    notes: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """No figure that is called exact differs from the log's."""
        return not any(line.verdict == "differs" and line.basis == "exact" for line in self.lines)


def reconcile(gguf: GGUFFile, runs: Sequence[LoggedRun], flags: Mapping[str, Any]) -> Reconciliation:
    """Predict what the log says was run, with `flags` (fields of Params) in place of what it says, and compare.

    Raises:
        ValueError: no run of this model in the log, or parameters that llama.cpp would refuse.
        GGUFError: the file lacks what a prediction needs.
    """
    run, notes = choose_run(runs, gguf)
    of_log = build_of(run.build)
    by_log = {} if of_log is None else {"llama_build": of_log}
    run = replace(run, settings={**run.settings, **by_log})
    flags = _contradicting(run, flags)
    params = replace(Params(llama_build=LATEST), **{**run.settings, **flags})
    found = None
    if of_log is None and "llama_build" not in flags:
        found = _fitting(gguf, run, params, flags)
        params = replace(params, llama_build=found.last or LATEST)
    unsupported = ""
    basis: Mapping[Quantity, Basis] = {"model": "exact"}
    try:
        prediction = predict_memory(gguf, params)
        terms, basis = prediction.terms, prediction.basis
    except UnsupportedError as error:
        terms, unsupported = predict_weights(gguf, params), str(error)
    lines = tuple(_lines(run, params, flags, terms, basis))
    if params.llama_build != of_log and any(line.verdict == "differs" for line in lines):
        lines = _with_builds(gguf, run, params, flags, lines)
    notes = (*notes, *_build_notes(run, params, of_log, found))
    return Reconciliation(
        run=run,
        params=params,
        sources=_sources(run, params, flags),
        unsupported=unsupported,
        lines=lines,
        notes=(*notes, *run.remarks),
    )


def _contradicting(run: LoggedRun, flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags without those of which the log says what llama.cpp made: lengths it rounds, devices' free memory."""
    flags = dict(flags)
    if "devices" in flags and "devices" in run.settings:
        flags["devices"] = _with_memory(flags["devices"], run.settings["devices"])
    if not flags.get("n_ctx", 1):  # as trained: how long that is, the log says
        flags.pop("n_ctx")
    said = {name: run.settings[name] for name in LENGTHS if name in run.settings}
    lengths = (flags["n_ctx"],) if "n_ctx" in flags else (said.get("n_batch"), said.get("n_ctx"))
    for n_ctx in lengths:  # before it was rounded, the context may have been no longer than the batch that it clipped
        asked = {**run.settings, **flags, "n_ctx": n_ctx or 0}
        made = _lengths(replace(Params(llama_build=LATEST), **asked)) if n_ctx else {}
        if n_ctx and made.items() >= said.items():
            return {name: value for name, value in flags.items() if said.get(name, value) == value}
    return flags


def _lengths(params: Params) -> dict[str, int]:
    """What llama.cpp makes of the lengths; nothing where it would refuse them."""
    try:
        made = resolve(params, n_ctx_train=0)
    except ValueError:
        return {}
    return {name: getattr(made, name) for name in LENGTHS}


def _with_memory(asked: Sequence[Device], logged: Sequence[Device]) -> tuple[Device, ...]:
    """Devices with as much memory as the log says they have, where flags do not say."""
    if len(asked) != len(logged):
        return tuple(asked)
    return tuple(
        a if a.memory_bytes else replace(a, memory_bytes=b.memory_bytes) for a, b in zip(asked, logged, strict=True)
    )


def _fitting(gguf: GGUFFile, run: LoggedRun, params: Params, flags: Mapping[str, Any]) -> FittingBuilds:
    """The builds for which no buffer differs from the log."""
    try:
        predictor = Predictor(gguf)
    except UnsupportedError:
        return FittingBuilds()

    def fits(build: int) -> bool:
        lines = _lines_of(predictor, run, replace(params, llama_build=build), flags)
        return bool(lines) and not any(line.verdict == "differs" for line in lines)

    return fitting_builds(fits)


def _lines_of(predictor: Predictor, run: LoggedRun, params: Params, flags: Mapping[str, Any]) -> tuple[Line, ...]:
    """The comparison for some build; none where it knows neither the parameters nor the architecture."""
    try:
        prediction = predictor.predict(params)
    except (ValueError, GGUFError, UnsupportedError):
        return ()
    return tuple(_lines(run, params, flags, prediction.terms, prediction.basis))


def _with_builds(
    gguf: GGUFFile, run: LoggedRun, params: Params, flags: Mapping[str, Any], lines: Sequence[Line]
) -> tuple[Line, ...]:
    """The lines with another build as the reason of those that are as predicted for the log's own build.

    Where it does not say its build, those that fit the whole log stand for it.
    """
    of_log = build_of(run.build)
    whose = f"the log is of b{of_log}"
    if of_log is None:
        found = _fitting(gguf, run, params, flags)
        of_log, whose = found.last, str(found)
    try:
        own = _lines_of(Predictor(gguf), run, replace(params, llama_build=of_log), flags) if of_log else ()
    except UnsupportedError:
        own = ()
    equal = {line.name for line in own if line.verdict == "equal"}
    reason = f"another build: {whose}, the prediction for b{params.llama_build}"
    return tuple(
        replace(line, reason=reason) if line.verdict == "differs" and line.name in equal else line for line in lines
    )


def _build_notes(run: LoggedRun, params: Params, of_log: int | None, found: FittingBuilds | None) -> Iterator[str]:
    """Which build was predicted, where that is not simply the log's."""
    if of_log is not None and params.llama_build != of_log:
        yield f"the log is of llama.cpp b{of_log}, and the prediction for b{params.llama_build}, as the flag says"
    elif of_log is None:
        said = f"the log's build, {run.build}, is none that is known" if run.build else "the log does not say its build"
        if found is None:
            yield f"{said}: predicted for llama.cpp b{params.llama_build}"
        else:
            yield f"{said}; {found}: predicted for llama.cpp b{params.llama_build} (see --llama-build)"


def choose_run(runs: Sequence[LoggedRun], gguf: GGUFFile) -> tuple[LoggedRun, tuple[str, ...]]:
    """The run that is of this model: of its last load the first context (a later one may be of a draft head).

    Returns the run, and a note about those left aside.

    Raises:
        ValueError: the log has no buffer lines, or those of other models only.
    """
    with_buffers = [run for run in runs if run.allocated and any(b.quantity != "attachment" for b in run.buffers)]
    if not with_buffers:
        raise ValueError(
            "the log has no lines about buffers (expected such as 'CPU KV buffer size = 32.00 MiB'): "
            "run llama-server or llama-cli with -lv 4, or -v"
        )
    own = [run for run in with_buffers if _is_of(run, gguf)]
    if not own:
        found = ", ".join(dict.fromkeys(map(_describe, with_buffers)))
        raise ValueError(
            f"the log is of another model: {found}; expected {gguf.architecture} with {len(gguf.tensors)} tensors"
        )
    chosen = next(run for run in own if run.load == own[-1].load)
    aside = [run for run in runs if run is not chosen and run.allocated]
    names = ", ".join(dict.fromkeys(map(_describe, aside)))
    note = f"not compared: {len(aside)} more context{'s' if len(aside) > 1 else ''} in the log, of {names}"
    return chosen, (note,) if aside else ()


def _lines(
    run: LoggedRun, params: Params, flags: Mapping[str, Any], terms: Sequence[Term], basis: Mapping[Quantity, Basis]
) -> Iterator[Line]:
    for quantity in QUANTITIES:
        logged = [b for b in run.buffers if b.quantity == quantity]
        predicted = [t for t in terms if t.quantity == quantity and t.nbytes]
        for buffer in dict.fromkeys([*(b.buffer for b in logged), *(t.buffer for t in predicted)]):
            for line in _of_buffer(
                quantity,
                buffer,
                [t for t in predicted if t.buffer == buffer],
                [b for b in logged if b.buffer == buffer],
                silent=not logged,
                basis=basis.get(quantity),
            ):
                yield replace(line, reason=_reason(line, buffer, run, params, flags))


def _of_buffer(
    quantity: Quantity,
    buffer: str,
    terms: Sequence[Term],
    logged: Sequence[LoggedBuffer],
    *,
    silent: bool,
    basis: Basis | None,
) -> Iterator[Line]:
    what = " + ".join(dict.fromkeys(b.what for b in logged)) or quantity
    if len(terms) == len(logged):
        by_size = sorted(range(len(logged)), key=lambda i: logged[i].mib)
        pairs = dict(zip(by_size, sorted(t.nbytes for t in terms), strict=True))
        for i, b in enumerate(logged):
            yield _line(quantity, f"{buffer} {b.what}", pairs[i], [b], basis)
    elif logged:
        name = f"{buffer} {what}" + (f" ({len(logged)} lines)" if len(logged) > 1 else "")
        yield _line(quantity, name, sum(t.nbytes for t in terms) if terms else None, logged, basis)
    else:  # llama.cpp would have listed this buffer with the others; or the log stops before
        line = _line(quantity, f"{buffer} {what}", sum(t.nbytes for t in terms), [], basis)
        yield line if silent else replace(line, logged=0)


def _line(
    quantity: Quantity, name: str, predicted: int | None, logged: Sequence[LoggedBuffer], basis: Basis | None
) -> Line:
    return Line(
        quantity=quantity,
        name=name,
        predicted=predicted,
        logged=round(sum(b.mib for b in logged) * MIB) if logged else None,
        resolution_bytes=round(len(logged) * RESOLUTION_BYTES),
        basis=basis,
    )


def _reason(line: Line, buffer: str, run: LoggedRun, params: Params, flags: Mapping[str, Any]) -> str:
    """What is known to make such a line differ; empty when it does not, or nobody knows."""
    if line.verdict in ("equal", "not logged"):
        return ""
    repacked = "REPACK" in buffer or buffer == "AMX"
    if line.verdict == "not predicted":
        return _reason_for_none(line, buffer, repacked, params)
    others = {name: value for name, value in flags.items() if name != "llama_build"}  # which `_with_builds` tells
    if contradicted := [name for name, value in others.items() if run.settings.get(name, value) != value]:
        return f"flags say otherwise than the log: {', '.join(contradicted)}"
    if line.quantity == "model" and (repacked or params.use_extra_bufts):
        return "which weights are repacked depends on the CPU: another machine's log?"
    if line.quantity == "compute" and not {"n_outputs_max"} & {*run.settings, *flags}:
        return "n_outputs_max is not in the log: llama-server sets about --parallel, the library n_batch"
    return "an estimate" if line.basis == "estimate" else ""


def _reason_for_none(line: Line, buffer: str, repacked: bool, params: Params) -> str:
    if line.quantity == "attachment":
        return "an attachment that was not named here"
    if line.basis is None:
        return "no rule for this architecture yet"
    if repacked and not params.use_extra_bufts:
        return "it ran with repacked weights, and --no-repack says it did not"
    if buffer == "AMX":
        return "weights in AMX's layout are not modelled yet"
    if repacked:
        return "this machine's CPU would not repack them: another machine's log?"
    return "" if buffer.startswith("CPU") else "buffers of this device are not modelled yet"


def _sources(run: LoggedRun, params: Params, flags: Mapping[str, Any]) -> dict[str, str]:
    assumed = {**ASSUMED, **({"tensor_split": ASSUMED_SPLIT} if len(params.devices) > 1 else {})}
    names = dict.fromkeys([*assumed, *run.settings, *flags])
    return {name: _source(name, run, flags, assumed) for name in names}


def _source(name: str, run: LoggedRun, flags: Mapping[str, Any], assumed: Mapping[str, str]) -> str:
    if name in flags:
        said = run.settings.get(name, flags[name])
        if said == flags[name]:
            return "flag"
        names = ", ".join(device.name for device in said) if name == "devices" else said
        return f"flag (the log says {names})"
    if name in run.concluded:
        return f"log ({run.concluded[name]})"
    return "log" if name in run.settings else f"assumed ({assumed[name]})"


def _is_of(run: LoggedRun, gguf: GGUFFile) -> bool:
    return run.n_tensors in (None, len(gguf.tensors)) and run.architecture in ("", gguf.architecture)


def _describe(run: LoggedRun) -> str:
    name = run.path.replace("\\", "/").rpartition("/")[2] or "a model without a name"
    return f"{name} ({run.architecture or 'architecture not said'}, {run.n_tensors or 'unknown'} tensors)"
