"""How does an architecture decide what each layer keeps? Small functions that a row of `table.py` combines.

A rule takes hyperparameters and gives one tuple of caches for each layer that keeps anything at all; layers of the
next-token-prediction head are left out, since llama.cpp gives them a cache in draft contexts only.
"""

from collections.abc import Callable, Sequence

from ggufphys.arch.caches import FullKV, LayerCache, WindowKV
from ggufphys.errors import GGUFError
from ggufphys.hparams import HParams

LayerRule = Callable[[HParams], tuple[tuple[LayerCache, ...], ...]]
WindowSize = Callable[[HParams], int | None]  # None: no layer has a window
WindowPattern = Callable[[HParams], Sequence[bool]]  # for each layer of the trunk: has it a window?


def full(h: HParams) -> tuple[tuple[LayerCache, ...], ...]:
    """Every layer attends to the whole context.

    Source: llama.cpp 0c1e570 src/llama-model.cpp, llama_model::create_memory (default branch).
    """
    return tuple((_full_kv(h, il),) for il in range(h.n_layer))


def windowed(pattern: WindowPattern, size: WindowSize) -> LayerRule:
    """Layers marked by `pattern` attend to a window of `size` positions, the others to the whole context.

    Source: llama.cpp 0c1e570 src/llama-kv-cache-iswa.cpp, llama_kv_cache_iswa ctor.
    """

    def rule(h: HParams) -> tuple[tuple[LayerCache, ...], ...]:
        n_swa = size(h)
        if n_swa is None:
            return full(h)
        flags = pattern(h)
        return tuple((_window_kv(h, il, n_swa) if flags[il] else _full_kv(h, il),) for il in range(h.n_layer))

    return rule


def every(period: int, *, dense_first: bool = False) -> WindowPattern:
    """One layer in `period` is full: the last of each group, or the first with `dense_first`.

    The file's own pattern, an array of flags or a period, takes precedence.

    Source: llama.cpp 0c1e570 src/llama-model.cpp, load_swa_pattern; src/llama-hparams.cpp, set_swa_pattern.
    """

    def pattern(h: HParams) -> Sequence[bool]:
        if isinstance(h.swa_pattern, tuple):
            return h.swa_pattern
        n = period if h.swa_pattern is None else h.swa_pattern
        full_at = 0 if dense_first else n - 1
        return [n == 0 or il % n != full_at for il in range(h.n_layer)]

    return pattern


def flags_from_file(h: HParams) -> Sequence[bool]:
    """The file must say for each layer whether it has a window."""
    if not isinstance(h.swa_pattern, tuple):
        raise GGUFError(f"{h.arch}.attention.sliding_window_pattern must be an array with a flag for each layer")
    return h.swa_pattern


def size_required(h: HParams) -> int:
    """`attention.sliding_window`, which llama.cpp requires of this architecture."""
    if h.n_swa is None:
        raise GGUFError(f"key '{h.arch}.attention.sliding_window' is missing, which llama.cpp requires")
    return h.n_swa


def size_optional(h: HParams) -> int | None:
    """`attention.sliding_window`; without it, or with 0, no layer has a window."""
    return h.n_swa or None


def size_or(default: int) -> WindowSize:
    """`attention.sliding_window`, or `default` when the file does not say."""
    return lambda h: default if h.n_swa is None else h.n_swa


def size_fixed(n_swa: int) -> WindowSize:
    """`n_swa`, whatever the file says."""
    return lambda h: n_swa


def only_if(condition: Callable[[HParams], bool], size: WindowSize) -> WindowSize:
    """`size` for models that fulfil `condition`; others have no windows."""
    return lambda h: size(h) if condition(h) else None


def _full_kv(h: HParams, il: int) -> FullKV:
    n_head_kv = h.n_head_kv[il]
    return FullKV(n_embd_k_gqa=h.n_embd_head_k * n_head_kv, n_embd_v_gqa=h.n_embd_head_v * n_head_kv)


def _window_kv(h: HParams, il: int, n_swa: int) -> WindowKV:
    n_head_kv = h.n_head_kv[il]
    return WindowKV(
        n_embd_k_gqa=h.n_embd_head_k_swa * n_head_kv, n_embd_v_gqa=h.n_embd_head_v_swa * n_head_kv, n_swa=n_swa
    )
