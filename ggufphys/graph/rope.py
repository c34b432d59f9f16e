"""By which angles are heads turned? The settings of rotary positions as llama.cpp resolves them for a context.

Source: llama.cpp 0c1e570 src/llama-model.cpp, llama_model_base::load_hparams; src/llama-context.cpp, llama_context
ctor (yarn_attn_factor).
"""

from typing import Literal

from ggufphys.frozen import dataclass, replace
from ggufphys.graph.floats import logarithm, quotient
from ggufphys.hparams.hparams import HParams
from ggufphys.hparams.keys import Keys

RopeMode = Literal["norm", "neox", "mrope", "imrope", "vision"]
"""Which elements are pairs: neighbours (norm), or those half a rotation apart (the others)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """What ggml_rope_ext takes, named alike; `sections` are the dimensions of each of four positions (mrope).

    The `n_dims` elements from `offset` on are turned, the others stay as they are.
    """

    n_dims: int
    mode: RopeMode
    n_ctx_orig: int
    freq_base: float
    freq_scale: float = 1.0
    ext_factor: float = 0.0
    attn_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    sections: tuple[int, ...] = ()
    offset: int = 0

    @property
    def n_pos_per_embd(self) -> int:
        """Positions of a token: four (time, height, width, another) where the dimensions have sections."""
        return 4 if self.mode in ("mrope", "imrope") else 1


def read_rope(
    keys: Keys, h: HParams, mode: RopeMode, *, log_mul: float = 0.0, mscale: float = 1.0, sections: tuple[int, ...] = ()
) -> Rope:
    """The settings of layers without a window: extended by YaRN where the file says so.

    `log_mul` and `mscale` are what few architectures read beside: of yarn_log_multiplier, and of values.
    """
    scaling = keys.text("rope.scaling.type", "linear")
    factor = 1.0 if scaling == "none" else quotient(1, trained_scale(keys))
    attn_factor = 1.0
    if scaling == "yarn":
        attn_factor = quotient(_attn_factor(factor, mscale), _attn_factor(factor, log_mul) if log_mul else 1.0)
        attn_factor = quotient(attn_factor, 1 + 0.1 * logarithm(factor))  # ggml multiplies by it once more
    return Rope(
        n_dims=keys.integer("rope.dimension_count", h.n_embd_head_k),
        mode=mode,
        n_ctx_orig=keys.integer("rope.scaling.original_context_length", h.n_ctx_train) or h.n_ctx_train,
        freq_base=keys.real("rope.freq_base", 10000.0),
        freq_scale=quotient(1, factor),
        ext_factor=1.0 if scaling == "yarn" else 0.0,
        attn_factor=attn_factor * keys.real("rope.scaling.attn_factor", 1.0),
        sections=sections,
    )


def read_rope_swa_alike(keys: Keys, full: Rope, *, own_dims: bool = False) -> Rope:
    """The settings of layers with a window, for architectures where they differ in nothing unless the file says so."""
    return read_rope_swa(keys, full, freq_base=full.freq_base, freq_scale=trained_scale(keys), own_dims=own_dims)


def trained_scale(keys: Keys) -> float:
    """The scale of frequencies that the file names, which holds even where its type of scaling is none."""
    return 1 / (keys.real("rope.scaling.factor", keys.real("rope.scale_linear", 0.0)) or 1.0)


def read_sections(keys: Keys) -> tuple[int, ...]:
    """The sections of dimensions, one for each of a token's positions; empty where a token has one.

    Source: llama.cpp 0c1e570 src/llama-hparams.cpp, use_mrope.
    """
    numbers = keys.numbers("rope.dimension_sections")
    sections = numbers if isinstance(numbers, tuple) else () if numbers is None else (numbers,) * 4
    return sections if len(sections) > 1 and min(sections[:2]) > 0 else ()


def _attn_factor(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * logarithm(factor) + 1


def read_rope_swa(
    keys: Keys, full: Rope, *, freq_base: float = 10000.0, freq_scale: float = 1.0, own_dims: bool = False
) -> Rope:
    """The settings of layers with a window, from those without: a base of their own, and usually no scaling.

    `freq_base` is the default of rope.freq_base_swa; the architectures differ in both, and in whether such layers may
    turn another number of dimensions. YaRN's constants stay.
    """
    return replace(
        full,
        n_dims=keys.integer("rope.dimension_count_swa", full.n_dims) if own_dims else full.n_dims,
        freq_base=keys.real("rope.freq_base_swa", freq_base),
        freq_scale=freq_scale,
    )
