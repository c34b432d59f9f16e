"""The measured process with the numpy engine: the phases of `child`, and in the last what the engine holds.

Run by `bench.measure.numpy_engine` as `python -m bench.measure.numpy_child CONFIG_JSON`.
"""

import json
import os
import sys
import time
from typing import Any

from bench.measure.child import phase
from bench.running.telling import emit, run_telling


def main() -> int:
    """Run all phases as the configuration says."""
    config = json.loads(sys.argv[1])
    os.environ.setdefault("OPENBLAS_NUM_THREADS", str(config["n_threads"]))  # read when numpy is imported
    phase("interpreter")

    import numpy as np

    import refengine

    np.ones((512, 512), np.float32) @ np.ones((512, 512), np.float32)  # BLAS has memory of its own from then on
    phase("library", system_info=f"numpy {np.__version__}")

    model = refengine.load(config["path"], **config["load"])
    model.prepare()
    phase("weights")
    phase("context", n_ctx_seq=model.n_ctx_seq)
    _generate(model, config["n_prompt"], config["n_predict"])
    return 0


def _generate(model: Any, n_prompt: int, n_predict: int) -> None:
    """Prefill `n_prompt` arbitrary tokens, then decode greedily, and time both."""
    tokens = [(7919 * i + 13) % model.h.n_vocab for i in range(n_prompt)]
    start = time.perf_counter()
    row = model.evaluate(tokens, all_logits=False)[0]
    emit(prefilled=n_prompt)
    phase("prefill", seconds=time.perf_counter() - start, n_tokens=n_prompt)
    seconds = []
    for i in range(n_predict):
        token = int(row.argmax())
        start = time.perf_counter()
        row = model.evaluate([token], all_logits=False)[0]
        seconds.append(time.perf_counter() - start)
        emit(decoded=i + 1)
    phase("decode", seconds=sum(seconds), n_tokens=n_predict, held=model.held_bytes())


if __name__ == "__main__":
    run_telling(main)
