"""What graphs insist on: weights that they read without asking, and nodes that ggml would not make."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from ggufphys.errors import UnsupportedError
from ggufphys.gguf import GGMLType, open_gguf
from ggufphys.gguf.values import ValueType
from ggufphys.gguf.writer import Typed
from ggufphys.graph import ops
from ggufphys.graph.asserted import ASSERTED, MEANING, first_failure
from ggufphys.graph.devices.runs import Runs
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.loads.graphs import check_graph, graph_failures
from ggufphys.memory.predict import Predictor
from ggufphys.params import Params
from tests import archs
from tests.ggufphys.loads.header import refusals
from tests.load_changes import Draft
from tests.load_models import own_drafts

F32, F16, I32 = GGMLType.F32, GGMLType.F16, GGMLType.I32
MODELS = {draft.name: draft for draft in own_drafts()}


def reasons(draft: Draft, path: Path) -> list[str]:
    """What is said of the model's graph."""
    draft.write(path)
    with open_gguf(path) as gguf:
        found = list(check_graph(gguf, Params(n_ctx=512)))
    assert all(refusal.ends_process for refusal in found)
    return [f"{refusal.where} {refusal.found} {refusal.expected}" for refusal in found]


def retyped(draft: Draft, name: str, ggml_type: GGMLType) -> Draft:
    """The model with one tensor of another type."""
    tensors = (replace(t, ggml_type=ggml_type) if t.name == name else t for t in draft.tensors)
    return replace(draft, tensors=tuple(tensors))


def test_graphs_of_small_models_are_made(tmp_path: Path) -> None:
    """Ggml would make every node of every recorded model's graph, as it does."""
    found = {name: why for name, draft in list(MODELS.items())[::2] if (why := reasons(draft, tmp_path / "m.gguf"))}
    assert found == {}


def test_the_prompts_own_graph_has_the_same_verdict(tmp_path: Path) -> None:
    """Of the graph that is laid out the same is said as of one that is built for the verdict alone."""
    other = {}
    for name, draft in list(MODELS.items())[1::2]:
        for tensor in draft.tensors[:: max(1, len(draft.tensors) // 3)]:
            retyped(draft, tensor.name, F16).write(tmp_path / "m.gguf")
            with suppress(UnsupportedError), open_gguf(tmp_path / "m.gguf") as gguf:  # of those that want a target
                runs = Runs(gguf)
                context = runs.context(Params(n_ctx=512, flash_attn="off" if name == "plm" else "auto"))
                alone, together = (list(graph_failures(runs.layouts, context, on_host=on)) for on in (False, True))
            if alone != together:
                other[name, tensor.name] = alone, together

    assert other == {}


def test_heads_of_delta_attention_are_the_first_layers(tmp_path: Path) -> None:
    """A recurrent layer without heads of attention has those of the first layer in its delta attention."""
    for name in ("kimi-linear", "kimi-k3", "bailingmoe3"):
        draft = MODELS[name]
        kv, key = draft.metadata[f"{name}.attention.head_count_kv"], f"{name}.attention.head_count"
        n_head = draft.metadata[key].value
        assert isinstance(kv.value, tuple)
        assert isinstance(n_head, int)
        flipped = tuple(n_head if n or il == 0 else 0 for il, n in enumerate(kv.value))
        metadata = {**draft.metadata, key: replace(kv, value=flipped)}
        assert reasons(replace(draft, metadata=metadata), tmp_path / "m.gguf") == []


def test_chains_longer_than_pythons_stack(tmp_path: Path) -> None:
    """Nodes that depend on one another by thousands, as the members of a large block do, are no fault."""
    draft, key = MODELS["qwen4exp/plain"], "qwen4exp.attention.compress_ratios"

    def of_blocks(size: int) -> list[str]:
        metadata = {**draft.metadata, key: Typed(size, ValueType.UINT32)}
        return reasons(replace(draft, metadata=metadata), tmp_path / "m.gguf")

    assert of_blocks(3000) == []
    for size in (3330, 1 << 30):  # the second too many to be built here
        (reason,) = of_blocks(size)
        assert "20,480 or fewer" in reason


@pytest.mark.parametrize(
    ("model", "tensor"),
    [
        ("falcon-h1", "blk.1.ssm_conv1d.bias"),
        ("phi3", "blk.2.attn_k.weight"),
        ("t5", "dec.blk.0.attn_rel_b.weight"),
    ],
)
def test_weights_read_without_asking_are_named(tmp_path: Path, model: str, tensor: str) -> None:
    """A tensor that the loader lets be missing and the graph reads all the same is a reason: llama.cpp would end."""
    draft = MODELS[model]
    (why,) = reasons(replace(draft, tensors=tuple(t for t in draft.tensors if t.name != tensor)), tmp_path / "m.gguf")
    assert tensor in why


def test_types_of_one_layer_count(tmp_path: Path) -> None:
    """Sinks in F16 are found in a layer that is like others but for their type."""
    (why,) = reasons(retyped(MODELS["gpt-oss"], "blk.2.attn_sinks.weight", F16), tmp_path / "m.gguf")
    assert "sinks in F32" in why


def test_scales_of_streams_are_f32(tmp_path: Path) -> None:
    """Hyper-connections whose scales are F16 are found, in any layer."""
    (why,) = reasons(retyped(MODELS["deepseek4"], "blk.2.hc_ffn_scale.weight", F16), tmp_path / "m.gguf")
    assert "scale and base in F32" in why


def test_whole_numbers_are_no_rows_to_multiply(tmp_path: Path) -> None:
    """An embedding of whole numbers is refused where its rows meet the first matrix."""
    assert reasons(retyped(MODELS["qwen2"], "token_embd.weight", I32), tmp_path / "m.gguf")


def _t(*ne: int) -> Tensor:
    return ops.weight(F32, *ne)


def node_failures(made: Tensor) -> str:
    """What ggml insists on of one node; empty where it makes it."""
    graph = Graph()
    graph.expand(made)
    failure = first_failure(graph)
    return failure[1] if failure else ""


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (ops.add(_t(8, 3), _t(8)), ops.add(_t(8, 3), _t(5))),
        (ops.mul_mat(_t(8, 3), _t(8, 2)), ops.mul_mat(_t(8, 3), _t(7, 2))),
        (ops.concat(_t(8, 3), _t(8, 2), 1), ops.concat(_t(8, 3), _t(7, 2), 1)),
        (ops.reshape(_t(8, 3), 24), ops.reshape(_t(8, 3), 25)),
        (ops.repeat(_t(8, 1), 8, 3), ops.repeat(_t(8, 2), 8, 3)),
        (ops.glu(_t(8, 3), _t(8, 3)), ops.glu(_t(8, 3), _t(8, 2))),
    ],
)
def test_nodes_whose_sources_do_not_fit_are_found(good: Tensor, bad: Tensor) -> None:
    """Ggml's assertions: a node of sources that go together is made, one whose sources don't is named."""
    assert node_failures(good) == ""
    assert node_failures(bad) in MEANING.values()


