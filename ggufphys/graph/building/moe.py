"""A feed-forward layer of experts: the router chooses, the chosen experts run, their outputs are weighted and added.

Source: llama.cpp 0c1e570 src/llama-graph.cpp, llm_graph_context::build_moe_ffn.
"""

from collections.abc import Callable
from math import inf
from typing import Final, Literal

from ggufphys.errors import GGUFError
from ggufphys.frozen import dataclass
from ggufphys.graph import ops
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.ir import Tensor
from ggufphys.graph.ops import Glu, Unary
from ggufphys.hparams.keys import Keys

Gating = Literal["softmax", "sigmoid", "softmax_weight", "sqrt_softplus"]

GATINGS: dict[int, Gating] = {1: "softmax", 2: "sigmoid", 3: "softmax_weight", 4: "sqrt_softplus"}
"""expert_gating_func of a file, by its number. Source: src/llama-hparams.h, llama_expert_gating_func_type."""

MAX_EXPERTS: Final = 1024  # src/llama-hparams.h, LLAMA_MAX_EXPERTS
_SMALLEST_F16 = 6.103515625e-5  # a sum of weights is not taken to be less, before dividing by it


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """How experts are chosen and weighted. `softmax_weight` is a softmax over the chosen ones alone.

    With `n_groups` > 1 experts are chosen from the best `n_groups_used` groups. `weights_scale` 0 or 1 is none;
    `weights_first` weights what goes into the experts, not what comes out. `chosen_by` is what experts are chosen by,
    if not by what weights them; of those that are run, each is shared by `n_sharing` that can be chosen. With
    `inner_in_f32` what goes into the last product may not be rounded to F16.
    """

    gating: Gating | None = "softmax"  # None: the file names none that llama.cpp has, and its layers are none
    norm_weights: bool = False
    weights_scale: float = 0.0
    n_groups: int = 0
    n_groups_used: int = 0
    weights_first: bool = False
    chosen_by: Gating | None = None
    n_sharing: int = 1
    inner_in_f32: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """What an expert computes between its matrices, and how the names of all experts' weights end.

    Experts with a gate are `kind`, with numbers of its own (`glu_params`); those without are `plain` (None: relu(x)^2).
    If the gate is a matrix of its own, a `limit` keeps the operands of swiglu within it, or `act` makes one of gate and
    up in a way of the model's own.
    """

    kind: Glu = "swiglu"
    glu_params: tuple[float, ...] = ()
    plain: Unary | None = "silu"
    limit: float = 0.0
    act: Callable[[Tensor, Tensor], Tensor] | None = None
    suffix: str = "_exps"


USUAL: Final = Experts()
OAI: Final = (1.702, 7.0)  # alpha and limit of swiglu_oai, in build_ffn and build_moe_ffn alike
OAI_EXPERTS: Final = Experts(kind="swiglu_oai", glu_params=OAI)


def read_routing(
    keys: Keys, gating: Gating | None = None, *, norm_weights: bool | None = None, weights_scale: float | None = None
) -> Routing:
    """The routing that a file asks for; what the architecture settles is given."""
    return Routing(
        gating=gating or GATINGS.get(keys.integer("expert_gating_func", 0)),
        norm_weights=keys.flag("expert_weights_norm", False) if norm_weights is None else norm_weights,
        weights_scale=keys.real("expert_weights_scale", 0.0) if weights_scale is None else weights_scale,
        n_groups=keys.integer("expert_group_count", 0),
        n_groups_used=keys.integer("expert_group_used_count", 0),
    )


