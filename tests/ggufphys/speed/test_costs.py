"""FLOPs and bytes of prefill and decode, against closed forms and each other."""

import json
from collections.abc import Callable
from math import isclose, prod
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggufphys import GGUFFile, Params, open_gguf, predict_costs, predict_memory
from ggufphys.arch import read_hparams, rule_for
from ggufphys.cli import main
from ggufphys.graph.allocating.layout import Layouts
from ggufphys.graph.describing.cost import Cost, distinct_experts
from ggufphys.memory.compute import compute_basis
from ggufphys.speed.costs import CostPrediction, StepCosts, along_lines
from tests.ggufphys.models import llama_metadata, llama_tensors, shape_header, write_model

N_LAYER, N_EMBD, N_EMBD_KV = 6, 256, 128


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> GGUFFile:
    """A llama of six layers with tied embeddings."""
    path = tmp_path_factory.mktemp("costs") / "plain.gguf"
    write_model(path, llama_metadata(block_count=N_LAYER, context_length=65536), llama_tensors(n_layer=N_LAYER))
    with open_gguf(path) as gguf:
        return gguf


def matrices(gguf: GGUFFile, part: str = "blk.") -> int:
    """Weights of the matrices whose names contain `part`."""
    return sum(prod(t.ne) for t in gguf.tensors if t.ne[1:] and t.ne[1] > 1 and part in t.name)


def weights_bytes(gguf: GGUFFile, has: Callable[[str], bool]) -> int:
    """Bytes of the tensors with such names."""
    return sum(t.nbytes or 0 for t in gguf.tensors if has(t.name))


def costs(gguf: GGUFFile, *, depth: int = 0, prefill: int = 512, batch: int = 1, **params: object) -> CostPrediction:
    run = Params(**{"n_ctx": 16384, **params})  # type: ignore[arg-type]
    return predict_costs(gguf, run, prefill=prefill, depth=depth, batch=batch)


@pytest.mark.parametrize("flash_attn", ["on", "off"])
@pytest.mark.parametrize("depth", [0, 256, 4096])
def test_decode_computes_two_flops_a_weight(plain: GGUFFile, depth: int, flash_attn: str) -> None:
    """A decoded token takes 2 x parameters, and 4 x n_embd x n_kv a layer for attention, flash or not."""
    decode = costs(plain, depth=depth, flash_attn=flash_attn).decode

    assert decode is not None
    n_kv = depth + 256  # the cell of the new token, rounded up
    assert decode.total.flops == 2 * (matrices(plain) + 512 * N_EMBD) + 4 * N_EMBD * n_kv * N_LAYER


def test_prefill_computes_two_flops_a_weight_and_token(plain: GGUFFile) -> None:
    """A prompt takes as much for every token, but for logits and the last feed-forward layer: for one token each."""
    prefill = costs(plain, prefill=1024, n_ubatch=256).prefill

    feed_forward = matrices(plain, "blk.5.ffn")
    products = 1024 * (matrices(plain) - feed_forward) + feed_forward + 512 * N_EMBD
    attention = sum(4 * N_EMBD * n_kv * 256 * N_LAYER for n_kv in (256, 512, 768, 1024))
    assert prefill.n_batches == 4
    assert prefill.total.flops == 2 * products + attention


@pytest.mark.parametrize("type_kv", ["f16", "q8_0", "f32"])
def test_decode_reads_the_whole_model_and_cache(plain: GGUFFile, type_kv: str) -> None:
    """At full depth decode reads the weights once, one row of the embedding, and all bytes of the context."""
    params = Params(n_ctx=8192, type_k=type_kv, type_v=type_kv, use_extra_bufts=False)
    decode = predict_costs(plain, params, prefill=1, depth=8191).decode
    memory = predict_memory(plain, params)

    assert decode is not None
    tensor_bytes = weights_bytes(plain, lambda name: True)
    assert decode.total.weight_bytes == tensor_bytes + N_EMBD * 2
    assert decode.total.cache_read_bytes == memory.context_bytes
    assert decode.total.cache_written_bytes * 8192 == memory.context_bytes


