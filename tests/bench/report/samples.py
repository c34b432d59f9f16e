"""Records as the commands would leave them, small and made up, one of each kind."""

from typing import Any, Final

from bench.results.records import Record

MACHINE: Final = {
    "cpu": "A <fast> CPU", "n_cpus": 2, "memory_bytes": 8 << 30, "features": ["avx2"], "system": "Linux x86_64",
}  # fmt: skip


def record(kind: str, command: str, result: Any, *, recorded: str = "2026-01-02T03:04:05Z") -> Record:
    """One of them."""
    return Record(
        schema_version=1, kind=kind, command=command, recorded=recorded, machine=MACHINE,
        build={"llama_cpp_python": "0.0.1", "llama_build": 12}, commit="abc", load=0.0, exit=0, result=result,
    )  # fmt: skip


def measured(
    model: str = "tiny.gguf", *, flags: str = "-c 4096", process: int = 99 << 20, tok_per_s: float = 50.0
) -> Record:
    """A run of `measure` whose process was predicted at 100 MiB and 55 tokens a second."""
    rows = [
        {"quantity": f"{name}_bytes", "predicted": n << 20, "measured": n << 20, "difference": 0}
        for name, n in (("model", 60), ("context", 20), ("compute", 10), ("output", 1))
    ]
    rows.append({"quantity": "process_bytes", "predicted": 100 << 20, "measured": process, "difference": 1 << 20})
    speed = {"value": 55.0, "low": 50.0, "high": 60.0}
    rows += [
        {"quantity": f"{phase}_tok_per_s", "predicted": speed, "measured": tok_per_s, "difference": None}
        for phase in ("prefill", "decode")
    ]
    result = {
        "model": model, "rows": rows,
        "speed": {"n_prompt": 512, "n_predict": 16, "prefill_tok_per_s": 50.0, "decode_tok_per_s": tok_per_s},
    }  # fmt: skip
    return record("measure", f"ggufphys measure {model} {flags}", result)


def timed(n_threads: int = 2) -> Record:
    """A run of `bench speed` at half of what memory allows, 20 % slower than predicted."""
    row = {
        "file": "timed.gguf", "n_threads": n_threads, "repacked": True, "predicted": 120.0, "measured": 100.0,
        "token_flops": 2e8, "token_bytes": 1e8,
    }  # fmt: skip
    rows = [{**row, "quantity": kind, "n": n} for kind, n in (("prefill", 512), ("decode", 1024), ("batch", 4))]
    return record("speed", "ggufphys bench speed timed.gguf", {"rows": rows})


def level(clients: int) -> dict[str, Any]:
    """A level of `bench load`."""
    spread = {"mean": 0.1, "p50": 0.1 * clients, "p95": 0.2 * clients, "p99": 0.3 * clients, "low": {}, "high": {}}
    return {
        "concurrency": clients, "rate_per_s": None, "n_requests": 20, "n_ok": 20, "req_per_s": 2.0,
        "tok_per_s": 40.0 * clients, "ttft_s": spread, "tpot_s": spread, "client_share": 0.012,
    }  # fmt: skip


def quality_row(name: str, bpw: float, kl: float | None) -> dict[str, Any]:
    """A file's row of `bench quality`."""
    return {
        "model": name, "file_type": name, "file_bytes": round(bpw * 1e6), "bpw": bpw, "perplexity": 9.5, "kl_mean": kl,
        "kl_p99": kl, "top1": None if kl is None else 0.95, "n_tokens": 1000, "type_k": "f16", "type_v": "f16",
    }  # fmt: skip


def all_kinds() -> list[Record]:
    """One of each kind that the report has a section for."""
    product: list[dict[str, Any]] = [{"n_columns": n, "row_s": 0.0, "weight_s": 1e-10, "fetched": []} for n in (1, 8)]
    processor = {
        "name": "CPU", "n_threads": 2, "streams": [[1 << 20, 5e10], [1 << 30, 2e10]], "flops_per_s": 1e11,
        "node_s": 1e-6, "step_s": 1e-5, "products": {"Q4_K": product, "Q8_0": product},
    }  # fmt: skip
    total = {"flops": 10**8, "weight_bytes": 6 * 10**7, "cache_read_bytes": 0, "cache_written_bytes": 1}
    phase = {"n_tokens": 1, "depth": 0, "total": total}
    costs = {"prefill": {**phase, "n_tokens": 512}, "decode": phase}
    claim = {"id": "H1", "claim": "a | b < c", "source": "someone", "predicted": 5.5, "measured": [1.0, 2.0]}
    other = {"id": "H2", "claim": "d", "source": "someone", "predicted": None, "measured": None}
    claims = [
        {**claim, "verdict": "fails", "explanation": "because"},
        {**other, "verdict": "not testable here", "explanation": "no GPU"},
    ]
    files = [quality_row("F16", 16.0, None), quality_row("Q8_0", 8.5, 0.001), quality_row("Q4_K_M", 4.8, 0.02)]
    load = {"label": "ours", "url": "http://127.0.0.1/v1", "model": "m", "prompt": "128", "answer": "64"}
    return [
        measured(),
        measured("other.gguf", flags="-c 512 --no-repack", process=103 << 20),
        record("calibrate", "ggufphys bench calibrate", {"processors": [{**processor, "n_threads": 1}, processor]}),
        record("inspect", "ggufphys inspect tiny.gguf --costs", {"model": {"path": "tiny.gguf"}, "costs": costs}),
        record("load", "ggufphys bench load URL", {**load, "levels": [level(n) for n in (1, 2, 8)]}),
        record("load", "ggufphys bench load URL2", {**load, "label": "theirs", "levels": [level(n) for n in (1, 8)]}),
        record(
            "quality", "ggufphys bench quality F16 Q4_K_M",
            {"results": files},
        ),
        record("hypotheses", "ggufphys bench hypotheses", claims),
    ]  # fmt: skip
