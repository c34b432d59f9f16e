"""Run in a child process: does llama.cpp load this file and generate from it? Prints one JSON object.

usage: generate_child.py MODEL.gguf TEXT N_TOKENS
"""

import ctypes
import json
import math
import sys

from ggufphys.machine import llama_env
from ggufphys.machine.llama_log import ALL, hear

llama_env.prepare()

import llama_cpp  # noqa: E402

log: list[str] = []  # what llama.cpp prints


def generate(path: str, text: bytes, n_tokens: int) -> dict[str, object]:
    """Tokenise, decode, and pick the likeliest token `n_tokens` times."""
    params = llama_cpp.llama_model_default_params()
    params.use_extra_bufts = False
    model = llama_cpp.llama_model_load_from_file(path.encode(), params)
    if not model:
        return {"error": "".join(log)[-600:]}
    vocab = llama_cpp.llama_model_get_vocab(model)
    n_vocab = llama_cpp.llama_vocab_n_tokens(vocab)
    buffer = (llama_cpp.llama_token * 512)()
    n_prompt = llama_cpp.llama_tokenize(vocab, text, len(text), buffer, 512, False, False)
    prompt = list(buffer[:n_prompt])
    pieces = b""
    for token in prompt:
        piece = ctypes.create_string_buffer(64)
        length = llama_cpp.llama_token_to_piece(vocab, token, piece, 64, 0, False)
        pieces += piece.raw[:length]
    context_params = llama_cpp.llama_context_default_params()
    context_params.n_ctx, context_params.n_batch = 512, 512
    context_params.n_threads = context_params.n_threads_batch = 2
    context = llama_cpp.llama_init_from_model(model, context_params)
    tokens, spread, batch = [], 0.0, prompt
    for _ in range(n_tokens):
        array = (llama_cpp.llama_token * len(batch))(*batch)
        code = llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(array, len(batch)))
        if code:
            return {"error": f"llama_decode gave {code}"}
        logits = llama_cpp.llama_get_logits_ith(context, -1)[:n_vocab]
        if not all(map(math.isfinite, logits)):
            return {"error": "logits are not finite"}
        spread = max(logits) - min(logits)
        batch = [max(range(n_vocab), key=logits.__getitem__)]
        tokens += batch
    return {
        "n_params": llama_cpp.llama_model_n_params(model),
        "n_vocab": n_vocab,
        "n_prompt": n_prompt,
        "text": pieces.decode(),
        "tokens": tokens,
        "logits_spread": spread,
        "bos": llama_cpp.llama_vocab_bos(vocab),
        "eos": llama_cpp.llama_vocab_eos(vocab),
    }


if __name__ == "__main__":
    hear(llama_cpp, log.append, ALL)
    sys.stdout.write(json.dumps(generate(sys.argv[1], sys.argv[2].encode(), int(sys.argv[3]))) + "\n")
