"""What does an architecture's row say in builds of llama.cpp where a rule holds that has moved since, or before?

Source: the rule's own, in `ggufphys.builds.moves`.
"""

from collections.abc import Mapping, Set
from typing import Any, Final

from ggufphys.arch.aborts import later_never, never
from ggufphys.arch.caches import IDLE_INDEXER
from ggufphys.arch.contexts import all_but_every, but, head, hybrid, in_trunk, trunk, with_indexer_glm
from ggufphys.arch.rules import LayerRule, Layers, both, each, full, indexer_keys, latent, only
from ggufphys.arch.sparse import dsa, keys_and_pools, msa_in_f32, pooled_keys
from ggufphys.arch.states import ssm_and_ngrams
from ggufphys.arch.table import ArchRule
from ggufphys.builds.moves import Rule
from ggufphys.frozen import replace
from ggufphys.hparams.hparams import HParams
from ggufphys.params import Params

# Whose contexts kept rows of the layers behind the trunk, too.
HEADS_CACHED: Final[frozenset[str]] = frozenset({
    "bailingmoe2", "deepseek2", "exaone-moe", "exaone4", "glm4", "glm4moe", "mistral4",
})  # fmt: skip

CACHED_AS_DENSE: Final[frozenset[str]] = frozenset({"glm-dsa"})  # the same, while it attended to all rows

DSA_CACHED: Final[Mapping[Rule, str]] = {"deepseek32_head_cached": "deepseek32", "glm_dsa_head_cached": "glm-dsa"}

HEADS_UNREAD: Final[Mapping[Rule, str]] = {"deepseek32_head_unread": "deepseek32", "glm4moe_head_unread": "glm4moe"}


# Whose file may say which layers have windows, where few read the key.
PERIODS_UNREAD: Final[frozenset[str]] = frozenset({
    "afmoe", "cohere2", "exaone-moe", "exaone4", "gemma-embedding", "gemma2", "gemma3", "gemma3n", "gpt-oss", "llama4",
    "olmo2", "smallthinker",
})  # fmt: skip

# Who looks both ways where few read the key: by code, and those whose loaders ask for it.
LOOKS_BOTH_WAYS: Final[frozenset[str]] = frozenset({
    "dream", "gemma-embedding", "llada", "llada-moe", "rnd1", "bert", "eurobert", "jina-bert-v2", "jina-bert-v3",
    "modern-bert", "neo-bert", "nomic-bert", "nomic-bert-moe", "wavtokenizer-dec",
})  # fmt: skip


def causal_in(h: HParams, rules: Set[Rule]) -> bool:
    """Whether tokens see what came before alone, as these rules have it."""
    return h.causal_attn or ("few_look_both_ways" in rules and h.arch not in LOOKS_BOTH_WAYS)


def taken_as(h: HParams, params: Params, rules: Set[Rule]) -> Params:
    """How llama.cpp takes parameters for a model whose prediction head it does not read yet."""
    if h.n_layer_nextn and any(h.arch == name and rule in rules for rule, name in HEADS_UNREAD.items()):
        return replace(params, load_mtp=False, ctx_type="default")
    return params


def _glm_dsa_with_idle_keys(h: HParams) -> Layers:
    """Its row, and indexer keys in layers that share an indexer, too; nothing reads them."""
    idle = each(indexer_keys, lambda cache: replace(cache, kind=IDLE_INDEXER))
    return both(dsa(latent(full), with_indexer_glm), only(idle, but(in_trunk, with_indexer_glm)))(h)


_LATENT: Final = ("deepseek2", "deepseek32", "glm-dsa", "kimi-linear", "mistral4")
_CHANGES: Final[Mapping[Rule, Mapping[str, Mapping[str, Any]]]] = {
    "glm_dsa_attends_to_all": {"glm-dsa": {"keeps": trunk(latent(full))}},
    "glm_dsa_indexes_all": {"glm-dsa": {"keeps": _glm_dsa_with_idle_keys}},
    "blocks_pooled": {
        "qwen4exp": {
            "keeps": hybrid(both(full, keys_and_pools), ssm_and_ngrams, all_but_every(4), attends=in_trunk),
        }
    },
    "glm5_next_drafts": {"glm5-next": {"draft": head(both(latent(full), pooled_keys))}},
    "llama4_as_llama": {"llama4": {"aborts_later": later_never}},
    "blocks_of_cells": {"minimax-m3": {"keeps": msa_in_f32}},
    "types_of_rows_differ": {name: {"mla": False} for name in _LATENT},
    "nemotron_h_keeps_no_snapshots": {"nemotron_h": {"rollback": False}, "nemotron_h_moe": {"rollback": False}},
    "bailingmoe3_keeps_no_snapshots": {"bailingmoe3": {"rollback": False}},
    "kimi_k3_keeps_no_snapshots": {"kimi-k3": {"rollback": False}},
    "minimax_01_reserves_alike": {"minimax-01": {"lone_prompt": False, "aborts": never}},
    "kimi_linear_reserves_alike": {"kimi-linear": {"lone_prompt": False, "aborts": never}},
    "lfm2_keeps_no_snapshots": {"lfm2": {"rollback": False}, "lfm2moe": {"rollback": False}},
}


def row_in(row: ArchRule, rules: Set[Rule]) -> ArchRule:
    """The row as these rules change it."""
    for rule, changes in _CHANGES.items():
        if row.name in changes and rule in rules:
            row = replace(row, **changes[row.name])
    cached = row.name in HEADS_CACHED or (row.name in CACHED_AS_DENSE and "glm_dsa_attends_to_all" in rules)
    if cached and "heads_cached" in rules:
        keeps = _in_all_layers(row.keeps)
        row = replace(row, keeps=keeps, draft=keeps)
    if any(row.name == name and rule in rules for rule, name in DSA_CACHED.items()):
        row = replace(row, keeps=_in_all_layers(row.keeps))
    if row.name in PERIODS_UNREAD and "window_periods_unread" in rules:
        row = replace(row, keeps=_in_usual_windows(row.keeps))
    return row


def _in_usual_windows(keeps: LayerRule) -> LayerRule:
    return lambda h: keeps(replace(h, swa_pattern=None))


def _in_all_layers(keeps: LayerRule) -> LayerRule:
    return lambda h: keeps(replace(h, n_layer_nextn=0))
