"""What does llama.cpp itself hold for adapters and saved sequences? In bytes, for tests to compare with.

Runs as a child process, `python -m tests.attachment_oracle QUESTION JSON`, since llama.cpp may abort; prints one JSON
object. Sizes that llama.cpp's API does not give are read from its objects by libstdc++'s layout on x86-64, or from
glibc's count of mapped blocks: good for test machines only.

Source: llama.cpp 0c1e570 src/llama-adapter.h; include/llama.h, llama_state_seq_get_size_ext.
"""

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from ggufphys.params import Params
from tests import oracle

PAGE_BYTES: Final = 4096
_ABORTED: Final = 2  # what llama_decode returns
_BUFS_OFFSET: Final = 88  # of llama_adapter_lora::bufs, behind a pointer, an unordered_map and a vector
_MMAP_THRESHOLD: Final = -3  # M_MMAP_THRESHOLD


def ask(question: str, **arguments: Any) -> dict[str, Any]:
    """The answer of a child process: {"error": ...} where llama.cpp refuses."""
    answer = subprocess.run(
        [sys.executable, __file__, question, json.dumps(arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    if answer.returncode:
        raise AssertionError(f"the oracle ended with {answer.returncode}: {answer.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return result


def adapters(
    model: Path, params: Params, loras: Sequence[Path] = (), *, control_vector: bool = False
) -> dict[str, Any]:
    """Bytes of the adapters' buffers by name, of the control vector, and of the compute buffer that runs them."""
    return ask(
        "adapters",
        model=os.fspath(model),
        params=asdict(params),
        loras=[os.fspath(path) for path in loras],
        control_vector=control_vector,
    )


def adapters_in(api: Any, model: str, params: Params, loras: Sequence[str]) -> dict[str, Any] | None:
    """The same within this process; None where llama.cpp refuses the model, the context, or to decode.

    Nothing behind the first node is computed: buffers are reserved by then, and random models end in other nodes.
    """
    try:
        return _adapters(api, model, asdict(params), loras, False, stops=True)
    except AssertionError:
        return None


def _adapters(
    api: Any, model: str, params: dict[str, Any], loras: Sequence[str], control_vector: bool, *, stops: bool = False
) -> dict[str, Any]:
    library = api.llama_cpp._lib
    loaded, context = _create(api, model, Params.from_json(params))
    pointers = [api.llama_adapter_lora_init(loaded, path.encode()) for path in loras]
    handles = [ctypes.cast(pointer, ctypes.c_void_p).value for pointer in pointers]
    if not all(handles):
        return {"error": "llama.cpp refuses the adapter"}
    buffers: dict[str, int] = {}
    for handle in handles:
        for name, nbytes in _buffers(library, handle or 0):
            buffers[name] = buffers.get(name, 0) + nbytes
    if handles:
        library.llama_set_adapters_lora.argtypes = [ctypes.c_void_p] * 2 + [ctypes.c_size_t, ctypes.c_void_p]
        array = (ctypes.c_void_p * len(handles))(*handles)
        scales = (ctypes.c_float * len(handles))(*[0.5] * len(handles))
        library.llama_set_adapters_lora(context, array, len(handles), scales)
    vector_bytes = _set_control_vector(api, loaded, context) if control_vector else 0
    stop = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p)(lambda data: True)
    if stops:
        library.llama_set_abort_callback.argtypes = [ctypes.c_void_p] * 3
        library.llama_set_abort_callback(context, stop, None)
    batch = api.llama_batch_get_one((ctypes.c_int32 * 1)(0), 1)
    assert api.llama_decode(context, batch) == (_ABORTED if stops else 0)
    compute_bytes = sum(sizes["compute"] for sizes in oracle.breakdown(api, context).values())
    return {"buffers": buffers, "control_vector": vector_bytes, "compute": compute_bytes}


def _create(api: Any, path: str, p: Params, *, target: int | None = None) -> tuple[int, int]:
    """The model really loaded, on devices if there are any, and a context of it."""
    from server.engine.llama.devices import use_devices

    native = api.llama_model_default_params()
    keep = use_devices(api, native, p)
    native.use_extra_bufts, native.load_mode, native.load_mtp = p.use_extra_bufts, int(p.use_mmap), p.load_mtp
    model = api.llama_model_load_from_file(path.encode(), native)
    del keep
    assert model, "llama.cpp refuses the model"
    cparams = oracle.context_params(api, p)
    cparams.ctx_other = target
    context = api.llama_init_from_model(model, cparams)
    assert context, "llama.cpp refuses the context"
    return model, context


def _buffers(library: Any, adapter: int) -> list[tuple[str, int]]:
    library.ggml_backend_buffer_get_size.restype = ctypes.c_size_t
    library.ggml_backend_buffer_get_size.argtypes = [ctypes.c_void_p]
    library.ggml_backend_buffer_name.restype = ctypes.c_char_p
    library.ggml_backend_buffer_name.argtypes = [ctypes.c_void_p]
    begin, end = (ctypes.c_uint64 * 2).from_address(adapter + _BUFS_OFFSET)
    pointers = (ctypes.c_uint64 * ((end - begin) // 8)).from_address(begin) if end > begin else ()
    return [(library.ggml_backend_buffer_name(p).decode(), library.ggml_backend_buffer_get_size(p)) for p in pointers]


def _set_control_vector(api: Any, model: int, context: int) -> int:
    """Bytes that glibc maps while the vector is set: whole pages of the one buffer above its threshold."""
    n_embd, n_layer = api.llama_model_n_embd(model), api.llama_model_n_layer(model)
    data = (ctypes.c_float * (n_embd * (n_layer - 1)))()
    before = _mapped_bytes()
    assert api.llama_set_adapter_cvec(context, data, len(data), n_embd, 1, n_layer) == 0
    return _mapped_bytes() - before


def _mapped_bytes() -> int:
    """Glibc's count of bytes in blocks that it mapped by themselves (mallinfo2.hblkhd)."""
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = _MallInfo
    return int(libc.mallinfo2().counts[4])


class _MallInfo(ctypes.Structure):
    _fields_ = (("counts", ctypes.c_size_t * 10),)


def draft(model: Path, params: Params, beside: Path, beside_params: Params) -> dict[str, int]:
    """Bytes of a draft model's weights, context and compute buffer when its context knows its target's."""
    return ask(
        "draft",
        model=os.fspath(model),
        params=asdict(params),
        beside=os.fspath(beside),
        beside_params=asdict(beside_params),
    )


def _draft(api: Any, model: str, params: dict[str, Any], beside: str, beside_params: dict[str, Any]) -> dict[str, Any]:
    _, target = _create(api, model, Params.from_json(params))
    _, context = _create(api, beside, Params.from_json(beside_params), target=target)
    by_buffer = oracle.breakdown(api, context)
    return {q: sum(sizes[q] for sizes in by_buffer.values()) for q in oracle.QUANTITIES}


def heads(model: Path, params: Params, own: Params, n_tokens: int) -> dict[str, dict[str, int]]:
    """Bytes of a `model` whose heads guess: its own, `own` of the heads' context, and the `output` buffer's.

    A batch of `n_tokens` is decoded, before and after the heads ask for states: by what is mapped more then.
    """
    answer: dict[str, dict[str, int]] = ask(
        "heads", model=os.fspath(model), params=asdict(params), own=asdict(own), n_tokens=n_tokens
    )
    return answer


def _heads(api: Any, model: str, params: dict[str, Any], own: dict[str, Any], n_tokens: int) -> dict[str, Any]:
    loaded, target = _create(api, model, Params.from_json(params))
    cparams = oracle.context_params(api, Params.from_json(own))
    cparams.ctx_other = target
    context = api.llama_init_from_model(loaded, cparams)
    assert context, "llama.cpp refuses the heads' context"
    tokens = (ctypes.c_int32 * n_tokens)(*[1] * n_tokens)
    batch = api.llama_batch_get_one(tokens, n_tokens)
    assert api.llama_decode(target, batch) == 0
    before = _mapped_bytes()
    ask_for_states = api.llama_cpp._lib._Z26llama_set_embeddings_nextnP13llama_contextbb
    ask_for_states.argtypes = [ctypes.c_void_p, ctypes.c_bool, ctypes.c_bool]
    ask_for_states(target, True, False)
    assert api.llama_decode(target, batch) == 0
    mapped = _mapped_bytes() - before
    totals = (
        {q: sum(sizes[q] for sizes in oracle.breakdown(api, c).values()) for q in oracle.QUANTITIES}
        for c in (target, context)
    )
    return {**dict(zip(("model", "own"), totals, strict=True)), "output": {"mapped": mapped}}


def states(model: Path, params: Params, n_tokens: Sequence[int]) -> list[dict[str, int]]:
    """Bytes of sequence 0's state, `whole` and `partial`, after each number of tokens."""
    answer = ask("states", model=os.fspath(model), params=asdict(params), n_tokens=list(n_tokens))
    sizes: list[dict[str, int]] = answer["states"]
    return sizes


def _states(api: Any, model: str, params: dict[str, Any], n_tokens: Sequence[int]) -> dict[str, Any]:
    _, context = _create(api, model, Params.from_json(params))
    sizes, done = [], 0
    for n in n_tokens:
        while done < n:  # one token at a time: the batch decides nothing about the state
            assert api.llama_decode(context, api.llama_batch_get_one((ctypes.c_int32 * 1)(1), 1)) == 0
            done += 1
        size = {
            name: api.llama_state_seq_get_size_ext(context, 0, flag) for name, flag in (("whole", 0), ("partial", 1))
        }
        sizes.append(size)
    return {"states": sizes}


_QUESTIONS: Final[dict[str, Callable[..., dict[str, Any]]]] = {
    "adapters": _adapters,
    "draft": _draft,
    "heads": _heads,
    "states": _states,
}


def main(question: str, arguments: dict[str, Any]) -> None:
    """Answer one question."""
    from ggufphys.machine import llama_env
    from ggufphys.machine.llama_log import ALL, hear

    llama_env.prepare()
    ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, 128 << 10)  # fixed: otherwise it rises with what is freed
    import llama_cpp as api

    hear(api, sys.stderr.write, ALL)
    api.llama_backend_init()
    print(json.dumps(_QUESTIONS[question](api, **arguments)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
