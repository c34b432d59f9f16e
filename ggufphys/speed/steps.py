"""How long does a batch take? The seconds of its nodes, by what they are for, and of what crosses between devices.

A deep model's graph is not built in full, as in `speed.costs`: one more layer of a kind tells what each of them takes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property

from ggufphys.arch.caches import WindowKV
from ggufphys.context import ContextParams
from ggufphys.frozen import dataclass
from ggufphys.gguf import GGMLType, TensorInfo
from ggufphys.gguf.ggml_types import SIZES
from ggufphys.graph.batch import SMALL_BATCH, Batch
from ggufphys.graph.describing.cost import node_costs
from ggufphys.graph.describing.kinds import Kind, node_kinds
from ggufphys.graph.devices.homes import Home, homes, layers_of, norm_home, offload
from ggufphys.graph.devices.placed import REPACKED
from ggufphys.graph.devices.runs import Run
from ggufphys.graph.devices.split import assign
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.params import HOST
from ggufphys.speed.nodes import CACHE_LINE, Seconds, Surroundings, Weight, node_seconds
from ggufphys.speed.rates import CalibrationError, Machine, Processor

LINK_S = 10e-6  # what a copy between devices takes beside its bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSeconds:
    """One batch: its seconds by what nodes are for, beside its nodes, and between devices.

    `by_weight` are the seconds of the products with each weight, by its name without its layer's.
    """

    by_kind: Mapping[Kind, Seconds]
    by_weight: Mapping[str, Seconds]
    outside_s: float
    link_s: float
    working_set_bytes: float
    n_nodes: float

    @property
    def total(self) -> Seconds:
        """All of it; what is outside of nodes is overhead, what crosses between devices bandwidth."""
        sum_ = Seconds(overhead=self.outside_s, bandwidth=self.link_s)
        for seconds in self.by_kind.values():
            sum_ = sum_.plus(seconds)
        return sum_


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """A graph of some layers, which counts so many `times`, and its nodes' seconds; the bytes that all nodes keep."""

    times: float
    graph: Graph
    devices: Mapping[Tensor, str]
    seconds: Sequence[tuple[Tensor, Seconds]]
    working_set_bytes: float


