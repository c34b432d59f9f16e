"""For how many nodes does llama.cpp make room in a context's graphs? A table without logic beside the rule.

Source: llama.cpp 0c1e570 src/llama-context.cpp, graph_max_nodes.
"""

from collections.abc import Collection, Iterable
from typing import Final

from ggufphys.frozen import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeBudget:
    """Nodes for each token of a physical batch, and for each tensor of the model: the larger product counts."""

    per_token: int = 0
    per_tensor: int = 8
    least: int = 1024


# fmt: off
_MANY: Final = NodeBudget(per_token=40, per_tensor=32, least=0)
NODE_BUDGETS: Final[dict[str, NodeBudget]] = {
    "kimi-k3": NodeBudget(per_token=160, per_tensor=64, least=0),
    "glm5-next": NodeBudget(per_token=160, per_tensor=64, least=0),
    "hrm_text": NodeBudget(per_token=80, per_tensor=64, least=0),
    **dict.fromkeys((
        "qwen3next", "kimi-linear", "bailingmoe3", "qwen35", "qwen35moe", "clef", "qwen4exp", "deepseek4", "nanbeige",
        "minimax-01", "minimax-m3", "hy_v4",
    ), _MANY),
}
# fmt: on


# Whose graphs have nodes for each sequence, or for each member of a block of cells, so that many of these may be more
# than there is room for.
BY_MEMBER: Final[frozenset[str]] = frozenset({"qwen4exp"})
BY_SEQUENCE: Final[frozenset[str]] = frozenset({"minimax-m3", *BY_MEMBER})
NODES_OF_A_MEMBER: Final = 3  # view, copy, sum. Source: src/models/qwen4exp.cpp, build_qsa_top_k


def nodes_of_members(arch: str, block_sizes: Iterable[int], rules: Collection[str]) -> int:
    """Nodes that there are at least, from the number of cells in the blocks of each layer that attends to blocks."""
    if arch not in BY_MEMBER or "blocks_pooled" in rules:
        return 0
    return sum(NODES_OF_A_MEMBER * size for size in block_sizes)


def max_nodes(arch: str, *, n_tensors: int, n_ubatch: int) -> int:
    """Nodes that there is room for; draft heads that want more (dflash) are taken like all others."""
    budget = NODE_BUDGETS.get(arch, NodeBudget())
    return max(budget.least, budget.per_token * n_ubatch, budget.per_tensor * n_tensors)
