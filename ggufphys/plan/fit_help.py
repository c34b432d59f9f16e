"""Nothing fits: what is the smallest thing that would help? A shorter context, more memory in one place, fewer bits.

Each is found by prediction, and fits by prediction.
"""

from collections.abc import Iterator
from functools import cache
from typing import Final, Literal

from ggufphys.errors import GGUFPhysError
from ggufphys.frozen import dataclass, replace
from ggufphys.gguf import GGUFFile
from ggufphys.memory.predict import Predictor
from ggufphys.params import HOST
from ggufphys.plan.fit import LEAST, Choice, Fitter, Trial
from ggufphys.plan.fit_space import context_step
from ggufphys.plan.search import largest

MIB: Final = 1 << 20
_ROUNDS: Final = 6
# From more bits to fewer, those that people publish; an importance matrix for the last ones.
FILE_TYPES: Final = (
    "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "IQ3_XXS", "Q2_K", "IQ2_XXS", "IQ1_S",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Help:
    """One thing that would help by itself: a context, more bytes by place, a file type and its length."""

    kind: Literal["context", "memory", "file_type"]
    more_bytes: dict[str, int] | None = None
    n_ctx: int | None = None
    file_type: str | None = None
    file_bytes: int | None = None


def helps(fitter: Fitter) -> tuple[Help, ...]:
    """What would help, where `fitter` has found that nothing fits; at least the memory that is missing."""
    return (*_shorter(fitter), *_more_memory(fitter), *_fewer_bits(fitter))


def _shorter(fitter: Fitter) -> Iterator[Help]:
    """The longest context that would fit, when the least that is asked for does not."""
    asked = int(fitter.at(LEAST).params.n_ctx)
    step = context_step(fitter.params)
    fixed = fitter.fixed - {"n_ctx"}
    shorter = Fitter(
        fitter.predictor, replace(fitter.params, n_ctx=0), fitter.budget,
        fixed=fixed, n_ctx_min=step, predict=fitter.predict,
    )  # fmt: skip
    top = -(-asked // step) - 2
    if top < 0 or not shorter.at(LEAST).fits:
        return
    found = largest(0, top, lambda n: shorter.at(Choice(None, n_ctx=n)).tightest.over_bytes)
    yield Help(kind="context", n_ctx=shorter.at(Choice(None, n_ctx=found)).params.n_ctx)


def _more_memory(fitter: Fitter) -> Iterator[Help]:
    """What is missing where the model was tried; and how much more on one device would do instead."""
    least = fitter.at(LEAST)
    missing = {place.name: _whole_mib(place.over_bytes) for place in least.places if place.over_bytes > 0}
    yield Help(kind="memory", more_bytes=missing)
    if list(missing) != [HOST] or fitter.scales["level"].top == 0:
        return
    enough = _least_level(fitter)
    if enough is None:
        return
    for device in fitter.devices:
        more = _more_on(fitter, device.name, Choice(enough))
        if more is not None:
            yield Help(kind="memory", more_bytes={device.name: more})


def _least_level(fitter: Fitter) -> int | None:
    """The fewest layers that must leave main memory; None if all of them are not enough."""
    top = fitter.scales["level"].top

    def over(n_fewer: int) -> int:
        return _on_host(fitter.at(Choice(top - n_fewer)))

    return top - largest(0, top, over) if over(0) <= 0 else None


def _more_on(fitter: Fitter, name: str, choice: Choice) -> int | None:
    """Bytes that a device would need more, so that this choice fits; None if it cannot help alone."""
    more = _whole_mib(sum(max(0, place.over_bytes) for place in fitter.at(choice).places))
    for _ in range(_ROUNDS):
        over = [place for place in fitter.with_more(name, more).at(choice).places if place.over_bytes > 0]
        if not over:
            return more
        more += _whole_mib(sum(place.over_bytes for place in over))
    return None


def _fewer_bits(fitter: Fitter) -> Iterator[Help]:
    """The file type with the most bits that would fit, as llama-quantize would make it of this file."""
    if fitter.predict != fitter.predictor.predict:  # what is attached is attached to this file
        return
    gguf = fitter.predictor.gguf

    @cache
    def made(n: int) -> GGUFFile | None:
        return _quantized(gguf, FILE_TYPES[len(FILE_TYPES) - 1 - n])

    @cache
    def over(n: int) -> int:
        file = made(n)
        if file is None or file.tensor_bytes >= gguf.tensor_bytes:
            return gguf.tensor_bytes
        trial = Fitter(
            Predictor(file, force=fitter.predictor.force), fitter.params,
            fitter.budget, fixed=fitter.fixed, n_ctx_min=fitter.n_ctx_min
        ).at(LEAST)  # fmt: skip
        return trial.tightest.over_bytes

    n = largest(0, len(FILE_TYPES) - 1, over)
    file = made(n)
    if file is not None and over(n) <= 0:
        yield Help(kind="file_type", file_type=FILE_TYPES[len(FILE_TYPES) - 1 - n], file_bytes=file.file_bytes)


def _quantized(gguf: GGUFFile, file_type: str) -> GGUFFile | None:
    from ggufphys.plan.quantize import QuantizeOptions, quantize_model, types_as_made  # when nothing fits alone
    from ggufphys.plan.retype import retyped

    try:
        model = quantize_model(gguf.metadata)
        types, _ = types_as_made(model, gguf.tensors, file_type, QuantizeOptions(allow_requantize=True))
        return retyped(gguf, types, file_type)
    except (ValueError, GGUFPhysError):
        return None


def _on_host(trial: Trial) -> int:
    return next((place.over_bytes for place in trial.places if place.name == HOST), 0)


def _whole_mib(nbytes: int) -> int:
    return -(-nbytes // MIB) * MIB


__all__ = ["FILE_TYPES", "Help", "helps"]