class Steps:
    """The seconds of batches of one model that is run in one way on one machine."""

    def __init__(self, run: Run, machine: Machine, n_threads: int) -> None:
        self.run, self.machine = run, machine
        self.layouts, self.placed = run.layouts, run.placed
        self.host = machine.host(n_threads)
        self.uses_devices = run.placed.uses_devices
        self._repacked = frozenset(t.name for t in run.placed.weights.get(REPACKED, ()))
        self._weights: dict[str, Sequence[tuple[Weight, float]]] = {}
        self._made: dict[tuple[ContextParams, Batch, int], StepSeconds] = {}
        self._home: Home = lambda tensor, reader: HOST

    def processor(self, device: str) -> Processor:
        """The processor that runs what lies on a device.

        Raises:
            CalibrationError: the machine has no rates for it.
        """
        if device == HOST:
            return self.host
        found = self.machine.device(device)
        if found is None:
            raise CalibrationError(f"{self.machine.name} has no rates of {device}")
        return found

    def step(self, context: ContextParams, batch: Batch, depth: int) -> StepSeconds:
        """One batch, `depth` tokens in the cache of each of its sequences.

        Raises:
            CalibrationError: the machine has no rates for a device that runs a part of it.
        """
        key = (context, batch, depth)
        if key not in self._made:
            self._made[key] = self._step(context, batch, depth)
        return self._made[key]

    def _step(self, context: ContextParams, batch: Batch, depth: int) -> StepSeconds:
        by_kind: dict[Kind, Seconds] = {}
        by_weight: dict[str, Seconds] = {}
        link_s = 0.0
        parts = self.priced(context, batch, depth)
        for part in parts:
            kinds = node_kinds(part.graph, self.layouts.caches)
            for node, seconds in part.seconds:
                by_kind[kinds[node]] = by_kind.get(kinds[node], Seconds()).plus(seconds, part.times)
                name = _weight_name(node)
                if name:
                    by_weight[name] = by_weight.get(name, Seconds()).plus(seconds, part.times)
                if self.uses_devices:
                    link_s += part.times * self._crossing(node, part.devices.get(node, HOST), part.devices)
        return StepSeconds(
            by_kind=by_kind, by_weight=by_weight, outside_s=self.outside_s(parts, batch), link_s=link_s,
            working_set_bytes=parts[0].working_set_bytes, n_nodes=_n_nodes(parts),
        )  # fmt: skip

    def outside_s(self, parts: Sequence[Priced], batch: Batch) -> float:
        """What a batch takes beside its nodes, its logits handed out."""
        logits_s = 4 * batch.n_outputs * self._n_vocab / self.host.bytes_per_s
        return self.host.step_s + logits_s + _n_nodes(parts) * self.host.step_node_s

    def priced(self, context: ContextParams, batch: Batch, depth: int) -> Sequence[Priced]:
        """The nodes of a batch with what each takes, in the graphs that are built for it.

        Raises:
            CalibrationError: as `step`.
        """
        built = []
        for times, layers in self._graphs:
            graph = self.layouts.graph(context, batch, layers)
            built.append((times, layers, graph, list(node_costs(graph, self.layouts.alike))))
        kept_bytes = sum(
            times * (cost.weight_bytes + cost.cache_read_bytes) for times, _, _, costs in built for _, cost in costs
        )
        arounds: dict[str, Surroundings] = {}
        found = []
        for times, layers, graph, costs in built:
            devices = self._devices(graph, batch, layers)
            seconds = []
            for node, cost in costs:
                device = devices.get(node, HOST)
                cpu = self.processor(device)
                if device not in arounds:
                    arounds[device] = self._surroundings(cpu, kept_bytes, depth)
                seconds.append((node, node_seconds(node, cost, cpu, arounds[device])))
            found.append(
                Priced(times=times, graph=graph, devices=devices, seconds=seconds, working_set_bytes=kept_bytes)
            )
        return found

    @cached_property
    def _graphs(self) -> Sequence[tuple[float, Sequence[int]]]:
        """Which layers to build, and how many times each such graph counts."""
        layers: dict[object, list[int]] = {}
        for il, kind in enumerate(self.layouts.kinds):
            layers.setdefault((kind, self._place(il)), []).append(il)
        first = sorted(alike[0] for alike in layers.values())
        more = [(len(a) - 1, sorted([*first, a[1]])) for a in layers.values() if len(a) > 1]
        return [(1.0 - sum(n for n, _ in more), first), *((float(n), built) for n, built in more)]

    def _place(self, il: int) -> object:
        """What tells a layer from others of its kind: its device, and which of its weights are elsewhere."""
        if not self.uses_devices:
            return None
        return self.placed.placement.layers[il], self._elsewhere.get(il, frozenset())

    @cached_property
    def _elsewhere(self) -> Mapping[int, frozenset[tuple[str, str]]]:
        found: dict[int, set[tuple[str, str]]] = {}
        for buffer, tensors in self.placed.weights.items():
            for tensor in tensors:
                _, _, rest = tensor.name.partition("blk.")
                il, _, name = rest.partition(".")
                if il.isdecimal():
                    found.setdefault(int(il), set()).add((name, buffer.device))
        return {il: frozenset(names) for il, names in found.items()}

    @cached_property
    def _n_vocab(self) -> int:
        head = self.layouts.tensors.get("output.weight") or self.layouts.tensors.get("token_embd.weight")
        return head.ne[1] if head is not None and len(head.ne) > 1 else 0

    def _surroundings(self, cpu: Processor, kept_bytes: float, depth: int) -> Surroundings:
        def visible(node: Tensor, n_tokens: int, tile: int) -> float:
            return cells_seen(n_tokens, depth, self._window(node), tile, node.src[1].ne[1], causal=self._causal)

        return Surroundings(
            cold=cpu.cold_share(kept_bytes), cold_by_four=cpu.cold_share(kept_bytes, by_four=True),
            weights=self._shares, visible=visible,
        )  # fmt: skip

    def _shares(self, tensor: Tensor) -> Sequence[tuple[Weight, float]]:
        """What a weight is in the layers that it stands for; the same in every batch."""
        owner = tensor.view_src or tensor
        if not owner.external or not owner.name:
            return ((Weight(tensor.type, repacked=False), 1.0),)
        found = self._weights.get(owner.name)
        if found is None:
            counts = Counter(map(self._weight, self.layouts.alike(owner.name)))
            counts = counts or Counter([Weight(owner.type, owner.name in self._repacked)])
            found = self._weights[owner.name] = [(weight, n / counts.total()) for weight, n in counts.items()]
        return found

    @cached_property
    def _shifted(self) -> frozenset[str]:
        """Weights that begin within a cache line: a mapped file's lie in memory as in the file."""
        mapped = {t.name for buffer, tensors in self.placed.weights.items() if buffer.mapped for t in tensors}
        starts = [shard.header.data_offset for shard in self.run.gguf.shards]
        tensors = self.run.gguf.tensors
        return frozenset(t.name for t in tensors if t.name in mapped and (starts[t.shard] + t.offset) % CACHE_LINE)

    @property
    def _causal(self) -> bool:
        return self.layouts.h.causal_attn

    def _weight(self, info: TensorInfo) -> Weight:
        ggml_type = GGMLType(info.ggml_type) if info.ggml_type in SIZES else GGMLType.F16
        return Weight(ggml_type, info.name in self._repacked, info.name in self._shifted)

    @staticmethod
    def _window(node: Tensor) -> int:
        """How far back a token sees; 0: all the way."""
        mask = node.src[3] if len(node.src) > 3 else None
        cache = mask.params[0] if mask is not None and mask.params else None
        return cache.n_swa if isinstance(cache, WindowKV) else 0

    def _devices(self, graph: Graph, batch: Batch, layers: Sequence[int]) -> Mapping[Tensor, str]:
        if not self.uses_devices:
            return {}
        placement, arch = self.placed.placement, self.layouts.h.arch
        pins_norms = placement.is_whole or batch.n_tokens < SMALL_BATCH
        self._home = homes(arch, self.placed, layers_of("ROPE", graph, layers))
        return assign(
            graph,
            self._home,
            norm_home(arch, placement) if pins_norms else None,
            not self.placed.params.offload_kqv,
            offload(self.placed),
            placement.backends,
        )

    def _crossing(self, node: Tensor, device: str, devices: Mapping[Tensor, str]) -> float:
        """Seconds for what a node reads that lies elsewhere; nothing where the link's rate is not known."""
        rate = self.machine.link_bytes_per_s
        if not rate:
            return 0.0
        seconds = 0.0
        for source in node.src:
            owner = source.view_src or source
            if owner.external:
                elsewhere = self._home(owner, node) != device
            else:
                elsewhere = owner.op != "NONE" and devices.get(owner, device) != device
            if elsewhere:
                seconds += LINK_S + source.nbytes / rate
        return seconds


