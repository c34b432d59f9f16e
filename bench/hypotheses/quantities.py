"""What can be asked of a claim? Each quantity is a function of its setup; which there are is a table at the end."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import exp
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.derive import derived
from bench.hypotheses.files import params_of, shape_of
from bench.hypotheses.finding import Finding, Limit, limited
from bench.hypotheses.serving import answer_seconds
from bench.hypotheses.timing import physical_cores, step_ratios, timed
from bench.quality.command import judged_rows
from bench.quality.rows import Candidate, Row
from bench.quality.texts import Setting, text_of
from ggufphys import GGUFFile, MemoryPrediction, predict_memory
from ggufphys.embedded import MODEL
from ggufphys.speed.kept import kept_machine
from ggufphys.speed.predict import predict_speed

Setup = Mapping[str, Any]
GB: Final = 1e9
N_WINDOWS: Final = 40  # of a text that is judged: a minute on two cores


def _memory(setup: Setup, pick: Callable[[MemoryPrediction, GGUFFile], float]) -> Finding:
    with shape_of(setup) as gguf:
        found = predict_memory(gguf, params_of(setup))
        h = gguf.get_int(f"{gguf.architecture}.attention.head_count", 0)
        h_kv = gguf.get_int(f"{gguf.architecture}.attention.head_count_kv", h)
        value = pick(found, gguf)
        file_bytes = gguf.file_bytes
    grouped = f" ({h_kv} of {h} heads are kept: grouped queries)" if h_kv < h else ""
    return Finding(
        value=value,
        explanation=f"File {file_bytes / GB:.2f} GB; weights {found.model_bytes / GB:.2f}, cache "
        f"{found.context_bytes / GB:.2f}{grouped}, compute {found.compute_bytes / GB:.2f}, process "
        f"{found.process_bytes / GB:.2f} GB at {setup.get('ctx', 4096):,} tokens.",
    )


def _total_gb(setup: Setup, model: Path | None) -> Finding:
    return _memory(setup, lambda found, _: found.total_bytes / GB)


def _process_gb(setup: Setup, model: Path | None) -> Finding:
    return _memory(setup, lambda found, _: found.process_bytes / GB)


def _over_file(setup: Setup, model: Path | None) -> Finding:
    return _memory(setup, lambda found, gguf: found.total_bytes / gguf.file_bytes)


def _over_file_gb(setup: Setup, model: Path | None) -> Finding:
    return _memory(setup, lambda found, gguf: (found.total_bytes - gguf.file_bytes) / GB)


def _cache_gb(setup: Setup, model: Path | None) -> Finding:
    return _memory(setup, lambda found, _: found.context_bytes / GB)


def _cache_ratio(setup: Setup, model: Path | None) -> Finding:
    with shape_of(setup) as gguf:
        plain = predict_memory(gguf, params_of({"ctx": setup.get("ctx", 4096)})).context_bytes
        found = predict_memory(gguf, params_of(setup)).context_bytes
    return Finding(
        value=found / plain,
        explanation=f"{found / GB:.3f} GB for {plain / GB:.3f} as f16: a block of 32 numbers takes its scale beside.",
    )


def _file_gb(setup: Setup, model: Path | None) -> Finding:
    with shape_of(setup) as gguf:
        return Finding(
            value=gguf.file_bytes / GB,
            explanation=f"{gguf.bpw:.2f} bits a weight over {gguf.n_params / 1e9:.2f} billion: a type names a mix, "
            "whose output and some other tensors have more bits.",
        )


def _file_ratio(setup: Setup, model: Path | None) -> Finding:
    with shape_of(setup) as gguf, shape_of(setup, "F16") as plain:
        return Finding(
            value=gguf.file_bytes / plain.file_bytes,
            explanation=f"{gguf.bpw:.2f} bits a weight for {plain.bpw:.2f}: {gguf.file_bytes / GB:.2f} GB for "
            f"{plain.file_bytes / GB:.2f}.",
        )


# -- quality: of the embedded model, or of the one that is given


@cache
def _judged(base: Path, other: Path, type_k: str, type_v: str) -> tuple[Row, Row]:
    candidates = [
        Candidate(name="base", path=base),
        Candidate(name="other", path=other, type_k=type_k, type_v=type_v),
    ]
    first, second = judged_rows(candidates, Setting(text=text_of(()), n_chunks=N_WINDOWS))
    return first, second


def _pair(setup: Setup, model: Path | None) -> tuple[Row, Row]:
    source = model or MODEL
    base = derived(setup["base"], source) if "base" in setup else source
    other = derived(setup["type"], source) if "type" in setup else base
    return _judged(base, other, setup.get("type_k", "f16"), setup.get("type_v", "f16"))


def _said(base: Row, other: Row) -> str:
    return (
        f"Perplexity {other['perplexity']:.3f} for {base['perplexity']:.3f}, KL divergence {other['kl_mean']:.5f} "
        f"nats, the same likeliest token in {other['top1']:.1%}, over {other['n_tokens']:,} tokens of "
        f"{base['file']}."
    )


def _perplexity_loss(setup: Setup, model: Path | None) -> Finding:
    base, other = _pair(setup, model)
    ends = [base["perplexity"] * (exp(x) - 1) for x in other["ln_ratio_ci95"]]
    return Finding(
        value=other["perplexity"] - base["perplexity"],
        interval=(ends[0], ends[1]),
        explanation=f"{_said(base, other)} Small models lose more than large ones, of whom most claims are.",
    )


def _quality_kept(setup: Setup, model: Path | None) -> Finding:
    base, other = _pair(setup, model)
    low, high = other["ln_ratio_ci95"]
    return Finding(
        value=base["perplexity"] / other["perplexity"],
        interval=(exp(-high), exp(-low)),
        explanation=f"Quality as the base's perplexity over the quant's. {_said(base, other)}",
    )


def _same_top(setup: Setup, model: Path | None) -> Finding:
    base, other = _pair(setup, model)
    return Finding(value=other["top1"], interval=tuple(other["top1_ci95"]), explanation=_said(base, other))


# -- speed: of the embedded model, or of the one that is given


def _concurrent_cost(setup: Setup, model: Path | None) -> Finding:
    n = setup.get("n_seq", 2)
    pairs = step_ratios(model or MODEL, {"n_seq": 1}, {"n_seq": n})
    ratios = [together.step_s / alone.step_s for alone, together in pairs]
    ratio = median(ratios)
    limit: Limit = "bandwidth" if ratio < 1.25 else "compute" if ratio > 0.75 * n else "overhead"
    if any(together.paged for _, together in pairs):
        limit = "paging"
    return Finding(
        value=1 - 1 / ratio, limit=limit, interval=(1 - 1 / min(ratios), 1 - 1 / max(ratios)),
        explanation=limited(
            f"A step of {n} requests takes {ratio:.2f} times one's ({_spread(ratios)} in {len(ratios)} rounds; "
            f"one takes {pairs[0][0].step_s * 1e3:.2f} ms): each loses {1 - 1 / ratio:.0%}, together they get "
            f"{n / ratio:.2f} times as much.", limit,
        ),
    )  # fmt: skip


def _spread(values: Sequence[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"


def _prompt_share(setup: Setup, model: Path | None) -> Finding:
    found = timed(model or MODEL, n_prompt=setup.get("n_prompt", 512))
    whole = found.tokenize_s + found.prompt_s + found.choose_s
    share = found.prompt_s / whole
    limit: Limit = "paging" if found.paged else "compute" if share > 0.5 else "overhead"
    return Finding(
        value=share, limit=limit,
        explanation=limited(
            f"Of {whole * 1e3:.1f} ms to the first token of {setup.get('n_prompt', 512)}, tokenising took "
            f"{found.tokenize_s * 1e3:.2f}, evaluating the prompt {found.prompt_s * 1e3:.1f}, choosing "
            f"{found.choose_s * 1e3:.2f}.", limit,
        ),
    )  # fmt: skip


def _thread_ratio(setup: Setup, model: Path | None) -> Finding:
    cores = physical_cores()
    n_threads = cores * setup.get("times", 2)
    pairs = step_ratios(model or MODEL, {"n_threads": cores}, {"n_threads": n_threads})
    ratios = [few.step_s / many.step_s for few, many in pairs]
    ratio = median(ratios)
    figures = (
        f"{n_threads} threads on {cores} cores generate {ratio:.2f} times as fast as {cores} ({_spread(ratios)} in "
        f"{len(ratios)} rounds; {1 / pairs[0][0].step_s:.0f} tokens a second with {cores})."
    )
    limit: Limit = "overhead" if ratio < 1 else "bandwidth"
    why = " At each node's barrier all wait for those threads that have no core." if ratio < 1 else ""
    return Finding(value=ratio, limit=limit, interval=(min(ratios), max(ratios)), explanation=figures + why)


def _p95_s(setup: Setup, model: Path | None) -> Finding:
    users, n_prompt, n_predict = (setup.get(k, d) for k, d in (("users", 5), ("n_prompt", 200), ("n_predict", 100)))
    alone, many = answer_seconds(model or MODEL, (1, users), n_prompt, n_predict)
    ratio = many["p50"] / alone["p50"]
    limit: Limit = "queueing" if ratio > users else "compute" if ratio > users / 2 else "bandwidth"
    return Finding(
        value=many["p95"], limit=limit,
        explanation=limited(
            f"{(model or MODEL).name}: half of the answers take {many['p50']:.2f} s with {users} users and "
            f"{alone['p50']:.2f} s with one.", limit,
        ),
    )  # fmt: skip


def _predicted_p95_s(setup: Setup, model: Path | None) -> Finding:
    machine = kept_machine()
    if machine is None:
        return Finding(value=None, explanation="No rates of this machine are kept: run `ggufphys bench calibrate`.")
    users, n_prompt, n_predict = (setup.get(k, d) for k, d in (("users", 5), ("n_prompt", 200), ("n_predict", 100)))
    with shape_of(setup) as gguf:
        params = params_of({**setup, "ctx": users * 512, "n_seq": users, "repack": True})
        found = predict_speed(gguf, params, machine, prefill=n_prompt, depth=n_prompt, batch=users)
    assert found.decode is not None
    prompts_s, steps_s = users * found.prefill.seconds.value, n_predict * found.decode.seconds.value
    limit: Limit = "compute" if prompts_s > steps_s else "bandwidth"
    return Finding(
        value=prompts_s + steps_s, limit=limit,
        explanation=limited(
            f"As predicted from {machine.name}'s rates: {prompts_s:.1f} s for {users} prompts, {steps_s:.1f} s for "
            f"{n_predict} steps of {users} tokens.", limit,
        ),
    )  # fmt: skip


def _not_here(setup: Setup, model: Path | None) -> Finding:
    return Finding(value=None, explanation=setup["why"])


@dataclass(frozen=True, slots=True)
class Quantity:
    """How one is found: its function, unit, whether something is run for it, its setup's keys, and needed ones."""

    find: Callable[[Setup, Path | None], Finding]
    unit: str
    measured: bool
    setup: Mapping[str, type] = field(default_factory=dict)
    needed: tuple[str, ...] = ()


