"""Which device runs each node of a graph, and what is left of the graph on each of them?

ggml's scheduler runs a node where its weights are, gives nodes without weights to their neighbours, devices before the
host, and copies what crosses a border. Each device then has a graph of its own, laid out into a buffer of its own:
`split` gives these graphs. A device here is a name; `HOST` has the inputs.

A backend may lack an operation, which then goes to the host, and run what it is given in another order.

Source: llama.cpp 0c1e570 ggml/src/ggml-backend.cpp, ggml_backend_sched_split_graph; src/llama-context.cpp,
llama_context::graph_get_cb.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import Final

from ggufphys.graph.allocating.lifetimes import is_constant
from ggufphys.graph.devices.backends.backend import UNLIMITED, Backend, Scratch, everything
from ggufphys.graph.devices.backends.order import Order
from ggufphys.graph.devices.homes import Home, NormHome, Offload
from ggufphys.graph.ir import Graph, Part, Tensor
from ggufphys.graph.ops import F32
from ggufphys.params import HOST

PIPELINE_COPIES: Final = 4  # GGML_SCHED_MAX_COPIES
VIEWS: Final = frozenset({"VIEW", "RESHAPE", "PERMUTE", "TRANSPOSE"})
_NOT_BY_WEIGHT: Final = frozenset({"ROPE", "FLASH_ATTN_EXT"})  # their weights are too small to decide
_NORMS: Final = frozenset({"NORM", "RMS_NORM", "GROUP_NORM"})
_NOTHING: Final = Tensor("NONE", F32, (0,), external=True)  # what a node shows that takes no bytes of its own


class _Abilities:
    """What the devices of a graph can run; sizes are looked at only where some tensor of the graph is too large."""

    def __init__(self, graph: Graph, backends: Mapping[str, Backend]) -> None:
        self.backends = {name: b for name, b in backends.items() if b.supports is not everything}
        least = min((b.max_tensor_bytes for b in self.backends.values()), default=UNLIMITED)
        tensors = (tensor for tensor in (*graph.nodes, *graph.leafs) if tensor.view_src is None)
        self.has_large = least < UNLIMITED and any(t.nb[3] * t.ne[3] > least for t in tensors)  # which lie dense

    def runs(self, device: str, node: Tensor) -> bool:
        backend = self.backends.get(device)
        return backend is None or (backend.runs(node) if self.has_large else backend.supports(node))


def split(
    graph: Graph,
    home: Home,
    *,
    norm_home: NormHome | None = None,
    pins_attention: bool = False,
    offload: Offload | None = None,
    backends: Mapping[str, Backend] = MappingProxyType({}),
    reorders: bool = True,
    n_copies: int = 1,
) -> dict[str, Part]:
    """The part of `graph` that each device runs, which is taken apart for it.

    Args:
        graph: the whole graph.
        home: where weights and caches are.
        norm_home: where norms run, and what else the graph pins: pinned to their layer when batches are small or all
            layers are offloaded; None where they run with the layer before.
        pins_attention: whether attention without flash attention ends on the host (without offload_kqv).
        offload: which nodes a device takes from the host, weights and all.
        backends: of the devices; one without runs everything, as it comes.
        reorders: whether they may run it in another order.
        n_copies: of everything that crosses a border; more than one when devices work on several batches at a time.

    Raises:
        ValueError: llama.cpp would end itself, since a device cannot write to a cache that lies there.
    """
    devices = assign(graph, home, norm_home, pins_attention, offload, backends)
    return _Splitter(graph, devices, home, backends, reorders, n_copies).run()


def assign(
    graph: Graph,
    home: Home,
    norm_home: NormHome | None,
    pins_attention: bool,
    offload: Offload | None,
    backends: Mapping[str, Backend],
) -> dict[Tensor, str]:
    """A device for each node that computes; see `split`."""
    devices: dict[Tensor, str] = {}
    nodes = [node for node in graph.nodes if node.op not in VIEWS]
    abilities = _Abilities(graph, backends)
    for node in nodes:
        device = _by_bytes(node, home, offload, abilities)
        if pins_attention and _ends_attention(node):
            device = HOST
        if device is not None:
            devices[node] = device
        if norm_home is not None and (pinned := _pinned(node, graph)) is not None:
            where = norm_home(pinned[1])
            if where is not None:
                devices[pinned[0]] = where
    for order, over_host in ((nodes, False), (nodes[::-1], False), (nodes, True), (nodes[::-1], True)):
        if len(devices) == len(nodes):  # each has one
            break
        _expand(order, devices, over_host, abilities)
    return devices | {node: HOST for node in nodes if node not in devices}


def _pinned(node: Tensor, graph: Graph) -> tuple[Tensor, str] | None:
    """A node that is pinned to its layer, and the beginning of the names of the layer's weights."""
    if node in graph.pinned:
        return node, f"blk.{graph.pinned[node]}."
    src = node.src
    return (src[0], src[-1].name) if src and src[0].op in _NORMS and src[0] not in graph.pinned else None