def moe_ffn(
    b: Builder, x: Tensor, il: int, routing: Routing, experts: Experts = USUAL,
    *, logits: Tensor | None = None, n_used: int = 0, chosen: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """X (E, T) to (E, T).

    `logits` are the router's, where the model computes them itself. `n_used` is for models whose layers choose more or
    fewer experts; in others all layers choose as many as the first, and add up as many as the file says of each.
    `chosen` are the experts' numbers (n_used, T) where something else than the router chooses.

    Raises:
        GGUFError: the file says that no expert is used, or more than llama.cpp takes; or as `route`.
    """
    n_tokens, n_used, n_added = x.ne[1], n_used or b.h.n_expert_used_by_layer[0], b.h.n_expert_used_by_layer[il]
    if not n_used or not n_added:
        raise GGUFError(f"{b.keys.full('expert_used_count')} is 0 for layer {il}, expected 1 or more")
    weights, chosen = route(b, x, il, routing, logits, n_used, chosen)

    if n_used > MAX_EXPERTS:  # a forced prediction: llama.cpp ends the process before it
        raise GGUFError(f"expert_used_count is {n_used:,}, expected at most {MAX_EXPERTS:,}")
    rows = ops.reshape(x, x.ne[0], 1, n_tokens)
    if routing.weights_first:
        rows = ops.mul(ops.repeat(rows, x.ne[0], n_used, n_tokens), weights)
    inner = _inner(b, rows, chosen, il, experts)
    each = _times(b, f"ffn_down{experts.suffix}", inner, chosen, il, in_f32=routing.inner_in_f32)
    if not routing.weights_first:
        each = ops.mul(each, weights)
    b.graph.expand(each)  # (E, n_used, T)

    strides = (each.nb[0], each.nb[2], each.nb[3], each.nb[3])
    slices = [b.graph.expand(ops.view(each, (x.ne[0], n_tokens), strides, i * each.nb[1])) for i in range(n_added)]
    out = slices[0]
    for part in slices[1:]:
        out = b.graph.expand(ops.add(out, part))
    return ops.cont(out) if n_added == 1 else out


def route(
    b: Builder, x: Tensor, il: int, routing: Routing, logits: Tensor | None, n_used: int, chosen: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The weights (1, n_used, T) of the chosen experts, and their numbers (n_used, T), which may be given.

    Raises:
        GGUFError: the file names no gating function that llama.cpp knows, and there is none by default.
    """
    if routing.gating is None:
        key, number = b.keys.full("expert_gating_func"), b.keys.integer("expert_gating_func", 0)
        raise GGUFError(f"{b.keys.gguf.path}: {key} is {number}, expected 1 to {len(GATINGS)}")
    n_tokens, n_expert = x.ne[1], b.h.n_expert
    if logits is None:
        logits = b.mul_mat(b.weight("ffn_gate_inp.weight", il), x)
    bias = b.weight_or_none("ffn_gate_inp.bias", il)
    if bias is not None:
        logits = ops.add(logits, bias)
    probs = _probabilities(logits, routing.gating)
    selection = probs
    correction = b.weight_or_none("exp_probs_b.bias", il) or b.weight_or_none("exp_probs_b", il)
    if correction is not None:
        selection = ops.add(probs, correction)
    if routing.weights_first:
        selection = logits
    if routing.chosen_by is not None:
        selection = _probabilities(logits, routing.chosen_by)
    if routing.n_groups > 1:
        selection = _best_groups(selection, routing)
    chosen = ops.argsort_top_k(selection, n_used) if chosen is None else chosen
    if routing.n_sharing > 1:
        chosen = ops.cast(ops.scale(ops.cast(chosen, ops.F32), 1 / routing.n_sharing), ops.I32)
    weights = ops.get_rows(ops.reshape(probs, 1, n_expert, n_tokens), chosen)  # (1, n_used, T)
    if routing.gating == "softmax_weight":
        weights = ops.reshape(ops.soft_max(ops.reshape(weights, n_used, n_tokens)), 1, n_used, n_tokens)
    return b.graph.expand(scaled_weights(weights, routing)), chosen


def scaled_weights(weights: Tensor, routing: Routing) -> Tensor:
    """The weights (1, n_used, T) of chosen experts, made to add up to 1 and scaled, as far as the model does that."""
    _, n_used, n_tokens = weights.ne[:3]
    if routing.norm_weights:
        weights = ops.reshape(weights, n_used, n_tokens)
        total = ops.clamp(ops.sum_rows(weights), _SMALLEST_F16, inf)
        weights = ops.reshape(ops.div(weights, total), 1, n_used, n_tokens)
    if routing.weights_scale not in (0.0, 1.0):
        weights = ops.scale(weights, routing.weights_scale)
    return weights


def _probabilities(logits: Tensor, gating: Gating) -> Tensor:
    if gating == "softmax":
        return ops.soft_max(logits)
    if gating == "sigmoid":
        return ops.unary(logits, "sigmoid")
    if gating == "sqrt_softplus":
        return ops.sqrt(ops.unary(logits, "softplus"))
    return logits


def _best_groups(selection: Tensor, routing: Routing) -> Tensor:
    """Minus infinity for all experts but those of the groups whose two best have the largest sum."""
    n_expert, n_tokens = selection.ne[:2]
    n_groups = routing.n_groups
    groups = ops.reshape(selection, n_expert // n_groups, n_groups, n_tokens)
    best = ops.argsort_top_k(groups, 2)
    scores = ops.get_rows(ops.reshape(groups, 1, groups.ne[0], n_groups, n_tokens), best)  # (1, 2, n_groups, T)
    scores = ops.sum_rows(ops.reshape(scores, 2, n_groups, n_tokens))
    chosen = ops.argsort_top_k(ops.reshape(scores, n_groups, n_tokens), routing.n_groups_used)
    kept = ops.get_rows(groups, chosen)
    nothing = ops.elementwise("FILL", groups, params=(-inf,))
    return ops.reshape(ops.set_rows(nothing, kept, chosen), n_expert, n_tokens)


def _inner(b: Builder, rows: Tensor, chosen: Tensor, il: int, experts: Experts) -> Tensor:
    """The activations inside of the experts: (n_ff, n_used, T)."""
    suffix, limit = experts.suffix, experts.limit
    if b.weight_or_none(f"ffn_gate_up{suffix}.weight", il) is not None:
        both = _times(b, f"ffn_gate_up{suffix}", rows, chosen, il)
        shape = (both.ne[0] // 2, both.ne[1], both.ne[2])
        gate, up = (ops.view(both, shape, both.nb, i * shape[0] * both.nb[0]) for i in (0, 1))
        return ops.glu(gate, up, experts.kind, *experts.glu_params)
    up = _times(b, f"ffn_up{suffix}", rows, chosen, il)
    if b.weight_or_none(f"ffn_gate{suffix}.weight", il) is not None:
        gate = _times(b, f"ffn_gate{suffix}", rows, chosen, il)
        if experts.act is not None:
            return experts.act(gate, up)
        return ops.swiglu(gate, up, limit) if limit else ops.glu(gate, up, experts.kind, *experts.glu_params)
    return ops.sqr(ops.unary(up, "relu")) if experts.plain is None else ops.unary(up, experts.plain)


def _times(b: Builder, name: str, x: Tensor, chosen: Tensor, il: int, *, in_f32: bool = False) -> Tensor:
    """The product with the chosen experts, times their scale and plus their bias when the file has them."""
    product = b.mul_mat_id(b.weight(f"{name}.weight", il), x, chosen, b.scale_of(name, il))
    if in_f32 and product.op == "MUL_MAT_ID":
        product.params = (ops.IN_F32,)
    bias = b.weight_or_none(f"{name}.bias", il)
    return product if bias is None else ops.add_id(product, bias, chosen)
