"""Keys as llama.cpp's loader reads them: types, lengths, what must be there, and what ends the process."""

from math import inf
from pathlib import Path
from typing import Any

import pytest

from ggufphys import Params, check_loads, open_gguf, predict_memory
from ggufphys.gguf.values import ValueType
from ggufphys.loads.hparams import DEFAULTS, LISTS
from ggufphys.loads.refusal import headline
from ggufphys.loads.table import BUILDING, EVERY, HPARAMS, Branch, Read, Rule, Statement, architectures, statements
from tests import archs
from tests.ggufphys.loads.header import F64, I32, U64, refusals, typed


def test_every_small_model_loads(tmp_path: Path) -> None:
    """No small model that llama.cpp loads, of 151 architectures, is refused; those that want another model are."""
    refused = {name for name in archs.records() if refusals(tmp_path, name)}
    assert refused == {
        "eagle3",
        "eagle3/borrowed",
        "dflash/borrowed",
        "gemma4-assistant",
        "plm",
    }  # plm: with flash attention


@pytest.mark.parametrize(
    ("changes", "where", "found", "expected"),
    [
        ({"block_count": typed(3, U64)}, "llama.block_count", "u64", "u32"),
        ({"rope__freq_base": typed(1e4, F64)}, "llama.rope.freq_base", "f64", "f32"),
        ({"general__file_type": "mostly F16"}, "general.file_type", "str", "u32"),
        ({"attention__causal": typed(1, ValueType.UINT8)}, "llama.attention.causal", "u8", "bool"),
        ({"context_length": None}, "llama.context_length", "none", "a value of type u32"),
        ({"attention__head_count_kv": [2, 2]}, "llama.attention.head_count_kv", "arr[i32, 2]", "3 elements, or one value"),  # noqa: E501
        ({"rope__scaling__type": typed(2, I32)}, "llama.rope.scaling.type", "i32", "str"),
        ({"general__name": typed(2, I32)}, "general.name", "i32", "str"),
    ],
)  # fmt: skip
def test_types(tmp_path: Path, changes: dict[str, Any], where: str, found: str, expected: str) -> None:
    """A key of another type, too short or missing is the one reason, with what was found and what is expected."""
    (reason,) = refusals(tmp_path, **changes)
    assert (reason.where, reason.found, reason.expected) == (where, found, expected)
    assert "llama.cpp 0c1e570 src/llama-model-loader.cpp" in reason.source
    assert not reason.ends_process


