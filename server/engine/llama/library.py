"""How is llama.cpp loaded, given a model, and asked for a context? `ggufphys.Params` in, owned handles out.

The server and the measuring child use exactly this code, so what is measured is what is served. Only the low-level API:
`llama_cpp.Llama` reserves logits for every prompt token.
"""

import atexit
import functools
import importlib
import importlib.util
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

from ggufphys.errors import MissingExtraError, with_extra
from ggufphys.machine import llama_env
from ggufphys.params import Params
from server.engine.checks import check_context, check_model_file
from server.engine.errors import EngineError
from server.engine.llama.devices import load_backend, use_devices
from server.engine.llama.handles import Context, Model
from server.engine.llama.log import LOG

Progress = Callable[[float], bool]
"""Called with the loaded fraction, 0 to 1; returning False cancels the load."""


def require_library(otherwise: str = "") -> None:
    """Refuse what a child would run by llama.cpp, where there is none; `otherwise` is what can be done without.

    Raises:
        MissingExtraError: llama-cpp-python is not installed.
    """
    if importlib.util.find_spec("llama_cpp") is None:
        advice = "; ".join(filter(None, (with_extra("all"), otherwise)))
        raise MissingExtraError(f"this runs llama.cpp, and llama-cpp-python is not installed: {advice}")


@functools.cache
def load_library() -> ModuleType:
    """The `llama_cpp` module, with its environment prepared and its log going to `LOG`.

    Raises:
        MissingExtraError: llama-cpp-python is not installed, or its library cannot be loaded.
    """
    llama_env.prepare()
    try:
        api = importlib.import_module("llama_cpp")
    except ImportError as error:
        raise MissingExtraError(
            f"llama-cpp-python is needed here and not installed ({error}): {with_extra('all')}; `--engine numpy` goes "
            "without it"
        ) from error
    except (OSError, RuntimeError) as error:
        raise MissingExtraError(f"llama-cpp-python is installed but its library does not load: {error}") from error
    # The module has set a callback that prints errors; ours replaces it, and must live as long as the process.
    callback = api.llama_log_callback(LOG.receive)
    api.llama_log_set(callback, None)
    atexit.register(_disconnect_log, api, callback)
    api.llama_backend_init()
    load_backend(api)
    return api


def _disconnect_log(api: ModuleType, callback: object) -> None:
    """Static destructors may log when the interpreter, and with it our callback, is gone."""
    api.llama_log_set(api.llama_log_callback(), None)
    del callback


@functools.cache
def load_media_library() -> ModuleType:
    """The bindings of libmtmd, its log going to `LOG`: as long as the process lives, since it may always write.

    Raises:
        MissingExtraError: as `load_library`.
    """
    llama, api = load_library(), importlib.import_module("llama_cpp.mtmd_cpp")
    callback = llama.llama_log_callback(LOG.receive)
    api.mtmd_helper_log_set(callback, None)
    atexit.register(_disconnect_media_log, llama, api, callback)
    return api


def _disconnect_media_log(llama: ModuleType, api: ModuleType, callback: object) -> None:
    api.mtmd_helper_log_set(llama.llama_log_callback(), None)
    del callback


def system_info() -> str:
    """What llama.cpp was compiled with: `CPU : AVX2 = 1 | ... | AMX_INT8 = 1 | ...`."""
    return bytes(load_library().llama_print_system_info()).decode()


def default_threads() -> int:
    """One thread for each physical core this process may run on."""
    import psutil  # of an extra, which help for a command does not need

    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    # In a container or under taskset fewer may be usable; macOS and Windows cannot say.
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    return max(1, min(physical, usable))


