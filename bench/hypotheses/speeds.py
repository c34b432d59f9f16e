"""How fast is it? Measured on the embedded model, or on the one that is given; of published shapes by rates."""

import re
from functools import cache
from pathlib import Path
from statistics import median
from typing import Final

from bench.hypotheses.files import Setup, params_of, shape_of
from bench.hypotheses.finding import Finding, Limit, limited, spread
from bench.hypotheses.serving import load_levels
from bench.hypotheses.timing import N_BATCH, Timed, gpus, physical_cores, step_ratios, timed
from ggufphys import Params
from ggufphys.embedded import MODEL
from ggufphys.speed.kept import kept_machine
from ggufphys.speed.predict import predict_speed
from server.engine.llama.amx import guard
from server.engine.llama.library import system_info

BOTH: Final = " Reading weights is shared, arithmetic is each request's own, and neither is most of a step."
DEPTH: Final = 256  # tokens of a prompt behind which requests decode together
SHORT: Final = 32  # tokens of a prompt that is read only to have something before the steps


def concurrent_cost(setup: Setup, model: Path | None) -> Finding:
    """The share of its speed that each of several requests loses when they decode together."""
    n = setup.get("n_seq", 2)
    pairs = _together(model or MODEL, n)
    ratios = [together.step_s / alone.step_s for alone, together in pairs]
    ratio = median(ratios)
    limits = {_limit_of(found, n) for found in ratios}
    limit: Limit = next(iter(limits)) if len(limits) == 1 else ""
    why = BOTH if limits == {""} else "" if limit else " Rounds differ too much to say what limits it."
    if any(together.paged for _, together in pairs):
        limit, why = "paging", ""
    return Finding(
        value=1 - 1 / ratio, limit=limit, interval=(1 - 1 / min(ratios), 1 - 1 / max(ratios)),
        explanation=limited(
            f"A step of {n} requests takes {ratio:.2f} times one's ({spread(ratios)} in {len(ratios)} rounds; "
            f"one takes {pairs[0][0].step_s * 1e3:.2f} ms): each loses {1 - 1 / ratio:.0%}, together they get "
            f"{n / ratio:.2f} times as much.{why}", limit,
        ),
    )  # fmt: skip


def _limit_of(ratio: float, n_seq: int) -> Limit:
    """What limits a step of so many requests that takes so many times one's."""
    return "bandwidth" if ratio < 1.25 else "compute" if ratio > 0.75 * n_seq else ""