def test_a_prompt_reads_the_weights_once_a_batch(plain: GGUFFile) -> None:
    """Twice the batches read the layers twice, and write each token to the cache once."""
    one, two = (costs(plain, prefill=512, n_ubatch=n).prefill.total for n in (512, 256))
    head = 2 * 512 * N_EMBD + 2 * N_EMBD * 512 + 4 * N_EMBD  # with the output norm
    last = weights_bytes(plain, lambda name: name.startswith("blk.5.ffn"))  # for wanted tokens alone

    assert two.weight_bytes - one.weight_bytes == one.weight_bytes - head - last
    assert one.cache_written_bytes == two.cache_written_bytes == 512 * N_LAYER * 2 * N_EMBD_KV * 2


@pytest.mark.parametrize("shape", ["llama-3.1-8b", "gemma-3-4b", "mixtral-8x7b", "gpt-oss-20b", "deepseek-v2-lite"])
def test_few_layers_cost_as_all(tmp_path: Path, shape: str) -> None:
    """One layer of each kind and one more tell what all layers cost, types of weights included."""
    with open_gguf(shape_header(tmp_path / "model.gguf", shape)) as gguf:
        prediction = predict_costs(gguf, Params(n_ctx=4096, n_seq_max=3), prefill=300, batch=3)
        layouts = Layouts(gguf, read_hparams(gguf), rule_for(gguf.architecture))
    layouts.kinds = tuple(range(layouts.h.n_layer))
    with open_gguf(tmp_path / "model.gguf") as gguf:
        context = predict_memory(gguf, Params(n_ctx=4096, n_seq_max=3)).context
    everything = StepCosts(layouts, context)

    assert prediction.prefill == everything.prefill(300)
    assert prediction.decode == everything.decode(3)


def test_experts_touched(tmp_path: Path) -> None:
    """Decode reads the expected number of distinct experts; one token reads those it uses, many tokens all."""
    with open_gguf(shape_header(tmp_path / "model.gguf", "mixtral-8x7b")) as gguf:
        bytes_of_all = weights_bytes(gguf, lambda name: "_exps" in name)
        routers = weights_bytes(gguf, lambda name: "ffn_gate_inp" in name)
        decodes = [costs(gguf, batch=n, n_seq_max=64, kv_unified=True).decode for n in (1, 2, 64)]
    read = [d.by_kind["experts"].weight_bytes - routers for d in decodes if d is not None]

    assert read[0] == bytes_of_all * 2 // 8
    assert read[1] == bytes_of_all * 7 // 16  # 8 * (1 - (3/4)^2) = 3.5 of 8
    assert isclose(read[2], bytes_of_all, rel_tol=1e-6)


@given(n_expert=st.integers(1, 512), n_tokens=st.integers(1, 4096), data=st.data())
def test_distinct_experts(n_expert: int, n_tokens: int, data: st.DataObject) -> None:
    """At least those of one token, at most all, and never fewer for more tokens."""
    n_used = data.draw(st.integers(1, n_expert))
    touched = distinct_experts(n_expert, n_used, n_tokens)

    assert n_used * (1 - 1e-9) <= touched <= n_expert
    assert touched <= distinct_experts(n_expert, n_used, n_tokens + 1)
    assert touched <= n_used * n_tokens * (1 + 1e-9)


@settings(max_examples=25, deadline=None)
@given(
    prefill=st.integers(1, 3000), depth=st.integers(0, 3000), n_ubatch=st.sampled_from((32, 100, 512)),
    batch=st.integers(1, 8),
)  # fmt: skip
def test_more_costs_more(plain: GGUFFile, prefill: int, depth: int, n_ubatch: int, batch: int) -> None:
    """Totals are sums over kinds; one more token, 256 more cells or one more sequence cost no less anywhere."""
    params = {"n_ubatch": n_ubatch, "n_seq_max": 16, "n_ctx": 16 * 8192}
    here = costs(plain, prefill=prefill, depth=depth, batch=batch, **params)
    more = costs(plain, prefill=prefill + 1, depth=depth + 256, batch=batch + 1, **params)

    for one, other in zip(here.phases, more.phases, strict=True):
        assert one.total.total_bytes == sum(cost.total_bytes for cost in one.by_kind.values())
        assert one.total.flops == sum(cost.flops for cost in one.by_kind.values())
        for kind, cost in one.by_kind.items():
            assert cost.flops <= other.by_kind[kind].flops
            assert cost.weight_bytes <= other.by_kind[kind].weight_bytes
            assert cost.cache_bytes <= other.by_kind[kind].cache_bytes
            assert cost.activation_bytes <= other.by_kind[kind].activation_bytes


