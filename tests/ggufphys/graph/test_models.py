"""The graph of each architecture with a model file is llama.cpp's own: its bytes, and its nodes one by one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ggufphys import Params, open_gguf, predict_memory
from ggufphys.arch import RULES, read_hparams, rule_for
from ggufphys.graph.allocating.layout import Layouts
from ggufphys.graph.batch import Batch
from ggufphys.graph.models import HEADS, MODELS
from ggufphys.params import resolve
from tests import archs, graph_oracle, oracle
from tests.arch_checks import checks

N_TOKENS = 5
CELLS_IN_USE = 256  # llama.cpp looks at cells by the 256
# llama.cpp reserves for them and dies when they run: of a mask that no layer reads, of a division by zero, of rotation
# matrices that it has not made where a layer with a window has an indexer.
CANNOT_RUN = {"gemma-embedding", "llama4/none", "dots3note", "dots3note/head"}
WRITTEN = [
    name
    for name, model in archs.models().items()
    if model.arch in MODELS and any(not isinstance(row, str) for row in archs.records()[name].rows)
]

# Its head passes no sections on to a rotation that needs some, and ggml dies of that.
ROTATES_BY_NO_SECTION = "glm4moe/head"
BESIDE_TARGET = "gemma4-assistant"  # tests/ggufphys/memory/attachments/test_attached.py
ENDLESS = ("plamo2/first",)  # without heads in the first layer llama.cpp rotates no dimensions, for ever
# With several sequences: what is written back to states is a view of the same bytes in another shape; llama.cpp dies
# when it runs.
OTHER_VIEWS = ("mamba", "jamba", "plamo2", "rwkv6", "rwkv7", "rwkv6qwen2", "arwkv7")
ONE_SEQUENCE = (*OTHER_VIEWS, "t5encoder", "minimax-01", "kimi-linear")


def test_every_model_file_is_tested() -> None:
    """No architecture with a graph is without a small model that llama.cpp gave bytes for."""
    assert {archs.models()[name].arch for name in WRITTEN} == set(MODELS) - {BESIDE_TARGET}


@pytest.mark.parametrize("name", WRITTEN)
def test_compute_bytes(tmp_path: Path, name: str) -> None:
    """The compute buffer is llama.cpp's to the byte, in every configuration of the grid."""
    found = [
        (check.params, check.compute)
        for check in checks(name, tmp_path)
        if check.compute is not None and check.compute_is_exact
    ]

    assert found
    assert [(params, sizes) for params, sizes in found if sizes[0] != sizes[1]] == []


