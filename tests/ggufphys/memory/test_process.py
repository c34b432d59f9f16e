"""The process by kind, by phase, and while it loads."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ggufphys import GGUFFile, MemoryPrediction, Params, open_gguf, predict_memory
from ggufphys.gguf import GGMLType, TensorInfo
from ggufphys.graph.devices.backends.amx import amx_bytes, is_amx
from ggufphys.graph.devices.backends.cuda import CUDA
from ggufphys.graph.devices.placed import REPACKED, Buffer
from ggufphys.memory.loading import kept_by_malloc, loading_terms
from ggufphys.memory.terms import PHASES, Term, total
from ggufphys.params import HOST, LOAD_MODES, Device
from ggufphys.plan.fits import fits
from tests.ggufphys.memory.test_oracle import sparse
from tests.ggufphys.models import llama_metadata, llama_tensors, tiny_llama, write_model

MIB = 1 << 20
BASE = Params(n_ctx=1024, n_threads=2)
CPU = Buffer(HOST, "CPU")


def loaded(mode: str, **fields: Any) -> Params:
    """The parameters of one load mode."""
    return replace(BASE, **{**LOAD_MODES[mode], **fields})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GGUFFile]:
    """A llama of 110 M weights as Q4_K_M: some tensors are repacked where there is AVX2, others never."""
    with open_gguf(sparse(tmp_path_factory.mktemp("process"), "llama-110m")) as gguf:
        yield gguf


def tensor(name: str, mib: int) -> TensorInfo:
    """A repacked tensor of so many MiB."""
    ne = (256, mib * MIB // 144)
    return TensorInfo(name=name, ne=ne, ggml_type=GGMLType.Q4_K, offset=0, nbytes=mib * MIB, shard=0)


@pytest.mark.parametrize("mode", LOAD_MODES)
@pytest.mark.parametrize("use_extra_bufts", [True, False])
def test_sums(model: GGUFFile, mode: str, use_extra_bufts: bool) -> None:
    """Every term of the process has a kind and a phase, phases grow to process_bytes, and no peak is below them."""
    prediction = predict_memory(model, loaded(mode, use_extra_bufts=use_extra_bufts))
    process = prediction.process
    terms = [t for t in prediction.terms if t.quantity in ("process", "transient")]

    assert all(t.backing is not None and t.phase is not None for t in terms)
    assert process.anon_bytes + process.file_bytes == prediction.process_bytes
    assert tuple(phase.name for phase in process.phases) == PHASES
    sizes = [phase.rss_bytes for phase in process.phases]
    assert sizes == sorted(sizes)
    assert all(p.rss_bytes <= p.needed_bytes <= p.peak_bytes for p in process.phases)
    assert process.locked_bytes == (_in_buffers(prediction, "CPU", "CPU_Mapped") if "mlock" in mode else 0)


def _in_buffers(prediction: MemoryPrediction, *names: str) -> int:
    return sum(t.nbytes for t in prediction.terms if t.quantity == "model" and t.buffer in names)


def test_mapped_is_file_backed(model: GGUFFile) -> None:
    """Mapped weights are file-backed, read ones anonymous, and the sum is the same but for padding of tensors."""
    mapped, read = (predict_memory(model, loaded(m, use_extra_bufts=False)) for m in ("mmap", "none"))

    assert mapped.process.file_bytes - read.process.file_bytes == mapped.model_bytes
    assert read.process.anon_bytes - mapped.process.anon_bytes == read.model_bytes


def test_the_whole_file_is_mapped_while_loading(model: GGUFFile) -> None:
    """With mmap the peak while loading holds the file from end to end, which the kernel can take back."""
    prediction = predict_memory(model, loaded("mmap", use_extra_bufts=False))
    weights = prediction.process.phase("weights")
    metadata = next(t for t in prediction.terms if t.name == "metadata while loading")

    assert weights.peak_bytes - weights.needed_bytes == model.file_bytes - prediction.model_bytes
    assert weights.needed_bytes - weights.rss_bytes == metadata.nbytes


@pytest.mark.parametrize(
    ("mode", "more"),
    [
        ("none", 50),  # 160 repacked and 60 staged, of 170 in the end
        ("mlock", 60),  # the 10 that are not repacked are resident from the start
        ("dio", 130),  # 100 repacked, staged, and read through a buffer
    ],
)
def test_staging(model: GGUFFile, mode: str, more: int) -> None:
    """Repacked tensors are read through a buffer of their own size, the biggest first, before all others."""
    placed = {CPU: [tensor("token_embd.weight", 10)], REPACKED: [tensor("a", 60), tensor("b", 100)]}
    terms = {t.name: t for t in loading_terms(model, placed, loaded(mode))}

    assert terms["staging buffer"].nbytes == pytest.approx(more * MIB, abs=1 << 10)


def test_staging_for_devices(model: GGUFFile) -> None:
    """A device's tensors pass through main memory: whole, or a piece at a time where it reads pinned memory."""
    rpc, cuda = Buffer("RPC0[a:1]", "RPC0[a:1]"), Buffer("CUDA0", "CUDA0", backend=CUDA)
    for buffer, mib in ((rpc, 100), (cuda, 4)):
        placed = {CPU: [tensor("output.weight", 1)], buffer: [tensor("a", 60), tensor("b", 100)]}
        terms = {t.name: t for t in loading_terms(model, placed, loaded("none"))}
        assert terms["staging buffer"].nbytes == pytest.approx((mib - 1) * MIB, abs=1 << 10)


