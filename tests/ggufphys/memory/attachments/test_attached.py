"""A model with all that stands beside it: terms add up, and totals hold what is reserved and nothing else."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.clip.files import write_clip
from bench.clip.shape import ClipShape
from ggufphys import Params, UnsupportedError, open_gguf, predict_memory
from ggufphys.arch import read_hparams, rule_for
from ggufphys.context import resolve
from ggufphys.gguf import GGMLType, GGUFFile
from ggufphys.memory.attachments import Attachments, Draft, Heads, Server
from ggufphys.memory.attachments.guessing import as_guessed, heads_params
from ggufphys.memory.attachments.predict import draft_context_bytes, predict_attached, predict_draft
from ggufphys.memory.attachments.state import state_bytes
from ggufphys.memory.predict import Predictor
from ggufphys.memory.terms import total
from ggufphys.params import Device, FlashAttn, as_server
from tests import archs, attachment_oracle, oracle
from tests.ggufphys.memory.attachments.adapter_files import write_control_vector, write_lora
from tests.ggufphys.memory.attachments.test_state import tiny_gemma3
from tests.ggufphys.models import llama_tensors, tiny_llama
from tests.random_runs import reshaped

BASE = Params(n_ctx=1000, n_seq_max=3)


@pytest.fixture
def model(tmp_path: Path) -> GGUFFile:
    """A tiny llama."""
    return open_gguf(tiny_llama(tmp_path / "model.gguf"))


def test_all_at_once(tmp_path: Path, model: GGUFFile) -> None:
    """The model's own figures stay; the rest is added to total and process, ceilings to neither."""
    attachments = Attachments(
        loras=(open_gguf(write_lora(tmp_path / "lora.gguf", llama_tensors(), rank=128)),),
        control_vectors=(open_gguf(write_control_vector(tmp_path / "vector.gguf", 256, 2)),),
        mmproj=open_gguf(write_clip(tmp_path / "mmproj.gguf", ClipShape(projector="pixtral"))),
        draft=Draft(gguf=open_gguf(tiny_llama(tmp_path / "draft.gguf", attention__head_count_kv=2))),
        server=Server(),
    )
    plain = predict_memory(model, BASE)
    attached = predict_attached(model, BASE, attachments)

    for quantity in ("model_bytes", "context_bytes", "output_bytes"):
        assert getattr(attached, quantity) == getattr(plain, quantity)
    assert attached.compute_bytes > plain.compute_bytes  # the adapter's nodes
    starts = [t.name.split(":")[0].split(" ")[0] for t in attached.terms if t.quantity == "attachment"]
    assert starts == ["LoRA", "control", "mmproj", "mmproj", *["draft"] * 4]
    assert attached.attachment_bytes == total(attached.terms, "attachment") > 0
    own = attached.model_bytes + attached.context_bytes + attached.compute_bytes + attached.output_bytes
    assert attached.total_bytes == own + attached.attachment_bytes
    assert sum(device.total_bytes for device in attached.devices) == attached.total_bytes
    assert attached.process_bytes > plain.process_bytes + attached.attachment_bytes // 2
    assert {t.name.split(":")[0] for t in attached.ceilings} == {"mmproj", "server"}
    assert attached.basis["attachment"] == "exact"


def test_compute_buffer_with_an_adapter(tmp_path: Path, model: GGUFFile) -> None:
    """What inspect says of a model with an adapter is what llama.cpp has once it ran with it."""
    path = write_lora(tmp_path / "lora.gguf", llama_tensors(), rank=96)
    truth = attachment_oracle.adapters(model.path, BASE, [path])
    attached = predict_attached(model, BASE, Attachments(loras=(open_gguf(path),)))
    assert attached.compute_bytes == truth["compute"]
    assert attached.attachment_bytes == sum(truth["buffers"].values())


@pytest.mark.parametrize("params", [BASE, Params(n_ctx=600, n_seq_max=2, kv_unified=True), Params(n_ctx=512)])
def test_a_draft_model_is_a_model(tmp_path: Path, model: GGUFFile, params: Params) -> None:
    """A draft's figures are llama.cpp's for a context as long as the model's, with one output a sequence."""
    path = tiny_llama(tmp_path / "draft.gguf", attention__head_count_kv=2)
    params = replace(params, use_extra_bufts=False, use_mmap=False)
    target = predict_memory(model, params)
    with open_gguf(path) as gguf:
        draft = predict_draft(Draft(gguf=gguf, type_k="q8_0", type_v="q8_0"), params, target.context)
    assert draft.context.n_ctx == target.context.n_ctx
    asked = replace(
        params, n_ctx=target.context.n_ctx, n_outputs_max=params.n_seq_max, type_k="q8_0", type_v="q8_0"
    )  # fmt: skip
    (truth,) = oracle.ask(path, [asked])
    assert {q: truth[q] for q in ("model", "context", "compute")} == {
        "model": draft.model_bytes,
        "context": draft.context_bytes,
        "compute": draft.compute_bytes,
    }