@pytest.mark.parametrize(
    "changes",
    [{"flash_attn": "on"}, {"flash_attn": "off"}, {"flash_attn": "on", "type_k": "q8_0", "type_v": "q8_0"}],
    ids=["flash-attn", "no-flash-attn", "rotated"],
)
def test_nodes(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Operations, shapes, parameters and sources are llama.cpp's, node for node, when it runs a batch."""
    params = replace(Params(n_ctx=512, n_ubatch=64, use_extra_bufts=False), **changes)
    names = [name for name in WRITTEN if name not in ENDLESS]
    paths = [tmp_path / f"{i}.gguf" for i in range(len(names))]
    for name, path in zip(names, paths, strict=True):
        archs.write(path, name, archs.records()[name].tensors)

    theirs = graph_oracle.llama_graphs(paths, params, N_TOKENS)

    differences = {}
    for name, path, nodes in zip(names, paths, theirs, strict=True):
        if name in CANNOT_RUN:
            assert nodes is None, name
            continue
        ours = our_nodes(path, params)
        difference = graph_oracle.first_difference(ours, nodes) if ours and nodes else f"{ours} and {nodes}"
        if difference and (ours or nodes):
            differences[name] = difference
    assert differences == {}


HEADED = [
    name
    for name in WRITTEN
    if archs.models()[name].arch in HEADS and not isinstance(archs.records()[name].rows[-1], str)
]


def test_every_head_is_tested() -> None:
    """No prediction head that the pinned llama.cpp runs is without a graph and a model that it gave bytes for."""
    assert {archs.models()[name].arch for name in HEADED} == {rule.name for rule in RULES.values() if rule.draft}
    assert {archs.models()[name].arch for name in HEADED} <= HEADS


@pytest.mark.parametrize(
    "changes",
    [{"flash_attn": "on"}, {"flash_attn": "off"}, {"flash_attn": "on", "type_k": "q8_0", "type_v": "q8_0"}],
    ids=["flash-attn", "no-flash-attn", "rotated"],
)
def test_nodes_of_heads(tmp_path: Path, changes: dict[str, Any]) -> None:
    """The graphs of draft contexts, which run prediction heads, are llama.cpp's too."""
    base = Params(n_ctx=512, n_ubatch=64, use_extra_bufts=False, load_mtp=True, ctx_type="mtp")
    params = replace(base, **changes)
    names = [name for name in HEADED if name != ROTATES_BY_NO_SECTION]
    paths = [tmp_path / f"{i}.gguf" for i in range(len(names))]
    for name, path in zip(names, paths, strict=True):
        archs.write(path, name, archs.records()[name].tensors)

    theirs = graph_oracle.llama_graphs(paths, params, N_TOKENS)

    pairs = [(name, our_nodes(path, params) or [], b or []) for name, path, b in zip(names, paths, theirs, strict=True)]
    assert all(ours for _, ours, _ in pairs)
    assert [(name, found) for name, a, b in pairs if (found := graph_oracle.first_difference(a, b))] == []


def test_nodes_of_sequences(tmp_path: Path) -> None:
    """The same for a batch of several sequences, each with cells of its own."""
    params = Params(n_ctx=3 * 512, n_ubatch=64, n_seq_max=3, flash_attn="on", use_extra_bufts=False)
    apart = {*CANNOT_RUN, *ENDLESS}
    names = [name for name in WRITTEN if name not in apart and archs.models()[name].arch not in ONE_SEQUENCE]
    paths = [tmp_path / f"{i}.gguf" for i in range(len(names))]
    for name, path in zip(names, paths, strict=True):
        archs.write(path, name, archs.records()[name].tensors)

    theirs = graph_oracle.llama_graphs(paths, params, N_TOKENS)

    ours = [our_nodes(path, params) for path in paths]
    assert sum(nodes is not None for nodes in ours) > 200
    pairs = [(name, a or [], b or []) for name, a, b in zip(names, ours, theirs, strict=True)]
    assert [(name, found) for name, a, b in pairs if (found := graph_oracle.first_difference(a, b))] == []


@pytest.mark.parametrize("name", ["minimax-01", "kimi-linear", "mamba2"])
def test_sequences_in_a_real_run(tmp_path: Path, name: str) -> None:
    """Where buffers are really allocated, that of several sequences is llama.cpp's as well."""
    path = tmp_path / "model.gguf"
    archs.write(path, name, archs.records()[name].tensors)
    base = Params(n_ctx=4096, use_extra_bufts=False, use_mmap=False)
    asked = [replace(base, n_seq_max=4), replace(base, n_seq_max=3, kv_unified=True)]

    answers = oracle.ask(path, asked, no_alloc=False)

    with open_gguf(path) as gguf:
        ours = [predict_memory(gguf, params).compute_bytes for params in asked]
    assert ours == [answer["compute"] for answer in answers]


@pytest.mark.parametrize("no_alloc", [False, True], ids=["run", "simulation"])
def test_decode_that_takes_more(tmp_path: Path, no_alloc: bool) -> None:
    """A step that gathers keys may take more than a short prompt; llama.cpp's own simulation leaves it out."""
    path = tmp_path / "model.gguf"
    archs.write(path, "minimax-m3", archs.records()["minimax-m3"].tensors)
    params = Params(n_ctx=2048, n_ubatch=16, n_seq_max=8, use_extra_bufts=False, use_mmap=False)

    [answer] = oracle.ask(path, [params], no_alloc=no_alloc)

    with open_gguf(path) as gguf:
        assert predict_memory(gguf, replace(params, no_alloc=no_alloc)).compute_bytes == answer["compute"]


def our_nodes(path: Path, params: Params) -> list[graph_oracle.Node] | None:
    """Our graph for a first batch, as many tokens of each sequence; None where we refuse."""
    with open_gguf(path) as gguf:
        h, rule = read_hparams(gguf), rule_for(gguf.architecture)
        n_tokens = N_TOKENS * params.n_seq_max
        n_outputs = 1 if any(rule.layers(h)) else n_tokens  # models that keep nothing give all
        batch = Batch(
            n_tokens=n_tokens, n_seqs=params.n_seq_max, n_outputs=n_outputs, n_kv=CELLS_IN_USE, n_enc=N_TOKENS
        )
        try:
            predict_memory(gguf, params)
        except ValueError:
            return None
        context = resolve(
            params, n_ctx_train=h.n_ctx_train, causal_attn=h.causal_attn, flash_attn_possible=rule.flash_attn
        )
        layouts = Layouts(gguf, h, rule, ctx_type=params.ctx_type)
        return graph_oracle.our_nodes(layouts.graph(context, batch))
