"""The same by llama.cpp's own helper: a prompt of texts and images in a plain context, and what is likeliest then."""

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ggufphys.params import Params
from server.engine.llama.library import create_context, load_model

MARKER = "<__media__>"


def greedy(model_path: Path, encoder_path: Path, prompt: Sequence[str | bytes], n: int) -> tuple[int, ...]:
    """The likeliest tokens behind a prompt, one after the other, as `mtmd_helper_eval_chunks` has it evaluated."""
    from llama_cpp import mtmd_cpp as mtmd

    params = Params(n_ctx=512, n_threads=1, n_outputs_max=1)
    with load_model(model_path, params) as model, create_context(model, params) as context:
        options = mtmd.mtmd_context_params_default()
        options.use_gpu, options.n_threads, options.print_timings = False, 1, False
        encoder = mtmd.mtmd_init_from_file(os.fsencode(encoder_path), model.pointer, options)
        files = [each for each in prompt if isinstance(each, bytes)]
        bitmaps = [mtmd.mtmd_helper_bitmap_init_from_buf(encoder, _buffer(file), len(file), False) for file in files]
        text = "".join(MARKER if isinstance(each, bytes) else each for each in prompt).encode()
        chunks, behind = mtmd.mtmd_input_chunks_init(), ctypes.c_int32(0)
        asked = mtmd.mtmd_input_text(text, len(text), True, True)
        places = (ctypes.c_void_p * len(bitmaps))(*bitmaps)
        assert mtmd.mtmd_tokenize(encoder, chunks, ctypes.byref(asked), places, len(bitmaps)) == 0
        assert mtmd.mtmd_helper_eval_chunks(
            encoder, context.pointer, chunks, 0, 0, 512, True, ctypes.byref(behind)
        ) == 0  # fmt: skip
        found, api, position = list[int](), model.api, behind.value
        for _ in range(n):
            logits = np.ctypeslib.as_array(api.llama_get_logits_ith(context.pointer, -1), (259,))
            found.append(int(logits.argmax()))
            batch: Any = api.llama_batch_init(1, 0, 1)
            batch.n_tokens, batch.token[0], batch.pos[0] = 1, found[-1], position
            batch.n_seq_id[0], batch.seq_id[0][0], batch.logits[0] = 1, 0, 1
            assert api.llama_decode(context.pointer, batch) == 0
            api.llama_batch_free(batch)
            position += 1
        mtmd.mtmd_input_chunks_free(chunks)
        for bitmap in bitmaps:
            mtmd.mtmd_bitmap_free(bitmap)
        mtmd.mtmd_free(encoder)
        return tuple(found)


def _buffer(file: bytes) -> Any:
    return (ctypes.c_uint8 * len(file)).from_buffer_copy(file)