@pytest.mark.parametrize(
    "arch", ["qwen35", "qwen35moe", "glm4moe", "nemotron_h_moe", "deepseek4", "mimo2", "cohere2moe"]
)
def test_a_model_whose_heads_guess(tmp_path: Path, arch: str) -> None:
    """Its states can be taken back, its heads are loaded and have a context of their own, as in llama.cpp.

    What they read of the model makes the output buffer grow at the first batch.
    """
    path, name = tmp_path / "model.gguf", f"{arch}/head"
    archs.write(path, name, archs.records()[name].tensors)
    params = as_server(Params(n_ctx=600, use_extra_bufts=False, use_mmap=False), n_parallel_given=False, n_draft=2)
    heads = Heads(n_max=2, type_k="q8_0", type_v="q8_0")
    with open_gguf(path) as gguf:
        memory = predict_attached(gguf, params, Attachments(heads=heads))
    of_heads = {t.name: t.nbytes for t in memory.terms if t.quantity == "attachment"}
    run = as_guessed(params, Attachments(heads=heads))
    truth = attachment_oracle.heads(path, run, heads_params(heads, run, memory.context), 64)
    assert (memory.model_bytes, memory.context_bytes, memory.compute_bytes) == tuple(truth["model"].values())
    assert draft_context_bytes(memory.terms) == truth["own"]["context"]
    assert of_heads["draft: compute buffer"] == truth["own"]["compute"]
    grown = memory.output_bytes + of_heads["states for the draft"]  # too small to be mapped by itself before
    assert 0 <= truth["output"]["mapped"] - grown < attachment_oracle.PAGE_BYTES


def test_a_draft_that_starts_from_states_of_a_hybrid(tmp_path: Path) -> None:
    """The model's recurrent states are kept for each guess that may be taken back; a plain draft asks for none."""
    path = tmp_path / "model.gguf"
    archs.write(path, "qwen35", archs.records()["qwen35"].tensors)
    params = Params(n_ctx=600, n_seq_max=2, use_extra_bufts=False, use_mmap=False)
    archs.write(tmp_path / "eagle3.gguf", "eagle3", archs.records()["eagle3"].tensors)
    plain = open_gguf(tiny_llama(tmp_path / "draft.gguf"))
    with open_gguf(path) as gguf, open_gguf(tmp_path / "eagle3.gguf") as eagle3:
        kept = [
            predict_attached(gguf, params, Attachments(draft=Draft(gguf=draft, n_max=2))).context_bytes
            for draft in (eagle3, plain)
        ]
    truth = oracle.ask(path, [replace(params, n_rs_seq=2), params])
    assert kept == [answer["context"] for answer in truth]


@pytest.mark.parametrize("name", ["eagle3/borrowed", "dflash/borrowed"])
@pytest.mark.parametrize("flash_attn", ["on", "off"])
def test_a_draft_that_reads_its_targets_weights(
    tmp_path: Path, model: GGUFFile, name: str, flash_attn: FlashAttn
) -> None:
    """Its figures beside the target are llama.cpp's, who creates its context there only; alone it is refused."""
    path = tmp_path / "draft.gguf"
    archs.write(path, name, archs.records()[name].tensors)
    params = Params(n_ctx=600, n_seq_max=2, use_extra_bufts=False, use_mmap=False, flash_attn=flash_attn)
    target = predict_memory(model, params)
    with open_gguf(path) as gguf:
        draft = predict_draft(Draft(gguf=gguf), params, target.context, model)
        with pytest.raises(UnsupportedError, match="only beside its target's"):
            predict_memory(gguf, params)
    own = replace(params, n_ctx=target.context.n_ctx, n_outputs_max=params.n_seq_max)
    truth = attachment_oracle.draft(model.path, params, path, own)
    ours = {"model": draft.model_bytes, "context": draft.context_bytes, "compute": draft.compute_bytes}
    assert ours == truth
    assert draft.basis["compute"] == "exact"