def load_model(path: str | os.PathLike[str], params: Params, *, progress: Progress | None = None) -> Model:
    """Load a model file; of a split model any shard will do.

    Without devices in `params` everything lies on the host, whatever the build of llama.cpp could use.

    Raises:
        GGUFError: not a readable GGUF, or its tensor data is missing.
        UnsupportedError: a GGUF that is no model by itself.
        EngineError: llama.cpp could not load it (the message quotes its log), a device is not there, or `progress`
            returned False.
        OSError: the path does not exist or may not be read.
    """
    first_shard, hparams = check_model_file(path, params)
    api = load_library()
    native: Any = api.llama_model_default_params()
    in_use = use_devices(api, native, params)
    native.load_mode = {
        "none": api.LLAMA_LOAD_MODE_NONE,
        "mmap": api.LLAMA_LOAD_MODE_MMAP,
        "mlock": api.LLAMA_LOAD_MODE_MLOCK,
        "mmap+mlock": api.LLAMA_LOAD_MODE_MMAP_MLOCK,
        "dio": api.LLAMA_LOAD_MODE_DIRECT_IO,
    }[params.load_mode]
    native.use_extra_bufts = params.use_extra_bufts
    if params.no_alloc:  # llama.cpp only reckons what it would allocate; nothing can be computed
        native.no_alloc, native.load_mode = True, api.LLAMA_LOAD_MODE_NONE
    reporter = _Reporter(progress)
    callback = api.llama_progress_callback(reporter)  # alive until the load returns
    native.progress_callback = callback
    mark = LOG.mark
    pointer = api.llama_model_load_from_file(os.fsencode(first_shard), native)
    del in_use
    if pointer:
        return Model(api, pointer, first_shard, hparams)
    if reporter.error is not None:
        raise reporter.error
    if reporter.cancelled:
        raise EngineError(f"{path}: loading was cancelled")
    raise EngineError(f"{path}: llama.cpp could not load the model; {LOG.quote(mark)}")


def create_context(model: Model, params: Params, *, pooling: int | None = None, on_node: Any = None) -> Context:
    """Create a context with `params`; the first use of it must be on the thread that owns it.

    `pooling` (llama_pooling_type; -1: the file's) makes it one for embeddings. `on_node` is called around each node
    that is computed (cb_eval), and must live as long as the context.

    Raises:
        ValueError: parameters that llama.cpp would refuse or abort on.
        EngineError: llama.cpp could not create the context (usually memory); the message quotes its log.
    """
    resolved = check_context(params, model.hparams)
    api = model.api
    n_threads = params.n_threads or default_threads()
    native: Any = api.llama_context_default_params()
    native.n_ctx = params.n_ctx
    native.n_batch = params.n_batch
    native.n_ubatch = params.n_ubatch
    native.n_seq_max = params.n_seq_max
    native.n_outputs_max = params.n_outputs_max
    native.kv_unified = params.kv_unified
    native.offload_kqv = params.offload_kqv
    native.op_offload = params.op_offload
    native.swa_full = params.swa_full  # the C default is true, llama-server's and ours false
    native.type_k = int(resolved.type_k)
    native.type_v = int(resolved.type_v)
    native.flash_attn_type = {
        "auto": api.LLAMA_FLASH_ATTN_TYPE_AUTO,
        "on": api.LLAMA_FLASH_ATTN_TYPE_ENABLED,
        "off": api.LLAMA_FLASH_ATTN_TYPE_DISABLED,
    }[params.flash_attn]
    native.n_threads = n_threads
    native.n_threads_batch = n_threads
    if pooling is not None:
        native.embeddings, native.pooling_type = True, pooling
    if on_node is not None:
        native.cb_eval = on_node
    mark = LOG.mark
    pointer = api.llama_init_from_model(model.pointer, native)
    if not pointer:
        raise EngineError(
            f"{model.path}: llama.cpp could not create a context of {resolved.n_ctx} tokens; {LOG.quote(mark)}"
        )
    return Context(model, pointer, resolved, n_threads)


class _Reporter:
    """The load's progress callback. An exception may not cross C frames: it ends the load and is raised behind it."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress
        self.cancelled = False
        self.error: Exception | None = None

    def __call__(self, fraction: float, user_data: object) -> bool:
        if self.progress is None:
            return True
        try:
            self.cancelled = self.progress(fraction) is False
        except Exception as error:
            self.error = error
            return False
        return not self.cancelled
