"""What a control vector takes: counted by the C library while llama.cpp allocates it."""

from pathlib import Path

import pytest

from ggufphys import GGUFError, Params, open_gguf
from ggufphys.arch import read_hparams
from ggufphys.gguf import GGMLType
from ggufphys.gguf.writer import TensorSpec
from ggufphys.graph.devices.placement import place_layers
from ggufphys.memory.attachments.control_vector import check_control_vector, control_vector_terms
from ggufphys.params import Device
from tests import attachment_oracle
from tests.ggufphys.memory.attachments.adapter_files import write_control_vector
from tests.ggufphys.models import llama_metadata, tiny_llama, write_model

N_LAYER, N_EMBD = 9, 6144


def wide_llama(path: Path) -> Path:
    """A model whose control vector is large enough to be seen: few heads, little else."""
    tensors = [TensorSpec("token_embd.weight", (N_EMBD, 32), GGMLType.F16)]
    for il in range(N_LAYER):
        tensors += [TensorSpec(f"blk.{il}.{name}_norm.weight", (N_EMBD,), GGMLType.F32) for name in ("attn", "ffn")]
        tensors += [TensorSpec(f"blk.{il}.attn_{name}.weight", (N_EMBD, 64), GGMLType.F16) for name in "qkv"]
        tensors += [TensorSpec(f"blk.{il}.ffn_{name}.weight", (N_EMBD, 64), GGMLType.F16) for name in ("gate", "up")]
        tensors += [
            TensorSpec(f"blk.{il}.{name}.weight", (64, N_EMBD), GGMLType.F16) for name in ("attn_output", "ffn_down")
        ]
    tensors.append(TensorSpec("output_norm.weight", (N_EMBD,), GGMLType.F32))
    metadata = llama_metadata(
        block_count=N_LAYER, embedding_length=N_EMBD, feed_forward_length=64, vocab_size=32, attention__head_count=1,
        attention__head_count_kv=1, attention__key_length=64, attention__value_length=64,
    )  # fmt: skip
    return write_model(path, metadata, tensors)


def test_control_vector_against_llama_cpp(tmp_path: Path) -> None:
    """The buffer is the one that glibc maps, in whole pages; running with it takes no larger a compute buffer."""
    model = wide_llama(tmp_path / "wide.gguf")
    params = Params(n_ctx=256)
    truth = attachment_oracle.adapters(model, params, control_vector=True)
    plain = attachment_oracle.adapters(model, params)
    with open_gguf(model) as gguf:
        h = read_hparams(gguf)
    (term,) = control_vector_terms(h, place_layers(params, h.n_layer_all))
    assert term.nbytes == (N_LAYER - 1) * N_EMBD * 4
    assert term.nbytes <= truth["control_vector"] < term.nbytes + 2 * attachment_oracle.PAGE_BYTES
    assert truth["compute"] == plain["compute"]


def test_layers_on_a_device_take_it_there(tmp_path: Path) -> None:
    """Each layer's direction lies on the layer's device, padded as that wants."""
    with open_gguf(tiny_llama(tmp_path / "tiny.gguf", block_count=2)) as gguf:
        h = read_hparams(gguf)
    params = Params(devices=(Device(name="CUDA0"),), n_gpu_layers=1)
    (term,) = control_vector_terms(h, place_layers(params, h.n_layer_all))
    assert (term.device, term.nbytes) == ("Host", 1024)  # the output alone is offloaded
    params = Params(devices=(Device(name="CUDA0"),))
    (term,) = control_vector_terms(h, place_layers(params, h.n_layer_all))
    assert (term.device, term.buffer, term.nbytes) == ("CUDA0", "CUDA0", 1024)


def test_refusals(tmp_path: Path) -> None:
    """Files that are none, or of another width, are refused with what was found."""
    with open_gguf(tiny_llama(tmp_path / "tiny.gguf")) as gguf:
        h = read_hparams(gguf)
        with pytest.raises(ValueError, match="expected a control vector"):
            check_control_vector(gguf, h)
    with open_gguf(write_control_vector(tmp_path / "good.gguf", 256, 2)) as vector:
        check_control_vector(vector, h)
    with (
        open_gguf(write_control_vector(tmp_path / "wide.gguf", 512, 2)) as vector,
        pytest.raises(ValueError, match="directions have 512 elements, the model's n_embd is 256"),
    ):
        check_control_vector(vector, h)
    odd = [TensorSpec("direction.0", (256,), GGMLType.F32)]
    with (
        open_gguf(write_model(tmp_path / "odd.gguf", {"general.architecture": "controlvector"}, odd)) as vector,
        pytest.raises(GGUFError, match="expected direction.1"),
    ):
        check_control_vector(vector, h)


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (("direction.1", "direction.1x", "direction.+3"), True),  # as std::stoi reads them
        (("direction.1", "layer.2"), False),
        (("direction.1", "direction.x"), False),
        (("direction.1", "direction.-1"), False),
        (("direction.1", "direction.4294967297"), False),
    ],
)
def test_names_of_directions(tmp_path: Path, names: tuple[str, ...], taken: bool) -> None:
    """Every tensor of the file must be a direction, by llama.cpp's reading of its name; one row counts as none."""
    specs = [TensorSpec(name, (256, 1), GGMLType.F32) for name in names]
    path = write_model(tmp_path / "vector.gguf", {"general.architecture": "controlvector"}, specs)
    with open_gguf(tiny_llama(tmp_path / "tiny.gguf")) as gguf, open_gguf(path) as vector:
        if taken:
            check_control_vector(vector, read_hparams(gguf))
        else:
            with pytest.raises(GGUFError, match=r"expected direction\.1"):
                check_control_vector(vector, read_hparams(gguf))