_FILE: Final = {"shape": str, "type": str}
_RUN: Final = {**_FILE, "ctx": int, "n_seq": int, "type_k": str, "type_v": str, "repack": bool}
_QUALITY: Final = {"base": str, "type": str, "type_k": str, "type_v": str}
_LOAD: Final = {"users": int, "n_prompt": int, "n_predict": int}
_NEEDED: Final = ("shape", "type")
# fmt: off
QUANTITIES: Final[Mapping[str, Quantity]] = {
    "total_gb":        Quantity(_total_gb, "GB of llama.cpp's buffers", False, _RUN, _NEEDED),
    "process_gb":      Quantity(_process_gb, "GB resident", False, _RUN, _NEEDED),
    "over_file":       Quantity(_over_file, "times the file", False, _RUN, _NEEDED),
    "over_file_gb":    Quantity(_over_file_gb, "GB more than the file", False, _RUN, _NEEDED),
    "cache_gb":        Quantity(_cache_gb, "GB of K and V", False, _RUN, _NEEDED),
    "cache_ratio":     Quantity(_cache_ratio, "times f16's", False, _RUN, _NEEDED),
    "file_gb":         Quantity(_file_gb, "GB", False, _FILE, _NEEDED),
    "file_ratio":      Quantity(_file_ratio, "times F16's", False, _FILE, _NEEDED),
    "perplexity_loss": Quantity(_perplexity_loss, "more perplexity", True, _QUALITY),
    "quality_kept":    Quantity(_quality_kept, "of the base's", True, _QUALITY),
    "same_top":        Quantity(_same_top, "of tokens", True, _QUALITY),
    "concurrent_cost": Quantity(_concurrent_cost, "of each request's speed", True, {"n_seq": int}),
    "prompt_share":    Quantity(_prompt_share, "of the time to the first token", True, {"n_prompt": int}),
    "thread_ratio":    Quantity(_thread_ratio, "times as fast", True, {"times": int}),
    "p95_s":           Quantity(_p95_s, "s", True, _LOAD),
    "predicted_p95_s": Quantity(_predicted_p95_s, "s", False, {**_FILE, **_LOAD}, _NEEDED),
    "not_here":        Quantity(_not_here, "", False, {"why": str}, ("why",)),
}
# fmt: on