@pytest.mark.parametrize("changes", [{}, {"flash_attn": "off"}, {"type_k": "q8_0", "type_v": "q8_0"}])
def test_a_draft_that_reads_its_targets_caches(tmp_path: Path, changes: dict[str, Any]) -> None:
    """It keeps nothing, and its compute buffer is llama.cpp's."""
    paths = [tmp_path / "target.gguf", tmp_path / "draft.gguf"]
    for path, name in zip(paths, ("gemma4/target", "gemma4-assistant"), strict=True):
        archs.write(path, name, archs.records()[name].tensors)
    params = replace(Params(n_ctx=600, n_seq_max=2, use_extra_bufts=False, use_mmap=False), **changes)
    with open_gguf(paths[0]) as target, open_gguf(paths[1]) as gguf:
        context = predict_memory(target, params).context
        draft = predict_draft(Draft(gguf=gguf), params, context, target)
    own = replace(params, n_ctx=context.n_ctx, n_outputs_max=params.n_seq_max)
    truth = attachment_oracle.draft(paths[0], params, paths[1], own)
    ours = {"model": draft.model_bytes, "context": draft.context_bytes, "compute": draft.compute_bytes}
    assert ours == truth
    assert draft.basis["compute"] == "exact"


def test_a_draft_of_another_width(tmp_path: Path) -> None:
    """A draft that would read rows of other lengths than its own is refused."""
    path = tmp_path / "draft.gguf"
    archs.write(path, "eagle3/borrowed", archs.records()["eagle3/borrowed"].tensors)
    narrow = tmp_path / "narrow.gguf"
    archs.write(narrow, "wavtokenizer-dec/whole", archs.records()["wavtokenizer-dec/whole"].tensors)
    with (
        open_gguf(path) as gguf,
        open_gguf(narrow) as target,
        pytest.raises(
            ValueError, match="for states 256 wide, which reads token_embd.weight of its target, whose rows have 96"
        ),
    ):
        Predictor(gguf, target)


def test_a_draft_shares_the_process(tmp_path: Path, model: GGUFFile) -> None:
    """A second model in one process brings no second interpreter and no second Unicode table."""
    draft = Draft(gguf=open_gguf(tiny_llama(tmp_path / "draft.gguf")))
    names = [
        t.name for t in predict_attached(model, BASE, Attachments(draft=draft)).terms if t.quantity == "process"
    ]  # fmt: skip
    assert names.count("interpreter and library") == 1
    assert "draft: interpreter and library" not in names
    assert "draft: KV cache" in names


def test_devices(tmp_path: Path, model: GGUFFile) -> None:
    """An encoder lies on the first device, or on the host if it is told to; the draft follows its own flags."""
    devices = (Device(name="CUDA0", memory_bytes=1 << 30), Device(name="CUDA1", memory_bytes=1 << 30))
    params = replace(BASE, devices=devices)
    mmproj = open_gguf(write_clip(tmp_path / "mmproj.gguf", ClipShape(projector="mlp")))
    draft = Draft(gguf=open_gguf(tiny_llama(tmp_path / "draft.gguf")), n_gpu_layers=0)

    def places(attachments: Attachments) -> set[tuple[str, str]]:
        terms = predict_attached(model, params, attachments).terms
        return {(t.name.split(":")[0], t.device) for t in terms if t.quantity == "attachment" and t.nbytes}

    assert places(Attachments(mmproj=mmproj)) == {("mmproj", "CUDA0")}
    assert places(Attachments(mmproj=mmproj, mmproj_offload=False)) == {("mmproj", "Host")}
    assert ("draft", "Host") in places(Attachments(draft=draft))
    elsewhere = replace(draft, n_gpu_layers=-1, devices=(Device(name="CUDA2", memory_bytes=1 << 30),))
    overridden = replace(elsewhere, override_tensor=((r"blk\.1\.", "CPU"),))
    assert ("draft", "CUDA2") in places(Attachments(draft=elsewhere))
    assert not {device for _, device in places(Attachments(draft=elsewhere))} & {"CUDA0", "CUDA1"}
    on_host = [
        sum(t.nbytes for t in predict_attached(model, params, Attachments(draft=each)).terms
            if t.name.startswith("draft: ") and t.quantity == "attachment" and t.device == "Host")
        for each in (elsewhere, overridden)
    ]  # fmt: skip
    assert on_host[1] > on_host[0]
    prediction = predict_attached(model, params, Attachments(draft=elsewhere))
    assert [device.name for device in prediction.devices] == ["Host", "CUDA2", "CUDA0", "CUDA1"]
    assert predict_attached(model, params, Attachments(mmproj=mmproj)).basis["attachment"] == "estimate"


