"""What is a node for: attention, experts, ...? Its weights say so, its cache, or where its data come from.

Source: the names of tensors in llama.cpp 0c1e570 src/llama-arch.cpp, LLM_TENSOR_NAMES.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal, get_args

from ggufphys.arch.caches import LayerCache, RecurrentState
from ggufphys.gguf.names import split_name
from ggufphys.graph.ir import Graph, Tensor

Kind = Literal["embedding", "attention", "recurrent", "ffn", "experts", "head", "other"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

# The first that matches the beginning of a weight's name, without `blk.N.`; shared experts run for every token, as an
# ordinary feed-forward layer does.
_BY_NAME: Final[Mapping[Kind, re.Pattern[str]]] = {
    "experts": re.compile(
        r"ffn_\w+_(ch)?exps|ffn_(pre|post)_norm_2|ffn_gate_inp\.|ffn_gate_tid2eid|exp_probs_b|ffn_latent"
    ),
    "ffn": re.compile(r"(hc_)?ffn|channel_mix|post_ffw|post_mlp|layer_output_norm|pre_ffw"),
    "recurrent": re.compile(r"ssm|time_mix|shortconv|kda"),
    "attention": re.compile(r"(hc_)?attn|post_attention|cross_attn|indexer|self_attn|compressor|inter_attn"),
    "head": re.compile(r"output|dec\.output|enc\.output|cls|result|nextn|dense_"),
    "embedding": re.compile(r"token|position_embd|per_layer|ple_"),
}
_NORMS: Final = frozenset({"RMS_NORM", "NORM", "L2_NORM"})
_RECURRENT: Final = frozenset({"r", "s", "p"})  # parts of caches: what a recurrent layer keeps


def node_kinds(graph: Graph, caches: Sequence[tuple[LayerCache, ...]]) -> Mapping[Tensor, Kind]:
    """The kind of each node; `caches` are what each layer keeps.

    A node without weights belongs to what the last of its operands to be computed comes from (what a layer adds, not
    what it is added to), and a norm to what it prepares for.
    """
    kinds: dict[Tensor, Kind] = {}
    for node in graph.nodes:
        of_sources = (_kind_of_source(source, caches) for source in node.src if node.op != "ROPE")
        own: Kind | None = next((kind for kind in of_sources if kind is not None), None)
        if own == "embedding" and node.op == "MUL_MAT" and node.src[0].name == "token_embd.weight":
            own = "head"  # the same matrix, used behind the last layer
        if own is not None:
            kinds[node] = own
            first = node.src[0]
            if first.op in _NORMS:
                kinds.setdefault(first, own)
    order: dict[Tensor, int] = {}
    for i, node in enumerate(graph.nodes):
        order[node] = i
        if node not in kinds:
            known = (s for s in node.src if kinds.get(s, "other") != "other")
            last = max(known, key=order.__getitem__, default=None)
            kinds[node] = "other" if last is None else kinds[last]
    return kinds


def _kind_of_source(source: Tensor, caches: Sequence[tuple[LayerCache, ...]]) -> Kind | None:
    source = source.view_src or source
    if not source.external:
        return None
    if not source.name:
        return "recurrent" if source.params and source.params[0] in _RECURRENT else "attention"
    return weight_kind(source.name, caches)


def weight_kind(name: str, caches: Sequence[tuple[LayerCache, ...]]) -> Kind:
    """The kind of the nodes that read a weight; a recurrent layer has names of attention for some of its weights."""
    il, rest = split_name(name)
    if il is not None:
        rest = rest.removeprefix("enc.").removeprefix("dec.")
    kind: Kind = next((kind for kind, pattern in _BY_NAME.items() if pattern.match(rest)), "other")
    if kind == "attention" and il is not None and il < len(caches) and caches[il]:
        return "recurrent" if all(isinstance(cache, RecurrentState) for cache in caches[il]) else kind
    return kind
