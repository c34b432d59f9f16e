"""What logits does llama.cpp give? Run as a child, `python -m refengine.peers.llama_child`: a crash takes it alone.

It reads a JSON list of requests from standard input. For each it writes the logits, F32 row by row, to the file that
the request names, and a JSON object to standard output, with the seconds that each batch took.
"""

import json
import os
import sys
import time
from typing import Any

POOLING_NONE = 0
Batch = tuple[list[int], list[int], list[int], list[int]]  # tokens, positions, sequences, whose logits are wanted


def opened(request: dict[str, Any], said: list[str], cb_eval: Any = None) -> tuple[Any, Any, Any]:
    """llama_cpp, the model and a context, or raises `Refused`. `said` collects warnings, `cb_eval` sees each node."""
    from ggufphys.machine import llama_env
    from ggufphys.machine.llama_devices import DeviceError, load_backend, use_devices
    from ggufphys.machine.llama_log import WARN, hear
    from ggufphys.params import Params

    llama_env.prepare()
    import llama_cpp as api

    hear(api, said.append, WARN)
    params: Any = api.llama_model_default_params()
    params.use_extra_bufts = False
    params.n_gpu_layers = 0
    if request["placement"] is not None:
        try:
            load_backend(api)
            _alive.append(use_devices(api, params, Params.from_json(request["placement"])))
        except DeviceError as error:
            raise Refused(str(error)) from error
    model = api.llama_model_load_from_file(os.fsencode(request["path"]), params)
    if not model:
        raise Refused("".join(said)[-1500:])
    native: Any = api.llama_context_default_params()
    for name, value in request["context"].items():
        setattr(native, name, value)
    if native.embeddings:
        native.pooling_type = POOLING_NONE
    if cb_eval is not None:
        native.cb_eval = api.ggml_backend_sched_eval_callback(cb_eval)
        _alive.append(native.cb_eval)
    context = api.llama_init_from_model(model, native)
    if not context:
        raise Refused("".join(said)[-1500:])
    return api, model, context


class Refused(Exception):
    """llama.cpp would not do it: what it logged."""


_alive: list[object] = []  # what C calls must outlive the call that handed it over


def decode(api: Any, context: Any, batch: Batch, said: list[str], *, encodes: bool = False) -> float:
    """Decode a batch, or encode it: seconds that it took. Raises `Refused`."""
    tokens, positions, sequences, wanted = batch
    native = api.llama_batch_init(len(tokens), 0, 1)
    native.n_tokens = len(tokens)
    for i, (token, position, sequence) in enumerate(zip(tokens, positions, sequences, strict=True)):
        native.token[i], native.pos[i] = token, position
        native.n_seq_id[i], native.seq_id[i][0] = 1, sequence
        native.logits[i] = False
    for i in wanted:
        native.logits[i] = True
    start = time.perf_counter()
    code = (api.llama_encode if encodes else api.llama_decode)(context, native)
    api.llama_synchronize(context)
    seconds = time.perf_counter() - start
    api.llama_batch_free(native)
    if code:
        raise Refused(f"llama_decode gave {code}: " + "".join(said)[-1500:])
    return seconds


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Load the model, decode the batches, write the logits; "error" says what llama.cpp would not do."""
    import numpy as np

    said: list[str] = []
    try:
        api, model, context = opened(request, said)
        embeds = request["context"].get("embeddings", False)
        width = api.llama_model_n_embd_out if embeds else api.llama_vocab_n_tokens
        n_vocab = width(model if embeds else api.llama_model_get_vocab(model))
        row_of = api.llama_get_embeddings_ith if embeds else api.llama_get_logits_ith
        seconds = []
        with open(request["out"], "wb") as out:  # noqa: PTH123
            for batch in request["batches"]:
                seconds.append(decode(api, context, batch, said, encodes=embeds))
                for i in batch[3]:
                    row = row_of(context, i)
                    out.write(np.ctypeslib.as_array(row, shape=(n_vocab,)).tobytes())
    except Refused as refused:
        return {"error": str(refused)}
    except OSError as error:
        return {"unwritten": f"{error.strerror or error}; another TMPDIR puts it elsewhere"}
    api.llama_free(context)
    api.llama_model_free(model)
    return {"n_vocab": n_vocab, "seconds": seconds}


if __name__ == "__main__":
    for each in json.load(sys.stdin):
        sys.stdout.write(json.dumps(answer(each)) + "\n")