def test_server_parameters() -> None:
    """llama-server has four slots in one cache unless it is told how many, and as many outputs as it can verify."""
    made = as_server(Params(), n_parallel_given=False)
    assert (made.n_seq_max, made.kv_unified, made.n_outputs_max) == (4, True, 4)
    made = as_server(Params(n_seq_max=2), n_parallel_given=True, n_draft=3)
    assert (made.n_seq_max, made.kv_unified, made.n_outputs_max) == (2, False, 8)
    assert as_server(Params(n_batch=16), n_parallel_given=False, n_draft=15).n_outputs_max == 16
    assert as_server(Params(n_outputs_max=9), n_parallel_given=False).n_outputs_max == 9


def test_server_ceilings(tmp_path: Path) -> None:
    """The prompt cache's limit, checkpoints as llama.cpp would save them, rows of logits; samplers are no ceiling."""
    path = tiny_gemma3(tmp_path / "gemma.gguf")
    params = as_server(Params(n_ctx=512), n_parallel_given=False, n_draft=1)
    with open_gguf(path) as gguf:
        prediction = predict_attached(gguf, params, Attachments(server=Server(cache_ram_mib=7, n_ctx_checkpoints=5)))
        layers = rule_for(gguf.architecture).layers(read_hparams(gguf))
    sizes = {t.name.removeprefix("server: "): t.nbytes for t in prediction.ceilings}
    (full,) = attachment_oracle.states(path, params, [prediction.context.n_ctx_seq - 1])
    assert sizes == {
        "prompt cache": 7 << 20,
        "context checkpoints": 4 * 5 * full["partial"],
        "more rows of logits": 4 * 512 * 4,
    }
    assert [t.nbytes for t in prediction.terms if t.name == "samplers"] == [4 * 512 * 12]
    assert full["partial"] == state_bytes(layers, prediction.context, 1 << 20, partial=True)


def test_a_server_without_a_cache(model: GGUFFile) -> None:
    """Nothing is said of what is turned off; a cache without a limit is a note, not a number."""
    params = as_server(Params(n_ctx=512), n_parallel_given=False)
    off = predict_attached(model, params, Attachments(server=Server(cache_ram_mib=0)))
    assert not off.ceilings  # a llama needs no checkpoints
    unlimited = predict_attached(model, params, Attachments(server=Server(cache_ram_mib=-1)))
    assert not unlimited.ceilings
    assert any("no limit in bytes" in note for note in unlimited.notes)


def test_a_draft_with_recurrent_layers(tmp_path: Path, model: GGUFFile) -> None:
    """It has its states beside its cache, as llama.cpp keeps them; the model it guesses for needs no checkpoints."""
    draft = reshaped("qwen35", {})
    assert draft is not None
    draft.write(tmp_path / "draft.gguf")
    params = as_server(Params(n_ctx=512), n_parallel_given=False)
    with open_gguf(tmp_path / "draft.gguf") as gguf:
        attached = Attachments(draft=Draft(gguf=gguf), server=Server())
        prediction = predict_attached(model, params, attached)
        alone = predict_draft(attached.draft or Draft(gguf=gguf), params, prediction.context)
    kept = draft_context_bytes(prediction.terms)
    assert kept == alone.context_bytes == oracle.ask(tmp_path / "draft.gguf", [params])[0]["context"]
    assert [t.name for t in prediction.ceilings] == ["server: prompt cache"]


def test_refusals(tmp_path: Path, model: GGUFFile) -> None:
    """Attachments that are something else, or another model's, are refused by name."""
    with pytest.raises(ValueError, match="expected a LoRA adapter"):
        predict_attached(model, BASE, Attachments(loras=(model,)))
    with pytest.raises(ValueError, match="expected an mmproj file"):
        predict_attached(model, BASE, Attachments(mmproj=model))
    mmproj = open_gguf(write_clip(tmp_path / "mmproj.gguf", ClipShape(projector="mlp")))
    with pytest.raises(UnsupportedError, match="not a model that can be run by itself"):
        predict_attached(model, BASE, Attachments(draft=Draft(gguf=mmproj)))
    with pytest.raises(ValueError, match="draft type_k is 'q3_k'"):
        Draft(gguf=model, type_k="q3_k")
    assert GGMLType.F16 is resolve(BASE, n_ctx_train=2048).type_k
