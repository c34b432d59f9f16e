"""llama.cpp's rounding of lengths and batches, and its refusals."""

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from ggufphys import Device, Params
from ggufphys.context import resolve
from ggufphys.params import rpc_device


@pytest.mark.parametrize(
    ("params", "n_ctx", "n_ctx_seq", "n_batch", "n_ubatch"),
    [
        (Params(), 8192, 8192, 2048, 512),
        (Params(n_ctx=1000), 1024, 1024, 1000, 512),
        (Params(n_ctx=100), 256, 256, 100, 100),
        (Params(n_ctx=4096, n_seq_max=100), 25600, 256, 2048, 512),
        (Params(n_ctx=4096, n_seq_max=3), 4608, 1536, 2048, 512),
        (Params(n_ctx=4096, n_seq_max=100, kv_unified=True), 4096, 4096, 2048, 512),
        (Params(n_ctx=4096, n_batch=128), 4096, 4096, 128, 128),
        (Params(n_ctx=4096, n_ubatch=0), 4096, 4096, 2048, 2048),
    ],
)
def test_lengths(params: Params, n_ctx: int, n_ctx_seq: int, n_batch: int, n_ubatch: int) -> None:
    """Padded to 256, shared among sequences, batches clipped before the padding."""
    context = resolve(params, n_ctx_train=8192)

    assert (n_ctx, n_ctx_seq, n_batch, n_ubatch) == (
        context.n_ctx,
        context.n_ctx_seq,
        context.n_batch,
        context.n_ubatch,
    )


def test_encoders_keep_their_batch() -> None:
    """Without causal attention the batch is not clipped to the context."""
    assert resolve(Params(n_ctx=512), n_ctx_train=512, causal_attn=False).n_batch == 2048


def test_outputs() -> None:
    """n_outputs_max is the batch unless it is given."""
    assert resolve(Params(n_ctx=300), n_ctx_train=0).n_outputs_max == 300
    assert resolve(Params(n_ctx=300, n_outputs_max=2), n_ctx_train=0).n_outputs_max == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"type_k": "q6_k"}, "type_k is 'q6_k', expected one of f32, f16"),
        ({"flash_attn": "yes"}, "flash_attn is 'yes'"),
        ({"n_seq_max": 0}, "n_seq_max is 0, expected 1 to 256"),
        ({"n_seq_max": 257}, "n_seq_max is 257"),
        ({"n_ctx": -1}, "n_ctx is -1"),
        ({"n_batch": 0, "n_ubatch": 0}, "cannot both be zero"),
        ({"n_threads": 513}, "at most 512"),
        ({"n_outputs_max": 1, "n_seq_max": 2}, "llama.cpp aborts otherwise"),
        ({"devices": [Device(name="CUDA0")] * 2}, "devices CUDA0, CUDA0: each may be named once"),
        ({"devices": [Device(name=f"CUDA{i}") for i in range(17)]}, "17 devices, expected at most 16"),
        ({"split_mode": "diagonal"}, "split_mode is 'diagonal', expected one of none, layer, row, tensor"),
        ({"split_mode": "tensor"}, "split_mode tensor needs at least one device"),
        ({"split_mode": "none", "main_gpu": 1, "devices": [Device(name="CUDA0")]}, "main_gpu is 1, expected less than"),
        ({"tensor_split": [1.0] * 17}, "tensor_split has 17 entries"),
        ({"tensor_split": [1.0, -1.0]}, "expected proportions of 0 or more"),
        ({"tensor_split": [float("nan")]}, "expected proportions of 0 or more"),
        ({"n_cpu_moe": -1}, "n_cpu_moe is -1"),
        ({"use_direct_io": True, "use_mlock": True}, "llama.cpp has no load mode for both"),
        ({"override_tensor": [("exps", "CUDA0")]}, "unknown buffer type 'CUDA0', expected one of CPU"),
        ({"override_tensor": [("(", "CPU")]}, "is not a regular expression"),
    ],
)
def test_refused_at_once(arguments: dict[str, object], message: str) -> None:
    """What no model could be run with is refused when it is written down."""
    with pytest.raises(ValueError, match=message):
        Params(**arguments)  # type: ignore[arg-type]


