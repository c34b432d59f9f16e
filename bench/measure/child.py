"""The measured process: loads a model, fills one batch, decodes, and waits after each phase to be looked at.

Run by `supervise` as `python -m bench.measure.child CONFIG_JSON`. It writes one JSON object a line to stdout, and after
each {"phase": ...} it waits for a line on stdin, so that the parent samples its memory at a standstill. Nothing heavy
is imported before the phase that is about it.
"""

import json
import sys
import time
from typing import Any

from bench.running.telling import emit, run_telling


def phase(name: str, **facts: Any) -> None:
    """End a phase and wait until the parent has looked."""
    emit(phase=name, **facts)
    if not sys.stdin.readline():
        raise SystemExit("the parent is gone")


def main() -> int:
    """Run all phases as the configuration says."""
    config = json.loads(sys.argv[1])
    phase("interpreter")

    from ggufphys.params import Params
    from server.engine.llama.devices import has_blas
    from server.engine.llama.library import create_context, load_library, load_model, system_info
    from server.engine.llama.log import LOG

    api = load_library()
    phase("library", system_info=system_info(), blas=has_blas(api))

    params = Params.from_json(config["params"])
    model = load_model(config["path"], params, progress=_report_progress())
    phase("weights")

    context = create_context(model, params)
    log = [line.text for line in LOG.since(0)]
    phase("context", log=log, n_ctx_seq=context.n_ctx_seq, n_threads=context.n_threads)

    _generate(context, config["n_prompt"], config["n_predict"])
    context.close()
    model.close()
    return 0


def _report_progress() -> Any:
    """A progress callback that speaks at most once for each percent."""
    last = -1

    def report(fraction: float) -> bool:
        nonlocal last
        percent = int(100 * fraction)
        if percent > last:
            last = percent
            emit(progress=fraction)
        return True

    return report


def _generate(context: Any, n_prompt: int, n_predict: int) -> None:
    """Prefill `n_prompt` arbitrary tokens as one physical batch at a time, then decode greedily, and time both."""
    from server.engine.llama.batch import Batch
    from server.engine.llama.waiting import Waiting, thread_times, worst_share

    waiting = Waiting()  # as the server does it, so that what is measured is what is served
    times = thread_times()

    def busy() -> float:
        """The share of its time that a thread had no processor, since the last look."""
        nonlocal times
        before, times = times, thread_times()
        return worst_share(before, times)

    api = context.api
    vocab = context.model.vocab
    n_vocab = int(api.llama_vocab_n_tokens(vocab))
    tokens = [(7919 * i + 13) % n_vocab for i in range(n_prompt)]
    n_batch = context.params.n_batch
    with Batch(context, min(n_batch, max(n_prompt, 1))) as batch:
        start = time.perf_counter()
        for first in range(0, n_prompt, n_batch):
            chunk = tokens[first : first + n_batch]
            _step(batch, context, chunk, first, logits=first + len(chunk) == n_prompt)
            waiting.after_step()
            emit(prefilled=first + len(chunk))
        phase("prefill", seconds=time.perf_counter() - start, n_tokens=n_prompt, busy=busy())
        sampler = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())
        api.llama_sampler_chain_add(sampler, api.llama_sampler_init_greedy())
        seconds = []
        for i in range(n_predict):
            token = int(api.llama_sampler_sample(sampler, context.pointer, -1))
            start = time.perf_counter()
            _step(batch, context, [token], n_prompt + i, logits=True)
            waiting.after_step()
            seconds.append(time.perf_counter() - start)
            emit(decoded=i + 1)
        phase("decode", seconds=sum(seconds), n_tokens=n_predict, steps=seconds, busy=busy())
        api.llama_sampler_free(sampler)
    waiting.close()


def _step(batch: Any, context: Any, tokens: list[int], start: int, *, logits: bool) -> None:
    batch.clear()
    batch.add(tokens, seq_id=0, start=start, logits_of_last=logits)
    code = batch.decode(context)
    if code:
        raise RuntimeError(f"llama_decode returned {code} at position {start}")


if __name__ == "__main__":
    run_telling(main)
