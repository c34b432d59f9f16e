"""A feed-forward layer of experts: the router chooses, the chosen experts run, their outputs are weighted and added.

Source: llama.cpp 0c1e570 src/llama-graph.cpp, llm_graph_context::build_moe_ffn.
"""

from ggufphys.graph import ops
from ggufphys.graph.blocks import Builder
from ggufphys.graph.ir import Tensor
from ggufphys.graph.ops import F32, I32


def moe_ffn(b: Builder, x: Tensor, il: int, *, norm_weights: bool) -> Tensor:
    """Softmax routing over `n_expert` experts with gated FFNs: x (E, T) to (E, T)."""
    n_tokens, n_used = x.ne[1], b.h.n_expert_used
    probs = ops.elementwise("SOFT_MAX", b.mul_mat(b.weight("ffn_gate_inp.weight", il), x))
    order = Tensor("ARGSORT", I32, probs.ne, (probs,))
    chosen = ops.view(order, (n_used, n_tokens), (order.nb[0], order.nb[1], order.nb[2], order.nb[3]))
    weights = ops.get_rows(ops.reshape(probs, 1, b.h.n_expert, n_tokens), chosen)  # (1, n_used, T)
    if norm_weights:
        weights = ops.reshape(weights, n_used, n_tokens)
        total = Tensor("SUM_ROWS", F32, (1, n_tokens), (weights,))
        weights = ops.elementwise("DIV", weights, ops.elementwise("CLAMP", total))
        weights = ops.reshape(weights, 1, n_used, n_tokens)
    b.graph.expand(weights)

    rows = ops.reshape(x, x.ne[0], 1, n_tokens)
    up = b.mul_mat_id(b.weight("ffn_up_exps.weight", il), rows, chosen)
    gate = b.mul_mat_id(b.weight("ffn_gate_exps.weight", il), rows, chosen)
    down = b.mul_mat_id(b.weight("ffn_down_exps.weight", il), ops.glu(gate, up), chosen)
    experts = b.graph.expand(ops.elementwise("MUL", down, weights))  # (E, n_used, T)

    strides = (experts.nb[0], experts.nb[2], experts.nb[3], experts.nb[3])
    slices = [b.graph.expand(ops.view(experts, (x.ne[0], n_tokens), strides)) for _ in range(n_used)]
    out = slices[0]
    for part in slices[1:]:
        out = b.graph.expand(ops.elementwise("ADD", out, part))
    return ops.cont(out) if n_used == 1 else out
