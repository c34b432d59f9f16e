"""The F32 copy of weights that a BLAS backend makes."""

from dataclasses import replace
from pathlib import Path

import pytest

from ggufphys import MemoryPrediction, Params, open_gguf, predict_memory
from ggufphys.embedded import MODEL
from ggufphys.gguf import GGMLType
from ggufphys.graph.allocating.blas import multiplies
from ggufphys.graph.ir import Tensor
from ggufphys.memory.blas import COPY
from ggufphys.memory.terms import Term
from ggufphys.params import Device
from tests.ggufphys.models import llama_metadata, llama_tensors, write_model

BASE = Params(n_ctx=256, n_threads=2, use_extra_bufts=False, use_blas=True, flash_attn="on")
N_VOCAB = 1024
F32, F16 = GGMLType.F32, GGMLType.F16


def copies(prediction: MemoryPrediction) -> tuple[int, int]:
    """Bytes of the term of the process, and of what logits for each token would add."""
    found = [t for t in prediction.terms if t.name.startswith(COPY)]
    by_quantity = {t.quantity: t.nbytes for t in found}
    assert len(by_quantity) == len(found)
    return by_quantity.get("process", 0), by_quantity.get("ceiling", 0)


def predict(folder: Path, ggml_type: GGMLType, params: Params = BASE) -> MemoryPrediction:
    """Of a small llama whose matrices are of one type."""
    tensors = [replace(t, ne=(256, N_VOCAB)) if t.name == "token_embd.weight" else t for t in llama_tensors(ggml_type)]
    with open_gguf(write_model(folder / "tiny.gguf", llama_metadata(vocab_size=N_VOCAB), tensors)) as gguf:
        return predict_memory(gguf, params)


def test_largest_weight(tmp_path: Path) -> None:
    """A prompt copies the largest matrix of a layer; with logits for each token, the output's, which is the larger."""
    layer, output = 4 * 256 * 512, 4 * 256 * N_VOCAB  # ffn_gate; the embedding, which is the output matrix, too
    assert copies(predict(tmp_path, GGMLType.Q8_0)) == (layer, output - layer)


def test_nothing_to_copy(tmp_path: Path) -> None:
    """Matrices in F32 are multiplied where they lie, and without the flag nothing is said of BLAS."""
    assert copies(predict(tmp_path, F32)) == (0, 0)
    without = predict(tmp_path, GGMLType.Q8_0, replace(BASE, use_blas=False))
    assert not any("BLAS" in t.name for t in without.terms)


def test_small_batches(tmp_path: Path) -> None:
    """Batches of fewer than 32 tokens are left to the CPU, as are logits of fewer."""
    assert copies(predict(tmp_path, GGMLType.Q8_0, replace(BASE, n_batch=31, n_ubatch=31))) == (0, 0)
    prompt, more = copies(predict(tmp_path, GGMLType.Q8_0, replace(BASE, n_batch=32, n_ubatch=32)))
    assert prompt > 0
    assert more > 0
    assert copies(predict(tmp_path, GGMLType.Q8_0, replace(BASE, n_outputs_max=31))) == (prompt, 0)
    assert copies(predict(tmp_path, GGMLType.Q8_0, replace(BASE, n_outputs_max=32))) == (prompt, more)


def test_weights_elsewhere(tmp_path: Path) -> None:
    """What lies on a device is not multiplied by BLAS: with all layers there, nothing is copied."""
    on_device = replace(BASE, devices=(Device(name="CUDA0", memory_bytes=8 << 30),))
    assert copies(predict(tmp_path, GGMLType.Q8_0, on_device)) == (0, 0)
    assert copies(predict(tmp_path, GGMLType.Q8_0, replace(on_device, n_gpu_layers=0)))[0] > 0


def test_products_of_blas_are_not_fetched(tmp_path: Path) -> None:
    """A GPU takes what would fall to the CPU; with BLAS weights of the host are multiplied there, and copied."""
    some = replace(BASE, devices=(Device(name="CUDA0", memory_bytes=8 << 30),), n_gpu_layers=1)
    with_blas, without = (predict(tmp_path, GGMLType.Q8_0, replace(some, use_blas=used)) for used in (True, False))

    assert with_blas.devices[1].compute_bytes < without.devices[1].compute_bytes
    assert copies(with_blas)[0] == 4 * 256 * 512
    assert copies(without) == (0, 0)


def test_counts_in_the_process(tmp_path: Path) -> None:
    """The copy is anonymous memory from the first prompt on; llama.cpp's buffers stay as they are."""
    with_copy, without = (predict(tmp_path, GGMLType.Q8_0, replace(BASE, use_blas=used)) for used in (True, False))
    prompt, _ = copies(with_copy)
    assert with_copy.process_bytes - without.process_bytes == prompt
    assert with_copy.total_bytes == without.total_bytes
    (term,) = (t for t in with_copy.terms if t.name == COPY)
    assert isinstance(term, Term)
    assert (term.backing, term.phase) == ("anon", "prefill")


def product(weights: Tensor, x: Tensor) -> Tensor:
    """Their product."""
    return Tensor("MUL_MAT", F32, (weights.ne[1], x.ne[1], x.ne[2]), (weights, x))


def leaf(ggml_type: GGMLType, *ne: int, dense: bool = True) -> Tensor:
    """Numbers that lie dense, or every second row of them."""
    tensor = Tensor("NONE", ggml_type, ne, external=True)
    nb = tensor.nb if dense else (tensor.nb[0], 2 * tensor.nb[1], 2 * tensor.nb[2], 2 * tensor.nb[3])
    return Tensor("NONE", ggml_type, ne, nb=nb, external=True)


@pytest.mark.parametrize(
    ("weights", "x", "taken"),
    [
        (leaf(F16, 64, 96), leaf(F32, 64, 32), True),
        (leaf(F16, 32, 32), leaf(F32, 32, 32), True),
        (leaf(F16, 31, 96), leaf(F32, 31, 32), False),  # too little is added up
        (leaf(F16, 64, 31), leaf(F32, 64, 32), False),
        (leaf(F16, 64, 96), leaf(F32, 64, 31), False),
        (leaf(F16, 64, 96), leaf(F16, 64, 32), False),
        (leaf(F16, 64, 96, dense=False), leaf(F32, 64, 32), False),
        (leaf(F16, 64, 96), leaf(F32, 64, 32, dense=False), False),
        (leaf(GGMLType.Q8_K, 256, 96), leaf(F32, 256, 32), False),  # ggml cannot convert it
        (leaf(GGMLType.IQ1_M, 256, 96), leaf(F32, 256, 32), True),
    ],
)
def test_what_blas_multiplies(weights: Tensor, x: Tensor, *, taken: bool) -> None:
    """Dense matrices of at least 32 in each direction, the right one in F32."""
    assert multiplies(product(weights, x)) is taken
    assert not multiplies(Tensor("MUL_MAT_ID", F32, (96, 32), (weights, x)))


@pytest.mark.parametrize(("name", "basis"), [("Vulkan0", "estimate"), ("RPC0[host:1]", "exact")])
def test_blas_beside_pinned_memory_is_an_estimate(name: str, basis: str) -> None:
    """What BLAS computes lies in a buffer of its own where a device reads main memory itself: that has no rule."""
    params = Params(devices=(Device(name=name, memory_bytes=1 << 30),), n_gpu_layers=2)
    with open_gguf(MODEL) as gguf:
        assert predict_memory(gguf, params).basis["compute"] == "exact"
        assert predict_memory(gguf, replace(params, use_blas=True)).basis["compute"] == basis
