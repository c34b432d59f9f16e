"""What does an architecture's row say in builds of llama.cpp where a rule holds that has moved since, or before?

Source: the rule's own, in `ggufphys.builds.moves`.
"""

from collections.abc import Mapping, Set
from dataclasses import replace
from typing import Any, Final

from ggufphys.arch.contexts import trunk
from ggufphys.arch.rules import LayerRule, full, latent
from ggufphys.arch.table import ArchRule
from ggufphys.builds.moves import Rule

# Whose contexts kept rows of the layers behind the trunk, too.
HEADS_CACHED: Final[frozenset[str]] = frozenset({
    "bailingmoe2", "deepseek2", "exaone-moe", "exaone4", "glm4", "glm4moe", "mistral4",
})  # fmt: skip

_CHANGES: Final[Mapping[Rule, Mapping[str, Mapping[str, Any]]]] = {
    "glm_dsa_attends_to_all": {"glm-dsa": {"keeps": trunk(latent(full))}},
    "types_of_rows_differ": {name: {"mla": False} for name in ("deepseek2", "glm-dsa", "kimi-linear", "mistral4")},
    "nemotron_h_keeps_no_snapshots": {"nemotron_h": {"rollback": False}, "nemotron_h_moe": {"rollback": False}},
    "kimi_k3_keeps_no_snapshots": {"kimi-k3": {"rollback": False}},
    "lfm2_keeps_no_snapshots": {"lfm2": {"rollback": False}, "lfm2moe": {"rollback": False}},
}


def row_in(row: ArchRule, rules: Set[Rule]) -> ArchRule:
    """The row as these rules change it."""
    for rule, changes in _CHANGES.items():
        if rule in rules and row.name in changes:
            row = replace(row, **changes[row.name])
    cached = HEADS_CACHED | {"glm-dsa"} if "glm_dsa_attends_to_all" in rules else HEADS_CACHED
    if "heads_cached" in rules and row.name in cached:
        keeps = _in_all_layers(row.keeps)
        row = replace(row, keeps=keeps, draft=keeps)
    return row


def _in_all_layers(keeps: LayerRule) -> LayerRule:
    return lambda h: keeps(replace(h, n_layer_nextn=0))
