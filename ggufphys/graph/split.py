"""Which device runs each node of a graph, and what is left of the graph on each of them?

ggml's scheduler runs a node where its weights are, gives nodes without weights to their neighbours, devices before the
host, and copies what crosses a border. Each device then has a graph of its own, laid out into a buffer of its own:
`split` gives these graphs. A device here is a name; `HOST` has the inputs.

Source: llama.cpp 0c1e570 ggml/src/ggml-backend.cpp, ggml_backend_sched_split_graph; src/llama-context.cpp,
llama_context::graph_get_cb.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.ops import F32
from ggufphys.params import HOST

Home = Callable[[str, str], str | None]
"""The device of a weight, by its name and the operation that reads it; None for what is no weight."""

PIPELINE_COPIES: Final = 4  # GGML_SCHED_MAX_COPIES
_VIEWS: Final = frozenset({"VIEW", "RESHAPE", "PERMUTE", "TRANSPOSE"})
_NOT_BY_WEIGHT: Final = frozenset({"ROPE", "FLASH_ATTN_EXT"})  # their weights are too small to decide
_NORMS: Final = frozenset({"NORM", "RMS_NORM"})
_NOTHING: Final = Tensor("NONE", F32, (0,), external=True)  # what a node shows that takes no bytes of its own


@dataclass(frozen=True, slots=True)
class Part:
    """What one device runs; its graph's marks are those of `layers`, from the first to the last that has nodes here."""

    graph: Graph
    layers: range


def split(
    graph: Graph, home: Home, *, offload_kqv: bool = True, norm_home: Home | None = None, n_copies: int = 1
) -> dict[str, Part]:
    """The part of `graph` that each device runs, which is taken apart for it.

    Args:
        graph: the whole graph.
        home: where weights are.
        offload_kqv: whether caches lie with their layers; otherwise on the host.
        norm_home: where norms run, by their weight: pinned to their layer when batches are small or all layers are
            offloaded; None where they run with the layer before.
        n_copies: of everything that crosses a border; more than one when devices work on several batches at a time.
    """
    return _Splitter(graph, _assign(graph, home, offload_kqv, norm_home), offload_kqv, n_copies).run()


def _assign(graph: Graph, home: Home, offload_kqv: bool, norm_home: Home | None) -> dict[int, str]:
    """A device for each node that computes, by `id`."""
    devices: dict[int, str] = {}
    nodes = [node for node in graph.nodes if node.op not in _VIEWS]
    for node in nodes:
        device = None
        if not offload_kqv and (_writes_cache(node) or _ends_attention(node)):
            device = HOST
        elif node.op not in _NOT_BY_WEIGHT:
            device = next(filter(None, (home(s.name, node.op) for s in node.src if s.external and s.name)), None)
        if device is not None:
            devices[id(node)] = device
        if norm_home is not None and node.src and node.src[0].op in _NORMS:
            pinned = norm_home(node.src[-1].name, node.op)
            if pinned is not None:
                devices[id(node.src[0])] = pinned
    for order, over_host in ((nodes, False), (nodes[::-1], False), (nodes, True), (nodes[::-1], True)):
        _expand(order, devices, over_host)
    return devices


def _expand(nodes: Iterable[Tensor], devices: dict[int, str], over_host: bool) -> None:
    """Give nodes without a device that of the last node that had one; not the host's, unless `over_host`."""
    current = None
    for node in nodes:
        device = devices.get(id(node))
        if device is not None:
            current = device if over_host or device != HOST else None
        elif current is not None:
            devices[id(node)] = current


