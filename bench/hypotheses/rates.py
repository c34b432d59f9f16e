"""How many tokens a second, run one way, or one way by another? Files are measured, published shapes predicted."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.calibrate.clock import COUNTS
from bench.derive import derived
from bench.hypotheses.files import Setup, shape_of
from bench.hypotheses.finding import Finding, Limit, spread
from bench.hypotheses.serving import load_levels
from bench.hypotheses.timing import ROUNDS, gpus
from bench.hypotheses.ways import (
    N_ANSWERED,
    N_ASKED,
    flags_of,
    n_prompt_of,
    name_of,
    params_of,
    phase_of,
    wants_gpu,
)
from bench.speed.events import measured
from ggufphys import open_gguf
from ggufphys.embedded import MODEL
from ggufphys.errors import GGUFPhysError
from ggufphys.gguf.locate import local_path
from ggufphys.graph.devices.runs import Runs
from ggufphys.params import Device
from ggufphys.speed.kept import kept_machine
from ggufphys.speed.predict import PhaseSpeed, Speeds
from ggufphys.speed.published import data_sheet, published_machine
from ggufphys.speed.rates import Machine
from server.engine.llama.library import default_threads

NO_RATES: Final = "No rates of this machine are kept: run `ggufphys bench calibrate`."
WHY: Final[dict[Limit, str]] = {
    "bandwidth": "Reading weights and cache is most of the time: bandwidth.",
    "compute": "Arithmetic is most of the time: compute.",
    "overhead": "Neither reading nor arithmetic is most of the time: overhead (dispatch, barriers).",
    "": "",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """A way's tokens a second in each round; `predicted` at this machine's pace then, None where its rates say nothing.

    `limit` is that of the prediction where what was measured lies within it; `busy` the largest share of its time that
    a thread had no processor.
    """

    name: str
    rounds: tuple[float, ...]
    predicted: float | None = None
    limit: Limit = ""
    busy: float = 0.0

    def __str__(self) -> str:
        by_rates = "" if self.predicted is None else f"; by this machine's rates {self.predicted:.4g}"
        return f"{self.name}: {median(self.rounds):.4g} tokens a second ({spread(self.rounds, '.4g')}{by_rates})."


def tok_per_s(setup: Setup, model: Path | None) -> Finding:
    """Tokens a second of one way of running."""
    if not _has_devices(setup):
        return NO_GPU
    (found,) = _measured(model, setup)
    return Finding(
        value=median(found.rounds), interval=(min(found.rounds), max(found.rounds)), limit=found.limit,
        explanation=f"{found}{_because(found)}",
    )  # fmt: skip


def tok_ratio(setup: Setup, model: Path | None) -> Finding:
    """Tokens a second of one way by those of another, measured in turn."""
    if not (_has_devices(setup["of"]) and _has_devices(setup["by"])):
        return NO_GPU
    one, other = _measured(model, setup["of"], setup["by"])
    ratios = [a / b for a, b in zip(one.rounds, other.rounds, strict=True)]
    by_rates = f", by rates {one.predicted / other.predicted:.3g}" if one.predicted and other.predicted else ""
    return Finding(
        value=median(ratios), interval=(min(ratios), max(ratios)), limit=_common(one.limit, other.limit),
        explanation=f"{one} {other} Their ratio is {median(ratios):.3g} ({spread(ratios)} in {len(ratios)} "
        f"rounds{by_rates}).{_because(one, other)}",
    )  # fmt: skip


def predicted_tok_per_s(setup: Setup, model: Path | None) -> Finding:
    """Tokens a second of a published shape, by this machine's rates or by a data sheet."""
    found = _predicted(setup)
    if found is None:
        return Finding(value=None, explanation=NO_RATES)
    machine, phase = found
    rate = phase.tok_per_s
    return Finding(
        value=rate.value, interval=(rate.low, rate.high), limit=phase.limit,
        explanation=f"As predicted from {_source(machine)}: {rate.value:.4g} tokens a second, between {rate.low:.4g} "
        f"and {rate.high:.4g} as far as those are known. {WHY[phase.limit]}",
    )  # fmt: skip


def predicted_tok_ratio(setup: Setup, model: Path | None) -> Finding:
    """Predicted tokens a second one way over another: no interval on one machine, whose rates err alike for both."""
    one, other = _predicted(setup["of"]), _predicted(setup["by"])
    if one is None or other is None:
        return Finding(value=None, explanation=NO_RATES)
    (machine, a), (second, b) = one, other
    low, high = a.tok_per_s.low / b.tok_per_s.high, a.tok_per_s.high / b.tok_per_s.low
    of, by = f"{a.tok_per_s.value:.4g}", f"{b.tok_per_s.value:.4g}"
    sources = " and ".join(dict.fromkeys((_source(machine), _source(second))))
    return Finding(
        value=a.tok_per_s.value / b.tok_per_s.value, interval=None if machine == second else (low, high),
        limit=_common(a.limit, b.limit),
        explanation=f"As predicted from {sources}: {of} tokens a second ({name_of(setup['of'])}) and {by} "
        f"({name_of(setup['by'])}). {WHY[_common(a.limit, b.limit)]}".strip(),
    )  # fmt: skip


