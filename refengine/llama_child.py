"""What logits does llama.cpp give? Run as a child, `python -m refengine.llama_child`: a crash takes only the child.

It reads a JSON list of requests from standard input. For each it writes the logits, F32 row by row, to the file that
the request names, and a JSON object to standard output, with the seconds that each batch took.
"""

import ctypes
import json
import sys
import time
from typing import Any


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Load the model, decode the batches, write the logits; "error" says what llama.cpp would not do."""
    import numpy as np

    from ggufphys import llama_env

    llama_env.prepare()
    import llama_cpp as api

    said: list[str] = []

    @api.llama_log_callback  # type: ignore[untyped-decorator]
    def keep(level: int, text: bytes, user_data: object) -> None:
        if level >= 3:
            said.append(text.decode(errors="replace"))

    api.llama_log_set(keep, ctypes.c_void_p(0))
    params: Any = api.llama_model_default_params()
    params.use_extra_bufts = False
    params.n_gpu_layers = 0
    model = api.llama_model_load_from_file(request["path"].encode(), params)
    if not model:
        return {"error": "".join(said)[-1500:]}
    native: Any = api.llama_context_default_params()
    for name, value in request["context"].items():
        setattr(native, name, value)
    context = api.llama_init_from_model(model, native)
    if not context:
        return {"error": "".join(said)[-1500:]}
    n_vocab = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))
    seconds = []
    with open(request["out"], "wb") as out:  # noqa: PTH123
        for tokens, positions, sequences in request["batches"]:
            batch = api.llama_batch_init(len(tokens), 0, 1)
            batch.n_tokens = len(tokens)
            for i, (token, position, sequence) in enumerate(zip(tokens, positions, sequences, strict=True)):
                batch.token[i], batch.pos[i] = token, position
                batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
                batch.logits[i] = request["all_logits"] or i + 1 == len(tokens)
            start = time.perf_counter()
            code = api.llama_decode(context, batch)
            api.llama_synchronize(context)
            seconds.append(time.perf_counter() - start)
            if code:
                return {"error": f"llama_decode gave {code}: " + "".join(said)[-1500:]}
            for i in range(len(tokens)) if request["all_logits"] else (-1,):
                row = api.llama_get_logits_ith(context, i)
                out.write(np.ctypeslib.as_array(row, shape=(n_vocab,)).tobytes())
            api.llama_batch_free(batch)
    api.llama_free(context)
    api.llama_model_free(model)
    return {"n_vocab": n_vocab, "seconds": seconds}


if __name__ == "__main__":
    for each in json.load(sys.stdin):
        sys.stdout.write(json.dumps(answer(each)) + "\n")