@pytest.mark.parametrize(
    "changes",
    [
        {"attention__head_count_kv": [2, 2, 2]},
        {"ssm__conv_kernel": "four"},  # not read for llama
        {"general__size_label": typed(7, I32)},
        {"general__description": typed([1, 2], I32)},
        {"attention__causal": None},
        {"rope__scaling__finetuned": True},
    ],
)
def test_no_reason(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Arrays with a value for each layer, keys that this architecture never reads and descriptions are no reason."""
    assert refusals(tmp_path, **changes) == ()


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("llama", {"block_count": 513}, "n_layer_all = 513"),
        ("llama/moe", {"expert_used_count": 99}, "max(n_expert_used) <= n_expert"),
        ("llama", {"expert_used_count": 1}, "n_expert_used"),
        ("llama", {"rope__scaling__type": "nonesuch"}, "rope_scaling"),
        ("llama", {"attention__value_length": 32}, "n_embd_head_v == n_embd_head_k"),
        ("qwen35", {"full_attention_interval": 0}, "no division by zero"),
        ("gemma2", {"attention__sliding_window_pattern": typed(0, U64)}, "u32"),
        ("gemma2", {"attention__sliding_window_pattern": 1}, "any(is_swa[:n_layer_all])"),
        ("minimax-m3", {"attention__indexer__top_k": typed(1 << 31, ValueType.UINT32)}, "signed(indexer_top_k) >= 0"),
        ("deepseek4", {"hyper_connection__sinkhorn_iterations": typed(1 << 31, ValueType.UINT32)}, "1 iteration"),
        ("deepseek4", {"hyper_connection__sinkhorn_iterations": 0}, "1 iteration"),
        ("dots3note/matched", {"expert_gating_func": 0}, "expert_gating_func is 0, expected 1 to 4"),
        ("smallthinker", {"expert_gating_func": None}, "expert_gating_func is 0, expected 1 to 4"),
        ("minimax-m2", {"expert_gating_func": None}, "expert_gating_func is 0, expected 1 to 4"),
        ("qwen", {"attention__head_count": 1000}, "heads of 0"),
        ("llama/moe", {"expert_used_count": [2, 2, 0]}, "expert_used_count is 0 for layer 2"),
        ("llama/moe", {"expert_used_count": [1, 2, 2]}, "expected bytes inside of the tensor"),
        ("gpt-oss", {"expert_used_count": [0, 2, 2, 2, 2, 2, 2]}, "expert_used_count is 0 for layer 0"),
        ("falcon", {"attention__head_count_kv": [2, 1, 2]}, "layer 1 makes keys of 128 elements, and keeps 64"),
        ("cogvlm/mha", {"attention__head_count_kv": [1, 4, 4]}, "layer 1 makes keys of 64 elements, and keeps 256"),
        ("kimi-linear", {"attention__key_length": 0}, "n_embd_head_k > 0"),
        ("deepseek2-ocr", {"attention__head_count": 0}, "0 < n_head[0]"),
        ("deepseek2-ocr", {"attention__head_count": 1000}, "n_head[0] <= n_embd"),
        ("rwkv7", {"wkv__head_size": 1 << 31}, "wkv_head_size <= n_embd"),
        ("afmoe", {"attention__sliding_window": 0}, 'swa_type == "standard"'),
        ("afmoe", {"attention__sliding_window": None}, 'swa_type == "standard"'),
        ("glm-dsa", {"attention__indexer__types": [0, 0, 1]}, "is_indexer_full[0] != 0"),
        ("nemotron_h_moe/puzzle", {"expert_used_count": [0, 0, 3, 0]}, "n_expert_used[il] > 0"),
        ("nemotron_h_moe/puzzle", {"expert_used_count": [-1, 0, 3, 1]}, "max(n_expert_used) <= n_expert"),
        ("deepseek4", {"rope__dimension_count": 1 << 31}, "n_rot_full <= n_embd_head_k"),
        ("plamo2", {"ssm__group_count": 1 << 31}, "ssm_n_group == 0"),
        ("minimax-m3", {"attention__indexer__block_size": 1 << 31}, "signed(indexer_block_size) > 0"),
        ("qwen3vl/deep", {"n_deepstack_layers": (1 << 32) - 1}, "n_deepstack_layers"),
        ("qwen4exp", {"attention__compress_ratios": [4, 4, 4, -1]}, "compress_ratios"),
    ],
)
def test_what_ends_the_process(tmp_path: Path, name: str, changes: Any, words: str) -> None:
    """Where llama.cpp asserts or divides by zero, the reason says so, with the hyperparameter and its value."""
    reasons = refusals(tmp_path, name, **changes)
    assert any(words in str(reason) and (reason.ends_process or words == "u32") for reason in reasons)


def test_contexts_come_last(tmp_path: Path) -> None:
    """What only a context's graph insists on comes behind what already stops the loader, and says that it does."""
    *loader, last = refusals(tmp_path, attention__key_length=1000)
    assert loader
    assert not any(reason.ends_process or reason.in_context for reason in loader)
    assert last.ends_process
    assert last.in_context
    (alone,) = refusals(tmp_path, "rwkv6", token_shift_count=0)
    assert (alone.where, alone.in_context) == ("rwkv6.token_shift_count", True)
    assert headline((alone,)) == "llama.cpp would load this file, but make no context of it"


def test_types_of_caches(tmp_path: Path) -> None:
    """Where keys and values share a row, caches of two types are no context; the parameters are why, not the file."""
    path = tmp_path / "mla.gguf"
    path.write_bytes(archs.header("mistral4"))
    with open_gguf(path) as gguf:
        (reason,) = check_loads(gguf, Params(n_ctx=256, type_k="f16", type_v="f32"))
        assert check_loads(gguf, Params(n_ctx=256, type_k="q8_0", type_v="q8_0")) == ()
    assert (reason.where, reason.in_context, reason.ends_process) == ("parameters", True, False)


def test_all_reasons_at_once(tmp_path: Path) -> None:
    """Reasons do not hide each other: keys and vocabulary, each with its own."""
    changes: dict[str, Any] = {
        "context_length": None,
        "attention__causal": 1,
        "tokenizer__ggml__token_type_count": "two",
    }
    where = {reason.where for reason in refusals(tmp_path, **changes)}
    assert where == {"llama.context_length", "llama.attention.causal", "tokenizer.ggml.token_type_count"}


def test_absurd_numbers_take_no_time(tmp_path: Path) -> None:
    """Four billion layers, heads or experts are answered at once, without memory for each."""
    for key in ("block_count", "attention__head_count", "expert_count", "feed_forward_length", "embedding_length"):
        for name in ("llama", "qwen35", "gemma3n"):
            assert refusals(tmp_path, name, **{key: (1 << 32) - 1})


def test_the_table_names_every_architecture() -> None:
    """The table has lines for each architecture of the small models, and none for a name that llama.cpp lacks."""
    assert {model.arch for model in archs.models().values()} <= set(architectures())
    assert "Llama" not in architectures()


FUNCTIONS = {"max", "min", "len", "sum", "map", "zip", "all", "any", "range", "has", "has_tensor", "signed"}
MAY_BE_ZERO = {"indexer_head_size", "n_shortconv_l_cache"}
GIVEN = {"arch", "alone", "keeps_kv", "il", "n"}


def test_the_table_means_what_it_says() -> None:
    """Both tables parse for every architecture, and their expressions are over what was read or set there, or is 0."""
    for arch in architectures():
        lines = _flat(
            [*statements(EVERY), *statements(arch), *statements(EVERY, BUILDING), *statements(arch, BUILDING)]
        )
        named = {line.name for line in lines if isinstance(line, Read | Rule) and line.name}
        used = {name for line in lines if isinstance(line, Rule) for name in line.expression.names}
        assert used <= named | FUNCTIONS | GIVEN | set(DEFAULTS) | set(LISTS) | MAY_BE_ZERO, arch


def test_unknown_tables_are_empty() -> None:
    """An architecture without lines of its own has none."""
    assert statements("nonesuch", HPARAMS) == ()


def _flat(lines: list[Statement]) -> list[Statement]:
    flat: list[Statement] = []
    for line in lines:
        flat += _flat([*line.then, *line.otherwise]) if isinstance(line, Branch) else [line]
    return flat


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("falcon", {"rope__scaling__factor": inf}),
        ("deepseek4/hash", {"rope__scaling__factor": -inf}),
        ("deepseek2", {"rope__scaling__factor": -1.0, "rope__scaling__type": "yarn"}),
        ("granite", {"logit_scale": 0.0}),
        ("kimi-k3", {"activation__situ_beta": -0.0}),
        ("deepseek2", {"expert_gating_func": None}),
        ("lfm2", {"expert_gating_func": 0}),  # without experts
        ("deepseek32", {"swiglu_clamp_exp": ["7.0"] * 512}),  # which this architecture does not read
        ("gemma4", {"attention__shared_kv_layers": (1 << 32) - 1}),  # -1: all keep their own
        ("llama/moe", {"expert_used_count": [2, 1, 2]}),  # the first of two that are chosen alone
        ("llama-embed", {"attention__head_count_kv": [2, 1, 2]}),  # keeps nothing: the first layer's number counts
    ],
)
def test_odd_values_that_are_no_reason(tmp_path: Path, name: str, changes: Any) -> None:
    """What C divides by zero, or takes a logarithm of, is infinite or no number there, and arrays may say odd things of
    layers: llama.cpp goes on, so do we.
    """
    assert refusals(tmp_path, name, **changes) == ()
    with open_gguf(tmp_path / "model.gguf") as gguf:
        assert predict_memory(gguf, Params(n_ctx=512)).compute_bytes > 0


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("rwkv7", {"wkv__head_size": 0}, "not wkv_head_size == 0"),
        ("qwen4exp", {"ple__layers": [-1]}, "not max(ple_layers) >= n_layer_all"),
        ("graniteswitch", {"adapters__token_ids_substitute": [7, -1]}, "not any(token < 0"),
    ],
)
def test_what_is_an_error_there(tmp_path: Path, name: str, changes: Any, words: str) -> None:
    """Values that llama.cpp refuses itself, negative ones of an array read as what their bytes are without a sign."""
    assert any(words in str(reason) and not reason.ends_process for reason in refusals(tmp_path, name, **changes))


@pytest.mark.parametrize(("value", "words"), [(0, "dflash_block_size = 0"), (1 << 31, "dflash_block_size"), (8, "")])
def test_blocks_of_pairs(value: int, words: str, tmp_path: Path) -> None:
    """A head of pairs reads once more how long a block is, as a whole number above 0."""
    found = [str(refusal) for refusal in refusals(tmp_path, "dflash/chain", block_size=value)]
    assert [words in reason for reason in found] == [True] * bool(words)
