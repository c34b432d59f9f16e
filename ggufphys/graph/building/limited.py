"""Feed-forward layers whose activations are kept within limits of the file, in one operation.

Source: llama.cpp 0c1e570 src/llama-graph.cpp, build_ffn, build_moe_ffn (ggml_swiglu_clamp).
"""

from ggufphys.graph import ops
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.moe import USUAL, Experts, Routing, moe_ffn
from ggufphys.graph.ir import Tensor
from ggufphys.graph.ops import Glu


def limited_ffn(b: Builder, x: Tensor, il: int, routing: Routing, chosen: Tensor | None = None) -> Tensor:
    """Experts and a shared one, or dense in a layer without a router, their activations within limits of the file.

    `chosen` are experts' numbers (n_expert_used, T) where something else than the router chooses.
    """
    has_own = b.keys.full("swiglu_clamp_shexp") in b.keys.gguf.metadata
    dense_kind, dense_limit = _limited((b.h.swiglu_clamp_shexp if has_own else b.h.swiglu_clamp_exp)[il])
    if b.weight_or_none("ffn_gate_inp.weight", il) is None:
        return _gated(b, x, il, "", dense_kind, dense_limit)
    experts = moe_ffn(b, x, il, routing, limited_experts(b.h.swiglu_clamp_exp[il]), chosen=chosen)
    return ops.add(experts, _gated(b, x, il, "_shexp", dense_kind, dense_limit))


def limited_experts(limit: float) -> Experts:
    """Experts with a gate, whose activations are kept within a limit; 0: they are not."""
    return Experts(kind="swiglu_clamp", glu_params=(limit,)) if limit else USUAL


def _limited(limit: float) -> tuple[Glu, tuple[float, ...]]:
    return ("swiglu_clamp", (limit,)) if limit else ("swiglu", ())


def _gated(b: Builder, x: Tensor, il: int, suffix: str, kind: Glu, limit: tuple[float, ...]) -> Tensor:
    up, gate = (b.mul_mat(b.weight(f"ffn_{name}{suffix}.weight", il), x) for name in ("up", "gate"))
    return b.mul_mat(b.weight(f"ffn_down{suffix}.weight", il), ops.glu(gate, up, kind, *limit))
