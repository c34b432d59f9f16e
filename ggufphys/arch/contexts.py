"""Which layers does a context keep? The kinds of memory that llama.cpp builds, from rules about layers.

An ordinary context runs the trunk. A draft context (MTP) of the same model runs the layers behind it, which predict
tokens further ahead.

Source: llama.cpp 0c1e570 src/llama-model.cpp, llama_model::create_memory; src/llama-memory-hybrid.cpp.
"""

from collections.abc import Sequence

from ggufphys.arch.rules import LayerFlags, LayerRule, all_layers, both, only
from ggufphys.hparams.hparams import HParams

# -- which layers


def in_trunk(h: HParams) -> Sequence[bool]:
    """The trunk; all layers of a model that is nothing but a prediction head."""
    return [il < (h.n_layer or h.n_layer_all) for il in range(h.n_layer_all)]


def before_head(h: HParams) -> Sequence[bool]:
    """The trunk, of which a model that is nothing but a prediction head has no layer.

    Source: llama.cpp 0c1e570 src/llama-model.cpp, create_memory (filter_attn of qwen3next and its kin).
    """
    return [il < h.n_layer for il in range(h.n_layer_all)]


def in_head(h: HParams) -> Sequence[bool]:
    """The layers behind the trunk."""
    return [il >= h.n_layer for il in range(h.n_layer_all)]


def without_kv_heads(h: HParams) -> Sequence[bool]:
    """Layers of the trunk that have no heads for keys and values are recurrent."""
    return [il < h.n_layer and n_head_kv == 0 for il, n_head_kv in enumerate(h.n_head_kv)]


def without_kv_heads_and_ffn(h: HParams) -> Sequence[bool]:
    """Layers with neither heads nor a feed-forward part are recurrent."""
    return [recurrent and n_ff == 0 for recurrent, n_ff in zip(without_kv_heads(h), h.n_ff, strict=True)]


def without_ffn(h: HParams) -> Sequence[bool]:
    """Layers that are not a feed-forward part alone."""
    return [n_ff == 0 for n_ff in h.n_ff]


def all_but_every(interval: int) -> LayerFlags:
    """Recurrent are those that the file marks; else all of the trunk but every `full_attention_interval`-th."""

    def flags(h: HParams) -> Sequence[bool]:
        if h.recurrent_layers is not None:
            return _by_layer(h.recurrent_layers, h.n_layer_all)
        n = h.full_attention_interval or interval
        return [il < h.n_layer and (il + 1) % n != 0 for il in range(h.n_layer_all)]

    return flags


def with_indexer(h: HParams) -> Sequence[bool]:
    """Layers with an indexer of their own by `attention.indexer.types`, in the trunk; all where the key is missing."""
    types = h.indexer_types
    flags = (True,) * h.n_layer_all if types is None else _by_layer(types, h.n_layer_all)
    return flags_and(flags, in_trunk(h))


def with_indexer_glm(h: HParams) -> Sequence[bool]:
    """As `with_indexer`; where the key is missing, models trained on a million positions and more share indexers.

    Source: llama.cpp 0c1e570 src/models/glm-dsa.cpp, GLM_5_2_DEFAULT_INDEXER_TYPES.
    """
    if h.indexer_types is not None or h.n_ctx_train < 1 << 20:
        return with_indexer(h)
    return flags_and([il < 2 or (il % 4 == 2 and il < 78) for il in range(h.n_layer_all)], in_trunk(h))


def _by_layer(value: int | tuple[int, ...], n_layer_all: int) -> Sequence[bool]:
    numbers = (value,) * n_layer_all if isinstance(value, int) else value[:n_layer_all]
    return tuple(map(bool, numbers)) + (False,) * (n_layer_all - len(numbers))


def flags_and(a: Sequence[bool], b: Sequence[bool]) -> Sequence[bool]:
    """The layers that both mark."""
    return [x and y for x, y in zip(a, b, strict=True)]


def but(flags: LayerFlags, excluded: LayerFlags) -> LayerFlags:
    """Marked by `flags` and not by `excluded`."""
    return lambda h: [x and not y for x, y in zip(flags(h), excluded(h), strict=True)]


def first_layers(n: int) -> LayerFlags:
    """The first `n` layers."""
    return lambda h: [il < n for il in range(h.n_layer_all)]


def all_but_shared(h: HParams) -> Sequence[bool]:
    """All but the last `attention.shared_kv_layers`."""
    return [il < h.n_layer_all - h.n_kv_shared_layers for il in range(h.n_layer_all)]


def with_kv_heads(h: HParams) -> Sequence[bool]:
    """Layers of the trunk that attend."""
    return but(in_trunk, without_kv_heads)(h)


# -- kinds of memory


def trunk(layers: LayerRule) -> LayerRule:
    """Attention and nothing else: the usual cache."""
    return only(layers, in_trunk)


def head(layers: LayerRule) -> LayerRule:
    """What a draft context keeps: attention in the layers behind the trunk."""
    return only(layers, in_head)


def recurrent(state: LayerRule) -> LayerRule:
    """A state in every layer of the trunk, and no cache."""
    return only(state, in_trunk)


def hybrid(
    layers: LayerRule, state: LayerRule, is_recurrent: LayerFlags, *, attends: LayerFlags = all_layers
) -> LayerRule:
    """A state in recurrent layers, a cache in those of the others that are marked by `attends`."""
    return both(only(layers, but(attends, is_recurrent)), recurrent(only(state, is_recurrent)))


def mixed(layers: LayerRule, state: LayerRule) -> LayerRule:
    """A cache and a recurrent state in every layer."""
    return both(layers, recurrent(state))
