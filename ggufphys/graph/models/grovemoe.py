"""grovemoe: behind the experts others, each shared by a group of them, that go on from what these gave.

Source: llama.cpp 0c1e570 src/models/grovemoe.cpp, llama_model_grovemoe::graph.
"""

from ggufphys.errors import GGUFError
from ggufphys.frozen import replace
from ggufphys.graph import ops
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import decoder, rotated
from ggufphys.graph.building.moe import Experts, moe_ffn, read_routing
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    of_experts = replace(read_routing(b.keys, "softmax", norm_weights=True), chosen_by="sigmoid")
    n_per_group, group_scale = b.keys.integer("experts_per_group"), b.keys.real("expert_group_scale")
    if n_per_group < 1:
        name = b.keys.full("experts_per_group")
        raise GGUFError(f"{b.keys.gguf.path}: {name} is {n_per_group}, expected at least 1")
    of_groups = replace(of_experts, n_sharing=n_per_group)
    n_used = min(b.h.n_expert_used, b.h.n_expert // n_per_group)

    def ffn(x: Tensor, il: int) -> Tensor:
        logits = b.linear("ffn_gate_inp", il, x)
        x = moe_ffn(b, x, il, of_experts, logits=logits)
        adjugate = moe_ffn(b, x, il, of_groups, Experts(suffix="_chexps"), logits=logits, n_used=n_used)
        return ops.add(x, ops.scale(adjugate, group_scale))

    x = b.inp_embd()
    qkv = rotated(b, read_rope(b.keys, b.h, "neox"), b.inp_pos(), normed="before")
    return b.head(decoder(b, x, qkv, ffn))
