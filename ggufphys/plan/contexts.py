"""Where do bytes lie at each length of context? The predictions that a page's slider goes through."""

from collections.abc import Callable, Iterator
from typing import Final

from ggufphys.frozen import dataclass, replace
from ggufphys.memory.prediction import MemoryPrediction
from ggufphys.params import Params
from ggufphys.plan.fits import Fit, fits

FIRST: Final = 512
MOST: Final = 64  # points: lengths to 2^40 tokens, in steps of a half


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextPoint:
    """One length of context: what it costs, and whether that fits where a limit was given."""

    prediction: MemoryPrediction
    fits: tuple[Fit, ...] = ()

    @property
    def n_ctx(self) -> int:
        """Tokens of context, as llama.cpp rounds them."""
        return self.prediction.context.n_ctx


def context_points(
    predict: Callable[[Params], MemoryPrediction],
    params: Params,
    asked: MemoryPrediction,
    *,
    n_ctx_train: int,
    limit_bytes: int | None = None,
) -> tuple[ContextPoint, ...]:
    """Points from 512 tokens to the trained length, each by half or a third longer; `asked` is one of them.

    `predict` makes of parameters with an n_ctx what is run. Lengths that llama.cpp would refuse are left out.
    """
    found = {asked.context.n_ctx: asked}
    for n_ctx in _lengths(max(n_ctx_train, asked.context.n_ctx)):
        try:
            prediction = predict(replace(params, n_ctx=n_ctx))
        except ValueError:  # llama.cpp would not run it so long, or so short
            continue
        found.setdefault(prediction.context.n_ctx, prediction)
    return tuple(
        ContextPoint(prediction=p, fits=fits(p, limit_bytes) if limit_bytes is not None else ())
        for _, p in sorted(found.items())
    )


def _lengths(longest: int) -> Iterator[int]:
    n_ctx, n = FIRST, 0
    while n_ctx < longest and n < MOST:
        yield n_ctx
        n_ctx, n = n_ctx * 3 // 2 if n_ctx.bit_count() == 1 else n_ctx * 4 // 3, n + 1
    yield longest