NO_GPU: Final = Finding(
    value=None, explanation="This build of llama.cpp finds no GPU here, so all layers would stay on the CPU."
)


def _has_devices(way: Setup) -> bool:
    return not wants_gpu(way) or bool(gpus())


def _common(one: Limit, other: Limit) -> Limit:
    return one if one == other else ""


def _because(*found: Rates) -> str:
    """What limits all of them, and what disturbed them."""
    why = WHY[_common(found[0].limit, found[-1].limit)]
    busy = max(rates.busy for rates in found)
    disturbed = f"Something else had the processors for up to {busy:.0%} of the time." if busy > COUNTS else ""
    return "".join(f" {sentence}" for sentence in (why, disturbed) if sentence)


def _measured(model: Path | None, *ways: Setup) -> list[Rates]:
    """Each way `ROUNDS` times, in turn: what else the machine does meanwhile, all bear."""
    paths = [_path(way, model) for way in ways]
    rounds = [[_once(way, path) for way, path in zip(ways, paths, strict=True)] for _ in range(ROUNDS)]
    names = [name_of(way, (model or MODEL).name) for way in ways]
    return [_rates(*found) for found in zip(ways, names, paths, zip(*rounds, strict=True), strict=True)]


def _path(way: Setup, model: Path | None) -> Path:
    source = local_path(way["file"]) if "file" in way else model or MODEL
    open_gguf(source).close()
    return derived(way["type"], source) if "type" in way else source


def _once(way: Setup, path: Path) -> dict[str, Any]:
    """One measurement in a process of its own: `tok_per_s`, and of steps `busy` and `gauge_s`."""
    n_prompt = n_prompt_of(way)
    if "users" in way:
        lengths = way.get("n_prompt", N_ASKED), way.get("n_predict", N_ANSWERED)
        (level,) = load_levels(path, (way["users"],), *lengths, flags=flags_of(way))
        return {"tok_per_s": level["tok_per_s"], "busy": 0.0}
    params = asdict(params_of(way, found=gpus))
    question = (
        {"kind": "prefill", "n_tokens": n_prompt}
        if phase_of(way) == "prefill"
        else {"kind": "batch", "n_seqs": way.get("n_seq", 1), "depth": n_prompt}
    )
    config = {"path": str(path.resolve()), "params": params, "batch_params": params, "questions": [question]}
    (event,) = measured(config)
    return event


def _rates(way: Setup, name: str, path: Path, events: Sequence[dict[str, Any]]) -> Rates:
    found = tuple(event["tok_per_s"] for event in events)
    plain = Rates(name=name, rounds=found, busy=max(event["busy"] for event in events))
    if "users" in way:
        return plain
    try:
        machine = kept_machine()
        if machine is None:
            return plain
        params = params_of(way, found=gpus)
        n_threads = params.n_threads or default_threads()
        gauge_s = machine.host(n_threads).gauge_s
        pace = median(event["gauge_s"] for event in events) / gauge_s if gauge_s else 1.0
        with open_gguf(path) as gguf:
            phase = _phase(Speeds(Runs(gguf).run(params), machine.at_pace(pace, n_threads), n_threads), way)
    except (GGUFPhysError, ValueError):  # no rates of its kind: what was measured stands alone
        return plain
    is_near = phase.tok_per_s.low <= median(found) <= phase.tok_per_s.high
    return replace(plain, predicted=phase.tok_per_s.value, limit=phase.limit if is_near else "")


def _predicted(way: Setup) -> tuple[Machine, PhaseSpeed] | None:
    """The machine and what it is predicted to do; None where this one has no rates.

    Raises:
        CalibrationError: its rates cannot be used.
    """
    sheet = published_machine(way["on"]) if "on" in way else None
    machine = kept_machine() if sheet is None else data_sheet(sheet)
    if machine is None:
        return None
    device = () if sheet is None or not sheet.has_gpu else (Device(name=sheet.device, memory_bytes=sheet.device_bytes),)
    params = params_of(way, found=lambda: device)
    with shape_of(way) as gguf:
        return machine, _phase(Speeds(Runs(gguf).run(params), machine, params.n_threads), way)


def _phase(speeds: Speeds, way: Setup) -> PhaseSpeed:
    n_prompt = n_prompt_of(way)
    return speeds.prefill(n_prompt) if phase_of(way) == "prefill" else speeds.decode(way.get("n_seq", 1), n_prompt)


def _source(machine: Machine) -> str:
    return f"the data sheet of {machine.name}" if machine.basis == "published" else f"{machine.name}'s rates"
