"""How long does each node of llama.cpp's graph take? The measuring process: `python -m bench.speed.node_times CONFIG`.

CONFIG (JSON): the model's `path`, `params`, and what a step is: `n_seqs` sequences with `n_tokens` each behind `depth`.
One line a round: {"nodes": {key: [how many, seconds]}, "step_s", "plain_s", "gauge_s"}; `plain_s` is such a step of a
context that nobody watches. llama.cpp calls back behind a node only when asked to stop there, so nodes run one by one,
and the product behind a norm, which is else computed with it, is a node of its own: it counts as the norm's.

Source: llama.cpp 0c1e570 ggml/src/ggml-backend.cpp, ggml_backend_sched_compute_splits.
"""

import ctypes
import json
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from bench.running.telling import emit, run_telling
from bench.speed.child import Runner
from ggufphys.params import Params
from refengine.peers.trace_child import NO_WORK, GgmlTensor
from server.engine.llama.library import load_model

PRODUCTS: Final = ("MUL_MAT", "MUL_MAT_ID")
WARM_UP: Final = 3
_P = ctypes.c_void_p


class NodeTimes:
    """Seconds of nodes by their key, of all steps since `clear`."""

    def __init__(self, library: Any) -> None:
        library.ggml_op_name.restype = ctypes.c_char_p
        library.ggml_op_name.argtypes = [ctypes.c_int]
        self._library = library
        self._started = 0.0
        self.found: dict[str, list[float]] = {}

        self.callback = ctypes.CFUNCTYPE(ctypes.c_bool, _P, ctypes.c_bool, _P)(self._on_node)

    def clear(self) -> None:
        """Forget the times so far."""
        self.found = {}

    def _on_node(self, address: int, ask: bool, user_data: object) -> bool:
        if ask:
            self._started = time.perf_counter()
            return True
        seconds = time.perf_counter() - self._started
        tensor = GgmlTensor.from_address(address)
        op = self._op(tensor)
        if op not in NO_WORK:
            entry = self.found.setdefault(self._key(op, tensor), [0, 0.0])
            entry[0] += 1
            entry[1] += seconds
        return True

    def _op(self, tensor: GgmlTensor) -> str:
        return str(self._library.ggml_op_name(tensor.op).decode())

    def _key(self, op: str, tensor: GgmlTensor) -> str:
        first = GgmlTensor.from_address(tensor.src[0]) if tensor.src[0] else tensor
        if op in PRODUCTS:
            return product_key(op, first.ne)
        return "RMS_NORM" if op == "MUL" and self._op(first) == "RMS_NORM" else op


def product_key(op: str, matrix: Sequence[int]) -> str:
    """A product's, by its matrix; layers that are alike may have it in several types."""
    return f"{op} {matrix[0]:,} x {matrix[1]:,}"


def main() -> int:
    """Watch the steps."""
    config = json.loads(sys.argv[1])
    params = Params.from_json(config["params"])
    n_seqs, n_tokens, depth = (int(config[name]) for name in ("n_seqs", "n_tokens", "depth"))
    with load_model(config["path"], params) as model:
        times = NodeTimes(model.api.llama_cpp._lib)
        on_node = ctypes.cast(times.callback, model.api.ggml_backend_sched_eval_callback)
        watched, plain = Runner(model, params, on_node=on_node), Runner(model, params)

        def step(runner: Runner, number: int) -> float:
            """A prompt begins anew behind what was there before; an answer goes on."""
            if number == 0 or n_tokens > 1:
                runner.fill(depth)
            start = depth if n_tokens > 1 else depth + number
            return runner.step({i: runner.some(n_tokens, number + i) for i in range(n_seqs)}, start)

        for number in range(WARM_UP):
            step(watched, number)
            step(plain, number)
        for number in range(WARM_UP, WARM_UP + config["rounds"]):
            times.clear()
            watched.gauge.mean()
            watched.look(2)
            step_s = step(watched, number)
            watched.look(2)
            plain_s = step(plain, number)
            watched.look(2)
            emit(nodes=times.found, step_s=step_s, plain_s=plain_s, gauge_s=watched.gauge.mean())
        watched.close()
        plain.close()
    return 0


if __name__ == "__main__":
    run_telling(main)
