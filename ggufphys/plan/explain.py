"""What does each layer keep, and where? A row a cache a layer, to be read beside the terms of a prediction."""

from collections.abc import Iterator, Sequence

from ggufphys.arch import FullKV, LayerCache
from ggufphys.context import ContextParams
from ggufphys.frozen import dataclass, replace
from ggufphys.graph.devices.backends import CPU, Backend
from ggufphys.memory.context import cache_bytes
from ggufphys.memory.predict import Predictor
from ggufphys.params import Params


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptTensor:
    """A tensor of a cache: `n_rows` rows, all streams together, of `width` elements."""

    name: str
    type: str
    width: int
    n_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRow:
    """What layers `first` to `last` keep, each of them. A layer without a cache has no tensors and 0 bytes.

    `device` has the layer's weights (but for overrides), `kv_device` its cache. `n_cells` is the length of a stream,
    None for states of a whole sequence.
    """

    first: int
    last: int
    device: str
    kv_device: str
    keeps: str
    n_cells: int | None
    n_stream: int | None
    tensors: tuple[KeptTensor, ...]
    nbytes: int

    @property
    def n_layers(self) -> int:
        """How many layers the row speaks for."""
        return self.last - self.first + 1

    @property
    def total_bytes(self) -> int:
        """What all of them keep."""
        return self.n_layers * self.nbytes


def layer_rows(predictor: Predictor, params: Params, context: ContextParams) -> tuple[LayerRow, ...]:
    """A row for each cache of each layer, layers in order; their bytes add up to context_bytes.

    `context` is what `params` become for the model (`MemoryPrediction.context`).
    """
    placement = predictor.placed(params).placement
    backends = placement.backends
    rows: list[LayerRow] = []
    for il, caches in enumerate(predictor.rule_in(params).layers(predictor.h, context.ctx_type)):
        device, kv_device = placement.layers[il], placement.kv(il)
        kept = [_row(il, cache, context, device, kv_device, backends.get(kv_device, CPU)) for cache in caches]
        kept = [row for row in kept if row.tensors]
        rows += kept or [_nothing(il, device)]
    return tuple(rows)


def folded(rows: Sequence[LayerRow]) -> tuple[LayerRow, ...]:
    """The rows, with a run of layers that keep alike in one of them."""
    layers: dict[int, list[LayerRow]] = {}
    for row in rows:
        layers.setdefault(row.first, []).append(row)
    return tuple(_runs(layers))


def _runs(layers: dict[int, list[LayerRow]]) -> Iterator[LayerRow]:
    run: list[LayerRow] = []
    for il, kept in layers.items():
        if [_content(row) for row in run] == [_content(row) for row in kept]:
            run = [replace(row, last=il) for row in run]
        else:
            yield from run
            run = kept
    yield from run


def _content(row: LayerRow) -> LayerRow:
    return replace(row, first=0, last=0)


def _row(il: int, cache: LayerCache, context: ContextParams, device: str, kv_device: str, backend: Backend) -> LayerRow:
    attends = cache if isinstance(cache, FullKV) else None
    return LayerRow(
        first=il,
        last=il,
        device=device,
        kv_device=kv_device,
        keeps=cache.title(),
        n_cells=attends.n_cells(context) if attends else None,
        n_stream=attends.n_stream(context) if attends else None,
        tensors=tuple(
            KeptTensor(name=t.name, type=t.ggml_type.name.lower(), width=t.width, n_rows=t.n_rows)
            for t in cache.tensors(context)
        ),
        nbytes=cache_bytes(cache, context, backend),
    )


def _nothing(il: int, device: str) -> LayerRow:
    return LayerRow(
        first=il, last=il, device=device, kv_device=device, keeps="nothing",
        n_cells=None, n_stream=None, tensors=(), nbytes=0,
    )  # fmt: skip
