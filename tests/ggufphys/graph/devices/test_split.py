"""A graph cut along devices: who runs what, and what is copied across a border."""

from ggufphys.gguf import GGMLType
from ggufphys.graph import ops
from ggufphys.graph.allocating.alloc import allocate
from ggufphys.graph.devices.split import PIPELINE_COPIES, split
from ggufphys.graph.ir import Graph, Part, Tensor
from ggufphys.params import HOST

F32 = GGMLType.F32
WIDTH = 64  # 256 bytes a row


def chain(*names: str) -> Graph:
    """An input, normed and multiplied with one weight after the other."""
    graph = Graph()
    x: Tensor = ops.new_input(F32, WIDTH, 4)
    for name in names:
        x = ops.mul_mat(ops.weight(F32, WIDTH, WIDTH, name=name), ops.elementwise("RMS_NORM", x))
    x.is_output = True
    graph.expand(x)
    return graph


def home(tensor: Tensor, reader: Tensor) -> str:
    """Weights and caches lie where their names begin with; a cache's name is a parameter."""
    return (tensor.name or str(tensor.params[0])).split(".")[0]


def norm_home(name: str) -> str:
    return name.split(".")[0]


def ops_of(parts: dict[str, Part]) -> dict[str, list[str]]:
    return {device: [node.op for node in part.graph.nodes] for device, part in parts.items()}


def test_nodes_follow_weights() -> None:
    """Products run where their weights are, what has no weight with the device before; borders copy."""
    parts = split(chain("A.0", "A.1", "B.0"), home)

    assert ops_of(parts) == {
        HOST: ["KEEP"],
        "A": ["COPY", "RMS_NORM", "MUL_MAT", "RMS_NORM", "MUL_MAT", "RMS_NORM", "KEEP"],
        "B": ["COPY", "MUL_MAT"],
    }
    assert parts[HOST].graph.leafs[0].is_input


def test_host_layers_come_last() -> None:
    """Nodes between the host and a device go to the device."""
    parts = split(chain(f"{HOST}.0", "A.0"), home)

    assert ops_of(parts) == {HOST: ["RMS_NORM", "MUL_MAT", "KEEP"], "A": ["COPY", "RMS_NORM", "MUL_MAT"]}


def test_norms_at_home() -> None:
    """Pinned norms cross the border one node earlier."""
    graph = Graph()
    x = ops.mul_mat(ops.weight(F32, WIDTH, WIDTH, name="A.0"), ops.new_input(F32, WIDTH, 4))
    x = ops.elementwise("MUL", ops.elementwise("RMS_NORM", x), ops.weight(F32, WIDTH, name="B.norm"))
    graph.expand(x)

    assert ops_of(split(graph, home, norm_home=norm_home))["B"] == ["COPY", "RMS_NORM", "MUL"]


def test_copies_of_a_pipeline() -> None:
    """Devices that work on several batches keep as many copies of inputs and of what crosses a border."""
    once = {d: allocate(p.graph).buffer_bytes for d, p in split(chain("A.0", "B.0"), home).items()}
    several = {
        d: allocate(p.graph).buffer_bytes for d, p in split(chain("A.0", "B.0"), home, n_copies=PIPELINE_COPIES).items()
    }
    row = 4 * WIDTH * 4

    assert once[HOST] == row
    assert several[HOST] == PIPELINE_COPIES * row
    assert several["B"] == (PIPELINE_COPIES + 1) * row


def cached(place: str) -> Graph:
    """Something is written to a cache and read from it on device A."""
    graph = Graph()
    cache = ops.weight(F32, WIDTH, 256, params=(place,))
    k = ops.mul_mat(ops.weight(F32, WIDTH, WIDTH, name="A.k"), ops.new_input(F32, WIDTH, 4))
    graph.expand(ops.set_rows(cache, k, ops.new_input(ops.I64, 4)))
    graph.expand(ops.mul_mat(ops.weight(F32, 256, 8, name="A.out"), ops.mul_mat(ops.view(cache, (WIDTH, 256)), k)))
    return graph


def test_cache_on_the_host() -> None:
    """Without offload_kqv writing to a cache is the host's work, and the cache is copied to who reads it."""
    at_home, on_host = ops_of(split(cached("A"), home)), ops_of(split(cached(HOST), home))

    assert "SET_ROWS" in at_home["A"]
    assert "SET_ROWS" in on_host[HOST]
    assert on_host["A"].count("COPY") == 2  # the input, and the view of the cache


def attention() -> Graph:
    """The end of attention without flash attention, and the product behind it."""
    graph = Graph()
    x = ops.mul_mat(ops.weight(F32, WIDTH, WIDTH, name="A.q"), ops.new_input(F32, WIDTH, 4))
    x = ops.cont(ops.permute(ops.mul_mat(ops.weight(F32, WIDTH, 8, name="A.v"), ops.soft_max(x)), 0, 2, 1, 3))
    graph.expand(ops.mul_mat(ops.weight(F32, 8, 8, name="A.out"), x))
    return graph


def test_attention_ends_on_the_host() -> None:
    """Without offload_kqv the dense copy behind attention without flash attention is pinned to the host."""
    assert "CONT" in ops_of(split(attention(), home))["A"]
    assert "CONT" in ops_of(split(attention(), home, pins_attention=True))[HOST]


def test_a_device_takes_over_from_the_host() -> None:
    """Weights that a device fetches take each other's place: room for the largest is enough."""
    parts = split(chain(f"{HOST}.0", f"{HOST}.1", "A.2"), home, offload=lambda node: "A")
    matrix, row = 4 * WIDTH * WIDTH, 4 * WIDTH * 4

    assert parts["A"].graph.nodes[0].op == "COPY"
    assert [node.op for node in parts[HOST].graph.nodes].count("MUL_MAT") == 0
    assert allocate(parts["A"].graph).buffer_bytes < 2 * matrix
    assert allocate(parts["A"].graph).buffer_bytes >= matrix + row


def test_padding_of_a_backend() -> None:
    """Each tensor is padded to the backend's alignment."""
    graph = Graph()
    graph.expand(ops.mul_mat(ops.weight(F32, WIDTH, 1), ops.new_input(F32, WIDTH, 1)))

    assert allocate(graph, 128).buffer_bytes == 4 * WIDTH + 128
    assert allocate(graph).buffer_bytes == 4 * WIDTH + 32


def test_a_leaf_that_is_no_input() -> None:
    """What is neither a weight nor filled by the caller lies where it is read, and is not copied."""
    graph = Graph()
    x = ops.mul_mat(ops.weight(F32, WIDTH, WIDTH, name="A.0"), ops.new_input(F32, WIDTH, 4))
    graph.expand(ops.add(x, ops.elementwise("FILL", Tensor("NONE", F32, (WIDTH, 4)))))
    parts = split(graph, home)

    assert ops_of(parts)["A"] == ["COPY", "MUL_MAT", "FILL", "ADD"]
    assert len(parts["A"].graph.leafs) == len(parts[HOST].graph.leafs) == 1