class _Splitter:
    def __init__(self, graph: Graph, devices: dict[int, str], offload_kqv: bool, n_copies: int) -> None:
        self.graph = graph
        self.devices = devices
        self.offload_kqv = offload_kqv
        self.n_copies = n_copies
        self.parts: dict[str, Graph] = {HOST: Graph()}
        self.marks: dict[str, list[int]] = {HOST: []}  # of each part, as many as layers have begun in it
        self.n_begun = 0  # layers that have begun with the node at hand
        self.copies: dict[tuple[int, str], Tensor] = {}
        self.early: list[tuple[str, Tensor]] = []  # copies that are kept, in front of all other leafs

    def run(self) -> dict[str, Part]:
        begun = {n_nodes: n_begun for n_begun, n_nodes in enumerate(self.graph.marks, 1)}
        current, together, n_begun = HOST, list[tuple[Tensor, int]](), 0
        for i, node in enumerate(self.graph.nodes):
            n_begun = begun.get(i, n_begun)
            device = self.device(node) or current
            if node.op not in _VIEWS and device != current:
                self.close(current, together)
                current, together = device, []
            together.append((node, n_begun))
        self.close(current, together)
        self.keep_inputs()
        for device, tensor in self.early:
            self.part(device).leafs.append(tensor)
        kept = set(self.part(HOST).leafs)
        self.part(HOST).leafs += [leaf for leaf in self.graph.leafs if not leaf.external and leaf not in kept]
        return {device: self.finished(device, part) for device, part in self.parts.items()}

    def part(self, device: str) -> Graph:
        return self.parts.setdefault(device, Graph())

    def append(self, device: str, node: Tensor) -> None:
        """Add a node to a device's graph, and note where the layers begun by now start there."""
        part, marks = self.part(device), self.marks.setdefault(device, [])
        marks += [len(part.nodes)] * (self.n_begun - len(marks))
        part.nodes.append(node)

    def finished(self, device: str, part: Graph) -> Part:
        marks = self.marks.get(device, [])
        first = max(bisect_right(marks, 0) - 1, 0)  # layers before it have no nodes here
        part.marks = marks[first:]
        return Part(part, range(first, len(marks)))

    def device(self, tensor: Tensor) -> str | None:
        """Where a tensor's bytes are; None for weights, and caches that lie with their layers: where they are read."""
        if tensor.view_src is not None and tensor.op in _VIEWS:
            return self.device(tensor.view_src)
        if tensor.op != "NONE":
            return self.devices.get(id(tensor), HOST)
        if tensor.is_input:
            return HOST
        return None if self.offload_kqv or tensor.name else HOST

    def close(self, device: str, together: list[tuple[Tensor, int]]) -> None:
        """Add a run of nodes to its device's graph, behind the copies of what it reads from elsewhere."""
        self.n_begun = together[0][1] if together else 0
        for node, _ in together:
            if node.op in _VIEWS:
                continue
            for source in node.src:
                elsewhere = self.device(source)
                if elsewhere is not None and elsewhere != device and (id(source), device) not in self.copies:
                    self.copies[id(source), device] = self.copy(source, elsewhere, device)
            node.src = tuple(self.copies.get((id(s), device), s) for s in node.src)
        for node, self.n_begun in together:
            self.append(device if node.op not in _VIEWS else self.device(node) or device, node)

    def copy(self, source: Tensor, elsewhere: str, device: str) -> Tensor:
        """A tensor of the same layout on `device`; its original is kept until this moment."""
        copies = [
            Tensor("COPY", source.type, source.ne, nb=source.nb, is_input=source.is_input) for _ in range(self.n_copies)
        ]
        self.append(elsewhere, Tensor("KEEP", F32, (0,), (source,), view_of=_NOTHING))
        if self.n_copies == 1:
            self.append(device, copies[0])
        for tensor in copies if self.n_copies > 1 else ():
            tensor.is_input = tensor.is_output = True  # never freed
            self.early.append((device, tensor))
        return copies[0]

    def keep_inputs(self) -> None:
        """With several copies the inputs themselves are there as often, and are never freed."""
        if self.n_copies == 1:
            return
        inputs = [leaf for leaf in self.graph.leafs if leaf.is_input]
        kept = []
        for leaf in inputs:
            leaf.is_output = True
            kept.append((HOST, leaf))
            for _ in range(self.n_copies - 1):
                twin = Tensor("NONE", leaf.type, leaf.ne, is_input=True)
                twin.is_output = True
                kept.append((HOST, twin))
        self.early = kept + self.early


def _writes_cache(node: Tensor) -> bool:
    return node.op == "SET_ROWS" and node.view_src is not None and node.view_src.external


def _ends_attention(node: Tensor) -> bool:
    """The dense copy behind attention without flash attention, which is pinned to the host without offload_kqv."""
    source = node.src[0] if node.src else None
    return node.op == "CONT" and source is not None and source.op == "PERMUTE" and source.src[0].op == "MUL_MAT"