def _by_bytes(node: Tensor, home: Home, offload: Offload | None, abilities: _Abilities) -> str | None:
    """Where a node must run: where the cache is that it writes, or its first weight.

    None where it does not matter, or where the weight's device cannot run it.
    """
    if node.view_src is not None and node.view_src.external:
        device = home(node.view_src, node)
        if not abilities.runs(device, node):
            raise ValueError(
                f"{device} cannot run {node.op} on a cache of {int(node.view_src.nbytes):,} bytes, which lies there: "
                "llama.cpp would end itself (keep the cache on the host, offload_kqv off, or make it smaller)"
            )
        return device
    if node.op in _NOT_BY_WEIGHT:
        return None
    for source in node.src:
        if source.external and source.name:  # views do not count
            device = home(source, node)
            if not abilities.runs(device, node):
                return None
            return (offload(node) if device == HOST and offload is not None else None) or device
    return None


def _expand(nodes: Iterable[Tensor], devices: dict[Tensor, str], over_host: bool, abilities: _Abilities) -> None:
    """Give nodes without a device that of the last node that had one, if it can; not the host's, unless `over_host`."""
    current = None
    for node in nodes:
        device = devices.get(node)
        if device is not None:
            current = device if over_host or device != HOST else None
        elif current is not None and abilities.runs(current, node):
            devices[node] = current