@cache
def _together(path: Path, n_seq: int) -> list[tuple[Timed, Timed]]:
    """One request alone and several at once, timed once for all claims about them; prompts fill a batch at most."""
    n_prompt = min(DEPTH, N_BATCH // n_seq)
    return step_ratios(path, {"n_seq": 1, "n_prompt": n_prompt}, {"n_seq": n_seq, "n_prompt": n_prompt})


def prompt_share(setup: Setup, model: Path | None) -> Finding:
    """The share of evaluating the prompt in the time to the first token."""
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


def thread_ratio(setup: Setup, model: Path | None) -> Finding:
    """Generation with more threads than cores, times as fast as with as many."""
    cores = physical_cores()
    n_threads = cores * setup.get("times", 2)
    pairs = step_ratios(model or MODEL, *({"n_prompt": SHORT, "n_threads": n} for n in (cores, n_threads)))
    ratios = [few.step_s / many.step_s for few, many in pairs]
    ratio = median(ratios)
    figures = (
        f"{n_threads} threads on {cores} cores generate {ratio:.2f} times as fast as {cores} ({spread(ratios)} in "
        f"{len(ratios)} rounds; {1 / pairs[0][0].step_s:.0f} tokens a second with {cores})."
    )
    limit: Limit = "overhead" if max(ratios) < 1 else ""
    why = " At each node's barrier all wait for those threads that have no core." if limit else ""
    return Finding(value=ratio, limit=limit, interval=(min(ratios), max(ratios)), explanation=figures + why)


def p95_s(setup: Setup, model: Path | None) -> Finding:
    """Seconds of an answer, the 95th percentile at several users."""
    users, n_prompt, n_predict = (setup.get(k, d) for k, d in (("users", 5), ("n_prompt", 200), ("n_predict", 100)))
    alone, many = (level["e2e_s"] for level in load_levels(model or MODEL, (1, users), n_prompt, n_predict))
    ratio = many["p50"] / alone["p50"]
    limit: Limit = "queueing" if ratio > users else "compute" if ratio > users / 2 else "bandwidth"
    return Finding(
        value=many["p95"], limit=limit,
        explanation=limited(
            f"{(model or MODEL).name}: half of the answers take {many['p50']:.2f} s with {users} users and "
            f"{alone['p50']:.2f} s with one.", limit,
        ),
    )  # fmt: skip


def predicted_p95_s(setup: Setup, model: Path | None) -> Finding:
    """Seconds of an answer of a published shape at several users, the 95th percentile, by this machine's rates."""
    machine = kept_machine()
    if machine is None:
        return Finding(value=None, explanation="No rates of this machine are kept: run `ggufphys bench calibrate`.")
    users, n_prompt, n_predict = (setup.get(k, d) for k, d in (("users", 5), ("n_prompt", 200), ("n_predict", 100)))
    with shape_of(setup) as gguf:
        n_ctx = users * max(512, n_prompt + n_predict)
        params = params_of({**setup, "ctx": n_ctx, "n_seq": users, "repack": True})
        found = predict_speed(gguf, params, machine, prefill=n_prompt, depth=n_prompt, batch=users)
    assert found.decode is not None
    prompts_s, steps_s = users * found.prefill.seconds.value, n_predict * found.decode.seconds.value
    computed_s = prompts_s * (found.prefill.limit == "compute") + steps_s * (found.decode.limit == "compute")
    limit: Limit = "compute" if computed_s > (prompts_s + steps_s) / 2 else "bandwidth"
    return Finding(
        value=prompts_s + steps_s, limit=limit,
        explanation=limited(
            f"As predicted from {machine.name}'s rates: {prompts_s:.1f} s for {users} prompts, {steps_s:.1f} s for "
            f"{n_predict} steps of {users} tokens.", limit,
        ),
    )  # fmt: skip


def gpu_ratio(setup: Setup, model: Path | None) -> Finding:
    """Generation on the GPUs there are, times as fast as on the CPU."""
    found = gpus()
    if not found:
        return Finding(
            value=None,
            explanation="This build of llama.cpp finds no GPU here, so there is nothing to time. Generating reads all "
            "weights for each token: where they fit into a GPU's memory, the gain is at most that of its bandwidth.",
        )
    pairs = step_ratios(model or MODEL, {}, {"on_gpu": True})
    ratios = [host.step_s / device.step_s for host, device in pairs]
    return Finding(
        value=median(ratios), limit="bandwidth", interval=(min(ratios), max(ratios)),
        explanation=f"With all layers on {', '.join(device.name for device in found)} a step takes "
        f"{pairs[0][1].step_s * 1e3:.2f} ms, on the CPU {pairs[0][0].step_s * 1e3:.2f}: all weights are read for each "
        "token, so the gain is at most that of the memory's bandwidth.",
    )  # fmt: skip


def amx_ratio(setup: Setup, model: Path | None) -> Finding:
    """Reading a prompt with AMX, times as fast as with weights as they are in the file."""
    info = system_info()
    if "AMX_INT8 = 1" not in info:
        kernels = ", ".join(re.findall(r"\b(AVX\w*|NEON|SVE|VSX|RVV\w*) = 1", info)) or "none of wide vectors"
        return Finding(value=None, explanation=f"llama.cpp is built without AMX here; its kernels are {kernels}.")
    _, warning = guard(Params(), info=info)
    if warning:
        return Finding(value=None, explanation=f"{warning[:1].upper()}{warning[1:]} (llama.cpp issue 20824).")
    pairs = step_ratios(model or MODEL, {"repack": False}, {"repack": True})
    ratios = [plain.prompt_s / amx.prompt_s for plain, amx in pairs]
    return Finding(
        value=median(ratios), limit="compute", interval=(min(ratios), max(ratios)),
        explanation=f"Reading a prompt with AMX's layouts takes {pairs[0][1].prompt_s * 1e3:.1f} ms, with weights "
        f"as they are in the file {pairs[0][0].prompt_s * 1e3:.1f}.",
    )  # fmt: skip