def _n_nodes(parts: Sequence[Priced]) -> float:
    return sum(part.times * len(part.graph.nodes) for part in parts)


def cells_seen(n_tokens: int, depth: int, window: int, tile: int, n_cells: int, *, causal: bool = True) -> float:
    """How many cells all tokens of a sequence see together, behind `depth` earlier ones.

    Token `i` sees itself and those before it, as far as its window (0: none) goes; without causal attention every one
    sees all. By tiles, all tokens of a tile look at every tile of cells of which one of them sees a cell.
    """
    if not causal:
        return float(n_tokens * min(n_cells, depth + n_tokens))
    seen = 0.0
    for first in range(0, n_tokens, tile):
        n = min(tile, n_tokens - first)
        newest = depth + first + n - 1
        oldest = max(0, depth + first - window + 1) if window else 0
        span = (newest // tile - oldest // tile + 1) * tile if tile > 1 else newest - oldest + 1
        seen += n * min(span, n_cells)
    return seen


def _weight_name(node: Tensor) -> str:
    """The weight that a product is with, without its layer's part; empty for other nodes."""
    if node.op not in ("MUL_MAT", "MUL_MAT_ID"):
        return ""
    owner = node.src[0].view_src or node.src[0]
    return owner.name.partition("blk.")[2].partition(".")[2] or owner.name if owner.external and owner.name else ""