class _Splitter:
    def __init__(
        self,
        graph: Graph,
        devices: dict[Tensor, str],
        home: Home,
        backends: Mapping[str, Backend],
        reorders: bool,
        n_copies: int,
    ) -> None:
        self.graph = graph
        self.backends = backends
        self.orders = {name: b.reorder for name, b in backends.items() if b.reorder is not None} if reorders else {}
        self.scratch = {name: b.scratch for name, b in backends.items() if b.scratch}
        self.uses = Counter(chain.from_iterable([node.src for node in graph.nodes])) if self.orders else Counter()
        # What is neither computed nor an input lies where it is read first.
        constants = frozenset(filter(is_constant, graph.leafs))
        read = ((source, node) for node in reversed(graph.nodes if constants else ()) for source in node.src)
        self.devices = {source: devices.get(node, HOST) for source, node in read if source in constants} | devices
        self.home = home
        self.n_copies = n_copies
        self.parts: dict[str, Graph] = {HOST: Graph()}
        # What has nodes, where as many layers as there are marks have begun in it, and what is added to operations.
        self.begun: dict[str, tuple[Graph, list[int], Scratch]] = {}
        self.n_begun = 0  # layers that have begun with the node at hand
        self.copies: dict[tuple[Tensor, str], Tensor] = {}
        self.held: tuple[str, Sequence[Tensor]] = HOST, ()  # until the next run's first node
        self.early: list[tuple[str, Tensor]] = []  # copies that are kept, in front of all other leafs

    def run(self) -> dict[str, Part]:
        devices, begun = self.devices, {n_nodes: n_begun for n_begun, n_nodes in enumerate(self.graph.marks, 1)}
        current, together, n_begun, n_runs = HOST, list[tuple[Tensor, int]](), 0, 1
        for i, node in enumerate(self.graph.nodes):
            n_begun = begun.get(i, n_begun)
            device = current if node.op in VIEWS else devices.get(node) or self.device(node)
            if device != current:
                self.close(current, together)
                current, together, n_runs = device, [], n_runs + 1
            together.append((node, n_begun))
        self.close(current, together)
        self.keep_inputs()
        for device, tensor in self.early:
            self.part(device).leafs.append(tensor)
        kept = set(self.part(HOST).leafs)
        for leaf in self.graph.leafs:
            if not leaf.external and leaf not in kept:
                self.part(self.device(leaf)).leafs.append(leaf)
        # Copies that are kept for the whole graph are as many as there are layers, if layers are torn apart.
        folds = self.n_copies == 1 or n_runs <= len(self.parts) + 1
        return {device: self.finished(device, part, folds) for device, part in self.parts.items()}

    def part(self, device: str) -> Graph:
        part = self.parts.get(device)
        if part is None:
            part = self.parts[device] = Graph()
        return part

    def append(self, device: str, node: Tensor) -> None:
        """Add a node to a device's graph, and note where the layers begun by now start there."""
        begun = self.begun.get(device)
        if begun is None:
            begun = self.begun[device] = self.part(device), [], self.scratch.get(device, {})
        part, marks, scratch = begun
        if len(marks) < self.n_begun:
            marks += [len(part.nodes)] * (self.n_begun - len(marks))
        part.nodes.append(node)
        if node.op in scratch and (more := scratch[node.op](node)):
            part.more[node] = more

    def finished(self, device: str, part: Graph, folds: bool) -> Part:
        marks = self.begun[device][1] if device in self.begun else []
        first = max(bisect_right(marks, 0) - 1, 0)  # layers before it have no nodes here
        part.marks = marks[first:]
        return Part(part, range(first, len(marks)), folds)

    def device(self, tensor: Tensor, reader: Tensor | None = None) -> str:
        """Where a tensor's bytes are; of weights and caches also by who reads them."""
        shown = tensor.view_src
        if shown is not None and (tensor.op in VIEWS or shown.external):
            tensor, reader = shown, reader or tensor
        if tensor.external:
            return self.home(tensor, reader or tensor)
        return HOST if tensor.is_input else self.devices.get(tensor, HOST)

    def close(self, device: str, together: list[tuple[Tensor, int]]) -> None:
        """Add a run of nodes to its device's graph, behind the copies of what it reads from elsewhere.

        A weight from elsewhere begins a run of its own, so that it takes the place of the weight before it.
        """
        start = n_copied = 0
        copies = self.copies
        for i, (node, _) in enumerate(together):
            if node.op in VIEWS:
                continue
            if not (elsewhere := self.elsewhere(node, device)):
                continue
            if n_copied and any(source.external and source.name for source, _ in elsewhere):
                self.append_all(device, together[start:i])
                start, n_copied = i, 0
            for source, origin in elsewhere:
                if (source, device) not in copies:
                    self.n_begun = together[start][1]
                    copies[source, device] = self.copy(source, origin, device)
                    n_copied += 1
            moved = {source for source, _ in elsewhere}  # a weight that both have is read where the node runs
            node.src = tuple(copies[s, device] if s in moved else s for s in node.src)
        self.append_all(device, together[start:])

    def elsewhere(self, node: Tensor, device: str) -> list[tuple[Tensor, str]]:
        """Which of a node's sources are on another device, and on which."""
        found, devices = [], self.devices
        for source in node.src:
            if source.view_src is not None:
                origin = self.device(source, node)
            elif source.external:
                origin = self.home(source, node)
            else:
                origin = devices.get(source, HOST)
            if origin != device:
                found.append((source, origin))
        return found

    def append_all(self, device: str, together: list[tuple[Tensor, int]]) -> None:
        reorder = self.orders.get(device)
        order = Order(range(len(together))) if reorder is None else reorder([node for node, _ in together], self.uses)
        kept = order.kept
        for i in order.positions:
            node, self.n_begun = together[i]
            self.append(self.device(node) if node.op in VIEWS else device, node)
            if kept and i in kept:
                self.keep(device, kept[i])
            if i == 0:
                self.keep(*self.held)
        self.held = device, kept.get(len(together), ())

    def keep(self, device: str, tensors: Iterable[Tensor]) -> None:
        """Add what holds tensors of a device's until now."""
        if held := [tensor for tensor in tensors if not tensor.external]:
            self.append(device, _keep(*held))

    def copy(self, source: Tensor, elsewhere: str, device: str) -> Tensor:
        """A tensor of the same layout on `device`; its original is kept until this moment."""
        n0, *others = source.ne
        backend = self.backends.get(device)
        ne = (n0 if backend is None else backend.padded(n0, source.type), *others)
        copies = [Tensor("COPY", source.type, ne, nb=source.nb, is_input=source.is_input) for _ in range(self.n_copies)]
        self.append(elsewhere, _keep(source))
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


def _keep(*tensors: Tensor) -> Tensor:
    """A node that does nothing but read tensors, which therefore are not given back before."""
    return Tensor("KEEP", F32, (0,), tensors, view_of=_NOTHING)


def _ends_attention(node: Tensor) -> bool:
    """The dense copy behind attention without flash attention: of V times the softmax, with MLA once more multiplied.

    It is pinned to the host without offload_kqv.
    """
    source = node.src[0] if node.src else None
    if node.op != "CONT" or source is None or source.op != "PERMUTE":
        return False
    product = source.src[0]
    for _ in range(2):
        if product.op != "MUL_MAT":
            return False
        if product.src[1].op == "SOFT_MAX":
            return True
        product = product.src[1]
    return False