def test_every_assertion_has_words() -> None:
    """Each operation that is looked at says what it wants."""
    assert ASSERTED.keys() == MEANING.keys()


def test_more_sequences_than_there_is_room_for(tmp_path: Path) -> None:
    """minimax-m3 has nodes for each sequence: as many as llama.cpp makes room for run, one more ends it."""
    path = tmp_path / "model.gguf"
    path.write_bytes(archs.header("minimax-m3"))
    params = Params(n_ctx=1 << 14, n_ubatch=128, n_seq_max=50, use_extra_bufts=False, use_mmap=False, no_alloc=True)
    with open_gguf(path) as gguf:
        predictor = Predictor(gguf)
        assert predictor.predict(params).compute_bytes == 1886976  # llama.cpp's
        for n_seq_max in (51, 64):
            with pytest.raises(ValueError, match="more nodes than llama.cpp makes room for"):
                predictor.predict(replace(params, n_seq_max=n_seq_max))
        predictor.predict(replace(params, n_seq_max=64, n_ubatch=512))
        predictor.predict(replace(params, n_seq_max=64, kv_unified=True))


@pytest.mark.parametrize(
    ("last", "word"),
    [((1, 1), ""), ((1, 0), "FLASH_ATTN_EXT"), ((1, 2), "VIEW"), ((2, 1), "VIEW")],
)
def test_layers_that_read_anothers_cache(last: tuple[int, int], word: str, tmp_path: Path) -> None:
    """They look at it as so many heads as the file says of themselves: llama.cpp ends where it has fewer."""
    n_layer = archs.models()["gemma3n"].metadata["gemma3n.block_count"]
    assert isinstance(n_layer, int)
    heads = [1] * (n_layer - 2) + [*last]
    found = [str(refusal) for refusal in refusals(tmp_path, "gemma3n", attention__head_count_kv=heads)]
    assert [word in reason for reason in found] == [True] * bool(word)


@pytest.mark.parametrize(("name", "loads"), [("llama-embed", True), ("t5encoder", True), ("llama", False)])
def test_a_last_layer_without_heads(name: str, loads: bool, tmp_path: Path) -> None:
    """Its keys are made as the first layer's: what keeps none of them loads, the others have no room for them."""
    arch = archs.models()[name].arch
    metadata = archs.models()[name].metadata
    n_layer, heads = metadata[f"{arch}.block_count"], metadata[f"{arch}.attention.head_count_kv"]
    assert isinstance(n_layer, int)
    assert isinstance(heads, int)
    found = refusals(tmp_path, name, attention__head_count_kv=[heads] * (n_layer - 1) + [0])
    assert (found == ()) is loads
