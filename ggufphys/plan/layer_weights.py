"""How many bytes of weights has each layer, and on which device? What stands before and behind the layers, too."""

from collections.abc import Sequence

from ggufphys.arch.roles import Role, role_of
from ggufphys.frozen import dataclass
from ggufphys.memory.predict import Predictor
from ggufphys.params import Params
from ggufphys.plan.explain import LayerRow

EDGES = {Role.INPUT: "input", Role.OUTPUT: "output", Role.ROPE: "rotary factors"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerBytes:
    """A layer, or `input`, `output`, `rotary factors`: bytes of its weights and of what it keeps, by device.

    Weights are counted as in the file; a mapped file's gaps and what repacking adds are in the terms alone.
    """

    name: str
    weights: dict[str, int]
    keeps: dict[str, int]

    @property
    def is_layer(self) -> bool:
        """Or else what is before or behind them."""
        return self.name.isdecimal()

    @property
    def nbytes(self) -> int:
        """All bytes of the layer: its weights, and what it keeps."""
        return sum(self.weights.values()) + sum(self.keeps.values())


def layer_bytes(predictor: Predictor, params: Params, kept: Sequence[LayerRow]) -> tuple[LayerBytes, ...]:
    """Input, layers in order, output; `kept` are the rows of `layer_rows`, a row a layer and cache."""
    weights: dict[str, dict[str, int]] = {}
    for buffer, tensors in predictor.placed(params).weights.items():
        for tensor in tensors:
            role = role_of(predictor.gguf.architecture, tensor.name)
            of_role = weights.setdefault(str(role) if isinstance(role, int) else EDGES[role], {})
            of_role[buffer.device] = of_role.get(buffer.device, 0) + (tensor.nbytes or 0)
    keeps: dict[str, dict[str, int]] = {}
    for row in kept:
        of_layer = keeps.setdefault(str(row.first), {})
        of_layer[row.kv_device] = of_layer.get(row.kv_device, 0) + row.nbytes
    layers = sorted({name for name in (*weights, *keeps) if name.isdecimal()}, key=int)
    names = [name for name in ("input", *layers, "rotary factors", "output") if name in weights or name in keeps]
    return tuple(LayerBytes(name=n, weights=weights.get(n, {}), keeps=keeps.get(n, {})) for n in names)
