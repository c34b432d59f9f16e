"""What CUDA, Metal and SYCL have of flash attention, and what they add to its bytes: by their source."""

from dataclasses import replace
from pathlib import Path

import pytest

from ggufphys.gguf import GGMLType, open_gguf
from ggufphys.graph import ops
from ggufphys.graph.devices.backends.attends import cuda_has, metal_has, sycl_has
from ggufphys.graph.devices.backends.backend import Scratch
from ggufphys.graph.devices.backends.scratch import CUDA_SCRATCH, METAL_SCRATCH, SYCL_SCRATCH
from ggufphys.graph.ir import Tensor
from ggufphys.memory.predict import Predictor
from ggufphys.params import Device, Params
from tests import archs
from tests.random_runs import reshaped

F16, Q8_0, IQ4_NL = GGMLType.F16, GGMLType.Q8_0, GGMLType.IQ4_NL


def added(scratch: Scratch, node: Tensor) -> int:
    """What a backend adds to a node."""
    return scratch[node.op](node)


def attention(
    d_k: int, d_v: int, *, n_head: int = 8, n_kv: int = 2, types: tuple[GGMLType, GGMLType] = (F16, F16),
    n_tokens: int = 64, n_cells: int = 512,
) -> Tensor:  # fmt: skip
    """Flash attention of so many heads over a cache of so many cells."""
    return ops.flash_attn_ext(
        ops.new_input(ops.F32, d_k, n_tokens, n_head),
        ops.new_input(types[0], d_k, n_cells, n_kv),
        ops.new_input(types[1], d_v, n_cells, n_kv),
        ops.new_input(F16, n_cells, n_tokens),
    )


@pytest.mark.parametrize(
    ("node", "cuda", "sycl", "metal"),
    [
        (attention(64, 64), True, True, True),
        (attention(128, 64), False, False, True),
        (attention(48, 48), False, False, True),
        (attention(24, 24), False, False, False),
        (attention(192, 128, n_head=16), True, False, True),
        (attention(192, 128), False, False, True),  # four heads to each of keys
        (attention(576, 512), True, True, True),
        (attention(576, 512, n_head=2), False, False, True),
        (attention(576, 512, n_cells=500), False, False, True),
        (attention(512, 512, n_head=2), False, True, True),
        (attention(64, 128), False, False, False),
        (attention(64, 64, types=(Q8_0, Q8_0)), True, True, True),
        (attention(64, 64, types=(Q8_0, F16)), True, False, False),
        (attention(64, 64, types=(IQ4_NL, IQ4_NL)), False, False, False),
    ],
)
def test_which_shapes_there_are(node: Tensor, *, cuda: bool, sycl: bool, metal: bool) -> None:
    """Sizes of heads, how many go together, and types of the cache decide, otherwise for each backend."""
    assert (cuda_has(node), sycl_has(node), metal_has(node)) == (cuda, sycl, metal)


def test_keys_and_values_in_f16() -> None:
    """CUDA and SYCL copy a cache in another type to F16; CUDA's kernel for single tokens reads it as it is."""
    prompt, decode = (attention(64, 64, types=(Q8_0, Q8_0), n_tokens=n) for n in (64, 1))
    in_f16 = 2 * (2 * 64 * 512 * 2)

    assert added(CUDA_SCRATCH, prompt) == added(SYCL_SCRATCH, prompt) == added(SYCL_SCRATCH, decode) == in_f16
    assert added(CUDA_SCRATCH, decode) == added(CUDA_SCRATCH, attention(64, 64)) == 0
    assert added(CUDA_SCRATCH, attention(64, 64, types=(F16, Q8_0))) == in_f16 // 2


def test_metal_keeps_room_for_every_kernel() -> None:
    """Metal's attention has room for a tail of cells, blocks of the mask, parts of results, and the cache in F16."""
    tail = 64 * (2 * 128 * 2 + 2 * 64)  # 64 cells of K and V of two heads, and of the mask of each token
    blocks = 512 // 64 * 64 // 8
    parts = 4 * 32 * 8 * 32 * (64 + 2)
    cached = 2 * (2 * 64 * 512 * 2)

    assert added(METAL_SCRATCH, attention(64, 64)) == tail + blocks + parts + cached
    order = ops.argsort(ops.new_input(ops.F32, 32, 10))
    assert added(METAL_SCRATCH, order) == order.nbytes


def test_it_is_in_the_buffer(tmp_path: Path) -> None:
    """What flash attention adds is in the compute buffer, beside what others have there: half of it at least."""
    path = tmp_path / "model.gguf"
    path.write_bytes(archs.header("llama"))
    base = Params(n_ctx=32768, n_outputs_max=1)

    def compute_bytes(name: str, cache: str) -> int:
        devices = (Device(name=name, memory_bytes=1 << 34),)
        return predictor.predict(replace(base, type_k=cache, type_v=cache, devices=devices)).devices[1].compute_bytes

    with open_gguf(path) as gguf:
        predictor = Predictor(gguf)
        cuda, metal, plain = (
            {cache: compute_bytes(name, cache) for cache in ("f16", "q8_0")} for name in ("CUDA0", "MTL0", "RPC0[h:1]")
        )
    in_f16 = 2 * (2 * 2 * 64 * 32768)

    assert abs(cuda["f16"] - plain["f16"]) < in_f16 / 100
    assert cuda["q8_0"] - plain["q8_0"] > in_f16 / 2
    assert min(metal[cache] - plain[cache] for cache in metal) > in_f16 / 2


def test_auto_turns_it_off_where_it_is_lacking(tmp_path: Path) -> None:
    """Heads of 48 have no flash attention on CUDA, so that "auto" is off there, and on on Metal."""
    path = tmp_path / "model.gguf"
    model = archs.models()["llama"]
    draft = reshaped("llama", {f"{model.arch}.attention.key_length": 48, f"{model.arch}.attention.value_length": 48})
    assert draft is not None
    draft.write(path)
    with open_gguf(path) as gguf:
        predictor = Predictor(gguf)
        found = {
            name: predictor.context(Params(devices=(Device(name=name, memory_bytes=1 << 34),))).flash_attn
            for name in ("CUDA0", "SYCL0", "MTL0", "RPC0[host:1]")
        }

    assert found == {"CUDA0": False, "SYCL0": False, "MTL0": True, "RPC0[host:1]": True}
