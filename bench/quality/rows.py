"""One model beside its base: which file, run how, and what came out."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.quality.base import Kept
from bench.quality.figures import divergence_figures, perplexity_figures, unigram_perplexity
from bench.quality.judging import Judge, Judged, joined, of_base
from bench.quality.readers import LlamaReader, NumpyReader, Reader, params_of
from bench.quality.texts import Reading, Setting
from ggufphys import GGUFFile, Params, open_gguf, predict_memory
from ggufphys.report.progress import Steps
from ggufphys.speed.kept import kept_machine
from ggufphys.speed.predict import predict_speed
from ggufphys.speed.rates import CalibrationError
from server.engine.errors import EngineError
from server.engine.llama.library import default_threads

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A model to judge: its file, under which name, in which engine, with which types of cache."""

    name: str
    path: Path
    engine: str = "llama.cpp"
    type_k: str = "f16"
    type_v: str = "f16"
    requantised_from: str | None = None

    def opened(self, reading: Reading, n_threads: int) -> Reader:
        """Load it. Raises as the readers do."""
        n_ctx = reading.windows.n_ctx
        if self.engine == "refengine":
            return NumpyReader(self.path, n_ctx)
        return LlamaReader(self.path, params_of(n_ctx, n_threads=n_threads, type_k=self.type_k, type_v=self.type_v))


def judged_row(
    candidate: Candidate, setting: Setting, reading: Reading, *, base: Kept | None = None, keep: Kept | None = None
) -> Row:
    """Let a model read, and judge what it expected: alone, beside a base's rows, or keeping its own in `keep`.

    Raises as `Candidate.opened` does.
    """
    windows, sizes = reading.windows, _sizes(candidate, reading.windows.n_ctx)  # before minutes of reading
    judge = Judge(setting.n_threads or default_threads())
    kept = base if base is not None else keep
    look: Callable[..., Judged] = judge.alone if kept is None else judge.beside if keep is None else judge.keep
    try:
        with (
            candidate.opened(reading, setting.n_threads) as reader,
            Steps(f"judging {candidate.name}", total=len(windows.tokens), unit="windows", ticks=True) as steps,
        ):
            parts = []
            for i, rows in enumerate(reader.logits(windows)):
                parts.append(look(rows, windows.targets[i], *(() if kept is None else (kept.rows[i],))))
                steps.advance()
            measured = {
                "prompt_tok_per_s": windows.tokens.size / reader.read_s,
                "decode_tok_per_s": reader.decode_tok_per_s(),
            }
    finally:
        judge.close()
    judged = joined(parts)
    if wrong := int(np.isnan(judged.nll).sum()):
        raise EngineError(f"{candidate.path}: what it expects is no number at {wrong:,} of {judged.nll.size:,} tokens")
    if keep is not None and keep.nll is not None:
        keep.nll[:] = judged.nll.reshape(keep.nll.shape)
    if base is not None:
        judged = _exact(judged, base)
    return _row(candidate, sizes, judged, reading, compared=kept is not None) | {"measured": measured}


def kept_row(candidate: Candidate, reading: Reading, base: Kept) -> Row:
    """The base's own row, from what an earlier run kept of it: nothing is run, so nothing is measured."""
    pairs = zip(reading.windows.targets, base.rows, strict=True)
    judged = _exact(joined([of_base(targets, rows) for targets, rows in pairs]), base)
    judged = judged if base.nll is None else replace(judged, nll=judged.nll_base)
    sizes = _sizes(candidate, reading.windows.n_ctx)
    return _row(candidate, sizes, judged, reading, compared=True) | {"measured": None}


def _exact(judged: Judged, base: Kept) -> Judged:
    """With the base's own figures of the text's tokens, where they were kept."""
    return judged if base.nll is None else replace(judged, nll_base=base.nll.reshape(-1).copy())


def _row(candidate: Candidate, sizes: Row, judged: Judged, reading: Reading, *, compared: bool) -> Row:
    windows = reading.windows
    n_windows, perplexity = len(windows.tokens), float(np.exp(judged.nll.mean()))
    unigram = unigram_perplexity(windows.targets)
    return {
        "model": candidate.name,
        "file": candidate.path.name,
        "engine": candidate.engine,
        "type_k": candidate.type_k,
        "type_v": candidate.type_v,
        "requantised_from": candidate.requantised_from,
        **sizes,
        "n_ctx": windows.n_ctx,
        "n_windows": n_windows,
        "n_read": int(windows.tokens.size),
        "n_tokens": int(windows.targets.size),
        **perplexity_figures(judged, n_windows),
        "bits_per_byte": float(judged.nll.sum() / np.log(2) / reading.judged_bytes),
        "unigram_perplexity": unigram,
        "ratio": perplexity / unigram,
        **(divergence_figures(judged, n_windows) if compared else dict.fromkeys(DIVERGENCE)),
    }


DIVERGENCE: Final = ("kl_mean", "kl_median", "kl_p99", "kl_max", "top1", "rms_dp", "ln_ratio")
"""What a row without a base has none of."""


def _sizes(candidate: Candidate, n_ctx: int) -> Row:
    params = params_of(n_ctx, type_k=candidate.type_k, type_v=candidate.type_v)
    with open_gguf(candidate.path) as gguf:
        memory = predict_memory(gguf, params)
        return {
            "file_type": gguf.file_type,
            "file_bytes": sum(shard.path.stat().st_size for shard in gguf.shards),
            "bpw": gguf.bpw,
            "predicted": {
                "model_bytes": memory.model_bytes,
                "context_bytes": memory.context_bytes,
                "compute_bytes": memory.compute_bytes,
                "total_bytes": memory.total_bytes,
                **_speeds(gguf, params if candidate.engine == "llama.cpp" else None, n_ctx),
            },
        }


def _speeds(gguf: GGUFFile, params: Params | None, n_ctx: int) -> Row:
    """Tokens a second by this machine's rates, as `measured` has them.

    None each where it was not calibrated, and of what llama.cpp does not run; where rates are kept and can't be used,
    `why_no_speed` says why.
    """
    machine, why = None, None
    try:
        machine = kept_machine()
    except CalibrationError as error:
        why = str(error)
    if machine is None or params is None:
        return {"prompt_tok_per_s": None, "decode_tok_per_s": None, "why_no_speed": why}
    found = predict_speed(gguf, params, machine, prefill=n_ctx)
    return {
        "prompt_tok_per_s": found.prefill.tok_per_s.value,
        "decode_tok_per_s": None if found.decode is None else found.decode.tok_per_s.value,
        "why_no_speed": None,
    }