@given(bends=st.lists(st.integers(0, 100), max_size=2), n=st.integers(1, 101))
def test_along_lines(bends: list[int], n: int) -> None:
    """Lines with few bends come out as if each point had been asked for; a straight one takes three questions."""
    asked: list[int] = []

    def cost(x: int) -> Cost:
        return Cost(flops=3 * x + 7, weight_bytes=sum(5 * min(x, bend) for bend in bends))

    def costs_at(x: int) -> dict[str, Cost]:
        asked.append(x)
        return dict.fromkeys(("embedding", "attention", "recurrent", "ffn", "experts", "head", "other"), cost(x))

    found = along_lines(costs_at, range(n))  # type: ignore[arg-type]

    if not bends:
        assert len(asked) <= 3
    assert all(isclose(c["ffn"].flops, cost(x).flops) for x, c in enumerate(found))


def test_windows_bound_attention(tmp_path: Path) -> None:
    """Beyond the window only gemma's full layers cost more, and a long prompt is the sum of its batches."""
    with open_gguf(shape_header(tmp_path / "model.gguf", "gemma-3-4b")) as gguf:
        near, far = (costs(gguf, depth=n, prefill=1, n_ctx=65536).decode for n in (8191, 16383))
        long = costs(gguf, prefill=20000, n_ctx=65536).prefill
        parts = [costs(gguf, depth=n, prefill=min(512, 20000 - n), n_ctx=65536).prefill for n in range(0, 20000, 512)]
    assert near is not None
    assert far is not None
    full_layers, head = 5, 8 * 256  # of 34 layers one in six; queries have 8 heads
    assert far.total.flops - near.total.flops == 4 * head * 8192 * full_layers
    assert long.total.cache_bytes == sum(part.total.cache_bytes for part in parts)


def test_a_recurrent_state_is_cleared_where_a_prompt_begins(tmp_path: Path) -> None:
    """One layer's state is written a time more by the first batch of a prompt than by those that follow, or decode."""
    path = tmp_path / "mamba2.gguf"
    shape_header(path, "mamba2-2.7b")
    with open_gguf(path) as gguf:
        n_layer = gguf.get_int("mamba2.block_count", 0)
        state_bytes = 4 * gguf.get_int("mamba2.ssm.state_size", 0) * gguf.get_int("mamba2.ssm.inner_size", 0)
        first, later = (costs(gguf, depth=depth, prefill=256).prefill.total for depth in (0, 256))
        decode = costs(gguf, depth=0).decode
    assert decode is not None
    cleared = first.cache_bytes - later.cache_bytes
    assert (
        n_layer * 2 * state_bytes <= cleared <= n_layer * 2.1 * state_bytes
    )  # read and written; the convolution's too
    assert decode.total.cache_bytes < 3.1 * n_layer * state_bytes  # the scan reads it, and its result is copied back


def test_refusals(plain: GGUFFile) -> None:
    """More sequences or tokens than the context has are refused with the flag that helps."""
    with pytest.raises(ValueError, match="--parallel 4"):
        predict_costs(plain, Params(n_ctx=512), batch=4)
    with pytest.raises(ValueError, match=r"600 tokens .* 512 cells of a sequence: raise --ctx-size"):
        predict_costs(plain, Params(n_ctx=512), prefill=600)
    with pytest.raises(ValueError, match=r"516 tokens \(4 sequences of 129\) .* 512 cells that they share: raise"):
        predict_costs(plain, Params(n_ctx=512, n_seq_max=4, kv_unified=True), depth=128, batch=4)
    with pytest.raises(ValueError, match="expected at least 1, 0 and 1"):
        predict_costs(plain, Params(n_ctx=512), batch=0)


def test_inspect_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints a table a phase, and the same numbers as JSON."""
    model = str(shape_header(tmp_path / "model.gguf", "gpt-oss-20b"))
    asked = [model, "-c", "4096", "-np", "2", "--costs", "--prefill", "1k", "--depth", "256", "--batch", "2"]

    assert main(["inspect", *asked]) == 0
    text = capsys.readouterr().out
    assert "prefill of 1,024 tokens in 2 batches, at depth 256" in text
    assert "decode of 2 sequences, one token each, at depth 256" in text
    assert main(["inspect", *asked, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)["costs"]
    assert document["basis"] == compute_basis("gpt-oss")
    for phase in ("prefill", "decode"):
        kinds = document[phase]["kinds"].values()
        assert document[phase]["total"]["flops"] == sum(kind["flops"] for kind in kinds) > 0
        assert set(document[phase]["kinds"]) >= {"attention", "experts", "head"}
