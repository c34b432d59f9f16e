"""The graph of each architecture with a model file is llama.cpp's own, node by node; tests/ggufphys/arch compares its
bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ggufphys import Params, open_gguf, predict_memory
from ggufphys.arch import RULES
from ggufphys.graph.batch import Batch
from ggufphys.graph.devices.runs import Runs
from ggufphys.graph.models import HEADS, MODELS
from ggufphys.memory.predict import Predictor
from tests import archs, graph_oracle, oracle

Files = Mapping[str, Path]
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


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """All these models as files."""
    folder = tmp_path_factory.mktemp("models")
    found = {name: folder / f"{i}.gguf" for i, name in enumerate(WRITTEN)}
    for name, path in found.items():
        archs.write(path, name, archs.records()[name].tensors)
    return found


def test_every_model_file_is_tested() -> None:
    """No architecture with a graph is without a small model that llama.cpp gave bytes for."""
    assert {archs.models()[name].arch for name in WRITTEN} == set(MODELS) - {BESIDE_TARGET}


@pytest.mark.parametrize(
    "changes",
    [{"flash_attn": "on"}, {"flash_attn": "off"}, {"flash_attn": "on", "type_k": "q8_0", "type_v": "q8_0"}],
    ids=["flash-attn", "no-flash-attn", "rotated"],
)
def test_nodes(files: Files, changes: dict[str, Any]) -> None:
    """Operations, shapes, parameters and sources are llama.cpp's, node for node, when it runs a batch."""
    params = replace(Params(n_ctx=512, n_ubatch=64, use_extra_bufts=False), **changes)
    names = [name for name in WRITTEN if name not in ENDLESS]

    theirs = dict(zip(names, graph_oracle.llama_graphs([files[name] for name in names], params, N_TOKENS), strict=True))

    assert {name: theirs.pop(name) for name in CANNOT_RUN} == dict.fromkeys(CANNOT_RUN)
    assert differences(files, params, theirs) == {}


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
def test_nodes_of_heads(files: Files, changes: dict[str, Any]) -> None:
    """The graphs of draft contexts, which run prediction heads, are llama.cpp's too."""
    base = Params(n_ctx=512, n_ubatch=64, use_extra_bufts=False, load_mtp=True, ctx_type="mtp")
    params = replace(base, **changes)
    names = [name for name in HEADED if name != ROTATES_BY_NO_SECTION]

    theirs = dict(zip(names, graph_oracle.llama_graphs([files[name] for name in names], params, N_TOKENS), strict=True))

    assert None not in theirs.values()
    assert differences(files, params, theirs) == {}


def test_nodes_of_sequences(files: Files) -> None:
    """The same for a batch of several sequences, each with cells of its own."""
    params = Params(n_ctx=3 * 512, n_ubatch=64, n_seq_max=3, flash_attn="on", use_extra_bufts=False)
    apart = {*CANNOT_RUN, *ENDLESS}
    names = [name for name in WRITTEN if name not in apart and archs.models()[name].arch not in ONE_SEQUENCE]

    theirs = dict(zip(names, graph_oracle.llama_graphs([files[name] for name in names], params, N_TOKENS), strict=True))

    assert sum(nodes is not None for nodes in theirs.values()) > 200
    assert differences(files, params, theirs) == {}


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


def differences(
    files: Files, params: Params, theirs: Mapping[str, Sequence[graph_oracle.Node] | None]
) -> dict[str, str]:
    """By model, `difference`; empty where all are llama.cpp's."""
    return {name: found for name, nodes in theirs.items() if (found := difference(files[name], params, nodes))}


def difference(path: Path, params: Params, theirs: Sequence[graph_oracle.Node] | None) -> str:
    """Where our graph for a first batch and llama.cpp's part, in words; where it refuses we have to as well."""
    with open_gguf(path) as gguf:
        predictor = Predictor(gguf)
        try:
            if theirs is None:
                return f"llama.cpp refuses {predictor.predict(params).context}"
            return graph_oracle.first_difference(our_nodes(predictor, params), theirs)
        except ValueError as error:
            return "" if theirs is None else f"refused: {error}"


def our_nodes(runs: Runs, params: Params) -> list[graph_oracle.Node]:
    """Our graph for a first batch, as many tokens of each sequence. Raises ValueError where we refuse."""
    run = runs.run(params)
    n_tokens = N_TOKENS * params.n_seq_max
    n_outputs = 1 if any(runs.rule.layers(runs.h)) else n_tokens  # models that keep nothing give all
    batch = Batch(n_tokens=n_tokens, n_seqs=params.n_seq_max, n_outputs=n_outputs, n_kv=CELLS_IN_USE, n_enc=N_TOKENS)
    return graph_oracle.our_nodes(run.layouts.graph(run.context, batch))