def test_refused_for_the_model() -> None:
    """Quantised V needs flash attention; a length is needed from somewhere."""
    with pytest.raises(ValueError, match="needs flash attention, which is off"):
        resolve(Params(n_ctx=256, type_v="q8_0", flash_attn="off"), n_ctx_train=0)
    with pytest.raises(ValueError, match="does not use for this architecture"):
        resolve(Params(n_ctx=256, type_v="q8_0"), n_ctx_train=0, flash_attn_possible=False)
    with pytest.raises(ValueError, match="room for 3 outputs, expected one for each of 4 sequences"):
        resolve(Params(n_ctx=3, n_seq_max=4), n_ctx_train=0)
    with pytest.raises(ValueError, match="a batch of 0 tokens"):
        resolve(Params(n_ctx=256, n_batch=0, n_ubatch=1), n_ctx_train=0)
    with pytest.raises(ValueError, match="does not say how long"):
        resolve(Params(), n_ctx_train=0)


@pytest.mark.parametrize("name", ["", "Host", "CPU"])
def test_names_of_devices(name: str) -> None:
    """A device needs a name, and not one of main memory's."""
    with pytest.raises(ValueError, match="expected llama.cpp's name for it"):
        Device(name=name)
    with pytest.raises(ValueError, match="memory_bytes -1"):
        Device(name="CUDA0", memory_bytes=-1)


def test_rpc_devices() -> None:
    """An RPC server's device is named as llama.cpp names its buffers, from which its address is read."""
    assert rpc_device("10.0.0.2:50052", index=1) == Device(name="RPC1[10.0.0.2:50052]")
    assert rpc_device("[::1]:50052").endpoint == "[::1]:50052"
    assert Device(name="CUDA0").endpoint == ""


def test_json() -> None:
    """Parameters survive a journey through JSON; lists are as good as tuples."""
    params = Params(
        devices=[Device(name="CUDA0", memory_bytes=1)],  # type: ignore[arg-type]
        tensor_split=[1, 2],  # type: ignore[arg-type]
        override_tensor=[["exps", "CPU"]],  # type: ignore[arg-type]
    )

    assert Params.from_json(json.loads(json.dumps(asdict(params)))) == params
    assert hash(params) == hash(Params.from_json(asdict(params)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_ctx": "8k"}, "n_ctx is '8k', a str: expected a whole number"),
        ({"n_ctx": 8192.5}, "n_ctx is 8192.5, a float: expected a whole number"),
        ({"n_ubatch": None}, "n_ubatch is None"),
        ({"n_gpu_layers": "all"}, "n_gpu_layers is 'all'"),
        ({"n_seq_max": True}, "n_seq_max is True, a bool"),
        ({"kv_unified": "off"}, "kv_unified is 'off', a str: expected True or False"),
        ({"use_mmap": 1}, "use_mmap is 1, a int: expected True or False"),
        ({"tensor_split": "3,1"}, "tensor_split is '3,1', a str: expected a tuple or list of such as 3.0, 1.0"),
        ({"tensor_split": ("3", "1")}, "tensor_split is"),
        ({"devices": ["CUDA0"]}, r"devices is \['CUDA0'\], a list: expected .*Device\(name"),
        ({"devices": 2}, "devices is 2, a int"),
        ({"override_tensor": "exps=CPU"}, "override_tensor is 'exps=CPU'"),
    ],
)
def test_wrong_types(fields: dict[str, Any], message: str) -> None:
    """A value of another type is refused at once, with its name, what it is and what was expected."""
    with pytest.raises(TypeError, match=message):
        Params(**fields)


def test_numpy_numbers_are_welcome() -> None:
    """A whole number of numpy's is one, and is kept as Python's."""
    params = Params(n_ctx=np.int64(8192))  # type: ignore[arg-type]

    assert type(params.n_ctx) is int
    assert params == Params(n_ctx=8192)


def test_wrong_types_of_devices() -> None:
    """A device's memory is a whole number of bytes, its name a text."""
    with pytest.raises(TypeError, match="CUDA0: memory_bytes is '24GiB', a str"):
        Device(name="CUDA0", memory_bytes="24GiB")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a device's name is 0"):
        Device(name=0)  # type: ignore[arg-type]