@pytest.mark.parametrize(
    ("mode", "sizes", "kept"), [("none", (40, 31, 30, 5), 30), ("none", (40, 31), 0), ("mmap", (31, 31), 0)]
)
def test_what_malloc_keeps(mode: str, sizes: tuple[int, ...], kept: int) -> None:
    """The heap keeps the second largest staging buffer of at most 32 MiB; the largest went back to the system."""
    placed = {REPACKED: [tensor(str(i), mib) for i, mib in enumerate(sizes)]}
    assert kept_by_malloc(placed, loaded(mode)) == kept * MIB


def test_fits_looks_at_the_peak(model: GGUFFile) -> None:
    """What is anonymous while loading must fit, pages that are mapped only then need not."""
    prediction = predict_memory(model, loaded("none"))
    beside = Term(
        quantity="transient", name="staging", nbytes=1 << 40, buffer="", formula="", source="", backing="anon",
        phase="weights",
    )  # fmt: skip
    staged = replace(prediction, terms=(*prediction.terms, beside))
    mapped = replace(prediction, terms=(*prediction.terms, replace(beside, backing="file")))

    assert [fits(p, 1 << 40)[0].holds for p in (prediction, staged, mapped)] == [True, False, True]
    assert mapped.process.peak_bytes > 1 << 40


def test_devices_are_told_apart(model: GGUFFile) -> None:
    """What lies on a device is device memory, and no part of the process's in main memory."""
    params = replace(BASE, devices=(Device(name="CUDA0"),))
    prediction = predict_memory(model, params)
    (device,) = (d for d in prediction.devices if d.name == "CUDA0")

    assert prediction.process.device_bytes == device.total_bytes > 0
    assert prediction.process.anon_bytes < predict_memory(model, BASE).process.anon_bytes


def test_several_sequences(model: GGUFFile) -> None:
    """With several sequences too, of the compute buffer only what a batch writes counts."""
    touched = []
    for n_seq_max, kv_unified in ((1, False), (4, False), (4, True)):
        prediction = predict_memory(model, replace(BASE, n_seq_max=n_seq_max, kv_unified=kv_unified))
        touched += [t.nbytes for t in prediction.terms if t.name == "compute buffer, touched"]
        assert touched[-1] < prediction.compute_bytes - 32_000 * 256 * 4  # rows of logits that nobody asks for
    assert max(touched) - min(touched) < 2 * MIB


def test_base_is_what_was_measured(model: GGUFFile) -> None:
    """Measured bytes of the empty process replace ours, divided as measured or as ours are."""
    given = predict_memory(model, BASE, base_bytes=100 * MIB, base_file_bytes=30 * MIB).process.phase("library")
    halves = predict_memory(model, BASE, base_bytes=100 * MIB).process.phase("library")

    assert (given.anon_bytes, given.file_bytes) == (70 * MIB, 30 * MIB)
    assert halves.rss_bytes == 100 * MIB
    assert 0 < halves.file_bytes < 100 * MIB


@pytest.mark.parametrize(
    ("ggml_type", "nbytes"),
    [
        (GGMLType.Q4_0, 512 * 8 * 18),
        (GGMLType.Q8_0, 512 * 8 * (34 + 4)),
        (GGMLType.Q4_K, 512 * (144 + 4)),
        (GGMLType.Q5_K, 512 * (176 + 4)),
        (GGMLType.Q6_K, 512 * 210),
        (GGMLType.IQ4_XS, 512 * (136 + 2)),
        (GGMLType.F16, 512 * 256 * 2),
    ],
)
def test_amx_bytes(ggml_type: GGMLType, nbytes: int) -> None:
    """AMX's layout of 512 rows of 256, by type: some blocks grow by sums or unpacked scales."""
    weights = TensorInfo(
        name="blk.0.ffn_up.weight", ne=(256, 512), ggml_type=ggml_type, offset=0, nbytes=512 * 256 * 2, shard=0
    )
    assert is_amx(weights)
    assert amx_bytes(weights) == nbytes
    assert not is_amx(replace(weights, ne=(256, 528)))  # no whole pairs of tiles
    assert not is_amx(replace(weights, name="blk.0.ffn_up_exps.weight", ne=(256, 512, 8)))
    assert not is_amx(replace(weights, ggml_type=GGMLType.Q3_K))
    embedding = replace(weights, name="token_embd.weight")
    assert (is_amx(embedding), is_amx(embedding, as_output=True)) == (False, True)


def test_amx_takes_weights_first(tmp_path: Path) -> None:
    """A build with AMX keeps what it can multiply in AMX's layout, even where the CPU has a repacked one."""
    path = write_model(tmp_path / "tiny.gguf", llama_metadata(), llama_tensors(GGMLType.Q4_0))
    with open_gguf(path) as gguf:
        prediction = predict_memory(gguf, replace(BASE, use_amx=True))
        without = predict_memory(gguf, replace(BASE, use_amx=True, use_extra_bufts=False))
    products = [t for t in llama_tensors(GGMLType.Q4_0) if "norm" not in t.name]  # the embedding is the output too

    assert _in_buffers(prediction, "AMX") == sum(t.ne[0] * t.ne[1] // 32 * 18 for t in products)
    assert _in_buffers(prediction, "CPU_REPACK") == _in_buffers(without, "AMX") == 0
    assert total(without.terms, "model") == without.model_bytes


def test_sequences_that_were_never_sampled_take_no_candidates(tmp_path: Path) -> None:
    """Whoever runs one sequence of seven is asked for the candidates of one, as `measure` runs it."""
    with open_gguf(tiny_llama(tmp_path / "m.gguf")) as gguf:
        params = Params(n_ctx=1024, n_seq_max=7)
        every, one = predict_memory(gguf, params), predict_memory(gguf, params, n_sampled=1)
    assert every.process_bytes - one.process_bytes == 6 * 512 * 12
