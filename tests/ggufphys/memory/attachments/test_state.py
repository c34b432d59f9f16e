"""A sequence's saved state is as large as llama.cpp says, whole and partial."""

from dataclasses import replace
from pathlib import Path

import pytest

from ggufphys import Params, open_gguf, predict_memory
from ggufphys.arch import read_hparams, rule_for
from ggufphys.context import resolve
from ggufphys.gguf import GGMLType
from ggufphys.gguf.writer import TensorSpec
from ggufphys.memory.attachments.state import cell_ext_bytes, needs_checkpoints, state_bytes
from tests import attachment_oracle
from tests.ggufphys.models import llama_metadata, llama_tensors, tiny_llama, write_model
from tests.random_runs import reshaped

N_SWA = 24
SHORT = Params(n_ctx=1024, n_ubatch=64)
KINDS = ["mamba", "falcon-h1", "qwen35", "lfm2", "minimax-01", "deepseek32", "minimax-m3", "dots3note/matched",
         "qwen4exp", "glm5-next", "deepseek4", "glm4"]  # fmt: skip
CONFIGURATIONS = [
    Params(n_ctx=512),
    Params(n_ctx=512, n_seq_max=3),
    Params(n_ctx=512, n_seq_max=3, kv_unified=True),
    Params(n_ctx=512, type_k="q8_0", type_v="q4_0"),
    Params(n_ctx=512, flash_attn="off", type_k="bf16"),
    Params(n_ctx=512, flash_attn="off", n_seq_max=2, type_v="f32"),
    Params(n_ctx=512, swa_full=True),
]


def tiny_gemma3(path: Path) -> Path:
    """Seven layers, of which the sixth sees the whole context."""
    n_layer = 7
    norms = ("post_attention_norm", "post_ffw_norm")
    more = [TensorSpec(f"blk.{il}.{name}.weight", (256,), GGMLType.F32) for il in range(n_layer) for name in norms]
    more += [TensorSpec(f"blk.{il}.attn_{x}_norm.weight", (64,), GGMLType.F32) for il in range(n_layer) for x in "qk"]
    metadata = llama_metadata(
        "gemma3", block_count=n_layer, attention__sliding_window=N_SWA, attention__key_length=64,
        attention__value_length=64,
    )  # fmt: skip
    return write_model(path, metadata, [*llama_tensors(n_layer=n_layer), *more])


def tiny_hybrid(path: Path) -> Path:
    """A layer with attention behind three recurrent ones."""
    draft = reshaped("qwen35", {})
    assert draft is not None
    draft.write(path)
    return path


@pytest.mark.parametrize("make", [tiny_llama, tiny_gemma3])
@pytest.mark.parametrize("params", CONFIGURATIONS)
def test_states_against_llama_cpp(tmp_path: Path, make: "type[Path]", params: Params) -> None:
    """With few tokens, as many as a window holds, and more: whole and partial states, to the byte."""
    path = make(tmp_path / "model.gguf")
    n_tokens = [0, 1, N_SWA - 1, N_SWA, N_SWA + 1, 60]
    truths = attachment_oracle.states(path, params, n_tokens)
    with open_gguf(path) as gguf:
        h = read_hparams(gguf)
        layers = rule_for(h.arch).layers(h)
    context = resolve(params, n_ctx_train=h.n_ctx_train)
    for n, truth in zip(n_tokens, truths, strict=True):
        predicted = {p: state_bytes(layers, context, n, partial=p == "partial") for p in ("whole", "partial")}
        assert predicted == truth, n


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("params", [SHORT, replace(SHORT, n_seq_max=2, flash_attn="off", type_k="bf16", type_v="bf16")])
def test_states_of_every_kind_of_memory(name: str, params: Params, tmp_path: Path) -> None:
    """Recurrent rows, hybrids, indexers' caches, blocks with what is compressed: whole and partial, to the byte."""
    path, draft = tmp_path / "model.gguf", reshaped(name, {})
    assert draft is not None
    draft.write(path)
    n_tokens = [0, 1, 5, 131, 270]
    truths = attachment_oracle.states(path, params, n_tokens)
    with open_gguf(path) as gguf:
        context = predict_memory(gguf, params).context
        h, ext = read_hparams(gguf), cell_ext_bytes(gguf)
    layers = rule_for(h.arch).layers(h)
    for n, truth in zip(n_tokens, truths, strict=True):
        predicted = {
            part: state_bytes(layers, context, n, partial=part == "partial", cell_ext_bytes=ext)
            for part in ("whole", "partial")
        }
        assert predicted == truth, n


def test_who_needs_checkpoints(tmp_path: Path) -> None:
    """A model whose whole cache is kept can be rolled back without; one with windows or recurrent layers cannot."""
    for make, params, needed in (
        (tiny_llama, Params(), False),
        (tiny_gemma3, Params(), True),
        (tiny_gemma3, replace(Params(), swa_full=True), False),
        (tiny_hybrid, replace(Params(), swa_full=True), True),
    ):
        with open_gguf(make(tmp_path / "model.gguf")) as gguf:
            h = read_hparams(gguf)
            context = resolve(params, n_ctx_train=h.n_ctx_train)
            assert needs_checkpoints(rule_for(h.arch).layers(h), context) is needed
