"""A row for an architecture that has none: each layer keeps what its tensors say. A guess, and called one."""

from ggufphys.arch.anatomy import Anatomy, Layer, anatomy_of
from ggufphys.arch.caches import INDEXER, LATENT, FullKV, LayerCache, RecurrentState, WindowKV
from ggufphys.arch.rules import every
from ggufphys.arch.table import ArchRule
from ggufphys.frozen import dataclass, replace
from ggufphys.gguf import GGUFFile
from ggufphys.hparams.hparams import HParams, as_written


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """The row, the hyperparameters that go with it, and what both were read from."""

    row: ArchRule
    h: HParams
    anatomy: Anatomy


def guess(gguf: GGUFFile) -> Guess:
    """What a model of an unknown architecture would be if its names mean what they mean elsewhere.

    Raises:
        GGUFError: it has no layers or no embedding of tokens, or a key is missing that every llama.cpp requires
            (`block_count`, `embedding_length`, `context_length`).
    """
    anatomy = anatomy_of(gguf)
    h = _with_shapes(as_written(gguf), anatomy)
    flags = _windows(h)
    n_swa = h.n_swa or 0
    n_keeping = h.n_layer - h.n_kv_shared_layers if h.causal_attn else 0
    kept = tuple(
        _caches(layer, n_swa if flags[il] else 0) if il < n_keeping else ()
        for il, layer in enumerate(anatomy.layers[: h.n_layer_all])
    )
    kept += ((),) * (h.n_layer_all - len(kept))
    row = ArchRule(h.arch, lambda h: kept, "names and shapes of tensors: nobody has compared it with llama.cpp")
    return Guess(row=row, h=h, anatomy=anatomy)


def _with_shapes(h: HParams, anatomy: Anatomy) -> HParams:
    """The keys' numbers, and where tensors say something else, theirs."""
    layers = (*anatomy.layers[: h.n_layer_all], *(_EMPTY,) * (h.n_layer_all - len(anatomy.layers)))
    attention = [layer.attention for layer in layers]
    first = next((part for part in attention if part is not None), None)
    used = tuple(layer.ffn.n_expert_used if layer.ffn else 0 for layer in layers)
    return replace(
        h,
        n_vocab=h.n_vocab or anatomy.n_vocab,
        n_head=tuple(part.n_head if part else n for part, n in zip(attention, h.n_head, strict=True)),
        n_head_kv=tuple(part.n_head_kv if part else n for part, n in zip(attention, h.n_head_kv, strict=True)),
        n_embd_head_k=first.k_width // first.n_head_kv if first else h.n_embd_head_k,
        n_embd_head_v=first.v_width // first.n_head_kv if first else h.n_embd_head_v,
        n_ff=tuple(layer.ffn.n_ff if layer.ffn else 0 for layer in layers),
        n_expert=max((layer.ffn.n_expert for layer in layers if layer.ffn), default=0),
        n_expert_used=max(used, default=0),
        n_expert_used_by_layer=(max(used, default=0),) * len(used),
    )


_EMPTY = Layer(attention=None, recurrence=None, ffn=None, norms=())


def _windows(h: HParams) -> tuple[bool, ...]:
    """Which layers have a window, as the file says; none where it names no pattern, so that nothing is missed."""
    if not h.n_swa or h.swa_pattern is None:
        return (False,) * h.n_layer_all
    return tuple(every(1)(h))


def _caches(layer: Layer, n_swa: int) -> tuple[LayerCache, ...]:
    found: list[LayerCache] = []
    if (part := layer.attention) is not None:
        if part.latent:
            found.append(FullKV(n_embd_k_gqa=part.k_width, n_embd_v_gqa=0, kind=LATENT))
        elif n_swa:
            found.append(WindowKV(n_embd_k_gqa=part.k_width, n_embd_v_gqa=part.v_width, n_swa=n_swa))
        else:
            found.append(FullKV(n_embd_k_gqa=part.k_width, n_embd_v_gqa=part.v_width))
        if part.indexer_width:
            found.append(FullKV(n_embd_k_gqa=part.indexer_width, n_embd_v_gqa=0, kind=INDEXER))
    if (state := layer.recurrence) is not None:
        found.append(RecurrentState(n_embd_r=state.n_embd_r, n_embd_s=state.n_embd_s))
    return tuple(found)
