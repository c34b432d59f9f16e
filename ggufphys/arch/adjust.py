"""What does an architecture's loader make of hyperparameters that its keys don't tell? For rows of `table.py`.

Source: llama.cpp 0c1e570 src/models/<arch>.cpp, load_arch_hparams.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

from ggufphys.arch.rules import every
from ggufphys.errors import GGUFError
from ggufphys.frozen import replace
from ggufphys.gguf import GGUFArray, GGUFFile
from ggufphys.hparams.hparams import HParams

# Of which architectures' tokens have several positions.
_SECTIONS: Final = "rope.dimension_sections"
_ALWAYS: Final = frozenset({
    "qwen2vl", "paddleocr", "qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe", "qwen4exp", "qwen3tts", "clef",
})  # fmt: skip
_BY_TWO_SECTIONS: Final = frozenset({"bailingmoe3", "glm4", "glm4moe", "hunyuan_vl"})  # the first two are not 0
_BY_ANY_SECTION: Final = frozenset({"dflash"})

Adjust: TypeAlias = Callable[[HParams, GGUFFile], HParams]


def keep(h: HParams, gguf: GGUFFile) -> HParams:
    """Nothing is changed."""
    return h


def looks_both_ways(h: HParams, gguf: GGUFFile) -> HParams:
    """Every position attends to every other, whatever the file says."""
    return replace(h, causal_attn=False)


def loops(h: HParams, gguf: GGUFFile) -> HParams:
    """The layers run `num_loops` times, and each pass has caches of its own.

    Source: llama.cpp 0c1e570 src/models/nanbeige.cpp, load_arch_hparams.
    """
    n_loops = gguf.get_int(f"{h.arch}.num_loops", 1)
    if n_loops < 1 or h.n_layer * n_loops > 512:
        raise GGUFError(f"{gguf.path}: {h.arch}.num_loops is {n_loops}, expected at least 1 and at most 512 layers")
    n = h.n_layer
    return replace(
        h, n_layer_all=n * n_loops, n_head=h.n_head[:n] * n_loops, n_head_kv=h.n_head_kv[:n] * n_loops,
        n_ff=h.n_ff[:n] * n_loops, weights_of=tuple(range(n)) * n_loops, runs=_runs(n, n_loops),
    )  # fmt: skip


def two_stacks(h: HParams, gguf: GGUFFile) -> HParams:
    """A low stack of layers runs `hrm.l_cycles` times, then a high one once, and that `hrm.h_cycles` times.

    Source: llama.cpp 0c1e570 src/models/hrm-text.cpp, load_arch_hparams.
    """
    names = [f"{h.arch}.hrm.{name}" for name in ("layers_per_stack", "l_cycles", "h_cycles")]
    n_stack, n_low, n_high = numbers = [gguf.get_int(name, 0) for name in names]
    if min(numbers) < 1 or h.n_layer != n_stack * (n_low + 1) * n_high:
        found = ", ".join(f"{name} is {number}" for name, number in zip(names, numbers, strict=True))
        raise GGUFError(f"{gguf.path}: {found}, expected as many runs of layers as {h.arch}.block_count, {h.n_layer}")
    low, high = tuple(range(n_stack)), tuple(range(n_stack, 2 * n_stack))
    return replace(h, weights_of=(low * n_low + high) * n_high, runs=_runs(n_stack, (n_low + 1) * n_high))


def _runs(n_layer: int, n_runs: int) -> tuple[tuple[int, bool], ...]:
    """For each layer of each run its number, and whether it is the run's last."""
    return tuple((run, i == n_layer - 1) for run in range(n_runs) for i in range(n_layer))


def one_in_four_without_rope(h: HParams, gguf: GGUFFile) -> HParams:
    """Every fourth layer does not rotate queries and keys.

    Source: llama.cpp 0c1e570 src/models/smollm3.cpp, load_arch_hparams.
    """
    return _rope_but_every(h, 4)


def rope_in_chunks(h: HParams, gguf: GGUFFile) -> HParams:
    """Every fourth layer does not rotate queries and keys; the last alone where the file says there are no chunks.

    Source: llama.cpp 0c1e570 src/models/llama4.cpp, load_arch_hparams.
    """
    return _rope_but_every(h, h.n_layer if h.n_swa == 0 else 4)


def _rope_but_every(h: HParams, n: int) -> HParams:
    return replace(h, rope_pattern=tuple((il + 1) % n != 0 for il in range(h.n_layer_all)))


def rope_in_most_windows(h: HParams, gguf: GGUFFile) -> HParams:
    """Where there are windows, the first of each four layers does not rotate queries and keys, unless there are four.

    Source: llama.cpp 0c1e570 src/models/smallthinker.cpp, llama_model_smallthinker::graph.
    """
    if not h.n_swa or h.n_layer == 4:  # as many layers as a period: taken for a model without windows
        return h
    return replace(h, rope_pattern=tuple(il % 4 != 0 for il in range(h.n_layer_all)))


def rope_by_key(h: HParams, gguf: GGUFFile) -> HParams:
    """The file may say which layers rotate queries and keys; llama.cpp passes over what is no array.

    Source: llama.cpp 0c1e570 src/models/granite-swa.cpp, load_arch_hparams.
    """
    pattern = gguf.metadata.get(f"{h.arch}.attention.rope_pattern")
    flags = tuple(bool(flag) for flag in pattern) if isinstance(pattern, GGUFArray) else ()
    return replace(h, rope_pattern=flags + (True,) * (h.n_layer_all - len(flags)))


def encodes_in_windows(period: int, *, dense_first: bool = False, causal: bool = False) -> "Adjust":
    """Windows in some layers of a model without a cache; the file's own pattern takes precedence.

    `causal`: it may be, and has no windows where the file says no size.

    Source: llama.cpp 0c1e570 src/models/gemma-embedding.cpp, modern-bert.cpp, load_arch_hparams.
    """

    def adjust(h: HParams, gguf: GGUFFile) -> HParams:
        windowed = h.n_swa or not causal
        flags = every(period, dense_first=dense_first)(h) if windowed else (False,) * h.n_layer_all
        return replace(h, swa_pattern=tuple(flags), causal_attn=h.causal_attn and causal)

    return adjust


def sparse_in_front(h: HParams, gguf: GGUFFile) -> HParams:
    """One layer in five has no window; in the first ten few gates of the feed-forward layers pass.

    Source: llama.cpp 0c1e570 src/models/gemma3n.cpp, load_arch_hparams; models.h, n_layer_sparsity.
    """
    return replace(
        h, swa_pattern=tuple(every(5)(h)), sparse_ffn=tuple(il < 10 for il in range(h.n_layer_all))
    )  # fmt: skip


def deepstack(h: HParams, gguf: GGUFFile) -> HParams:
    """The first layers each add a slice of an image's embeddings behind the one that the model starts from.

    Source: llama.cpp 0c1e570 src/models/qwen3vl.cpp, llama_model_qwen3vl::graph.
    """
    n = gguf.get_int(f"{h.arch}.n_deepstack_layers", 0)
    return replace(h, deepstack=tuple(il + 1 if il < n else -1 for il in range(h.n_layer_all))) if n else h


def decoder_layers(h: HParams, gguf: GGUFFile) -> HParams:
    """A decoder of as many layers as the encoder, or of another number; the cache is the encoder's all the same.

    Source: llama.cpp 0c1e570 src/models/t5.cpp, load_arch_hparams.
    """
    n = gguf.get_int(f"{h.arch}.decoder_block_count", h.n_layer)
    if not 0 < n <= h.n_layer:
        raise GGUFError(
            f"{gguf.path}: {h.arch}.decoder_block_count is {n}, expected 1 to {h.n_layer}: llama.cpp keeps a cache for "
            "as many layers as the encoder has"
        )
    return replace(h, dec_n_layer=n)


def router(h: HParams, gguf: GGUFFile) -> HParams:
    """Behind the trunk stands one more layer of a single head, which decides about adapters.

    Source: llama.cpp 0c1e570 src/models/granite-switch.cpp, load_arch_hparams.
    """
    n = h.n_layer
    return replace(
        h, n_layer_all=n + 1, n_layer_nextn=1, n_head=(*h.n_head[:n], 1), n_head_kv=(*h.n_head_kv[:n], 1),
        n_ff=(*h.n_ff[:n], 0),
    )  # fmt: skip


def head_if_present(h: HParams, gguf: GGUFFile) -> HParams:
    """Layers are a prediction head only if its projection is in the file.

    Source: llama.cpp 0c1e570 src/models/deepseek4.cpp, load_arch_hparams.
    """
    present = f"blk.{h.n_layer}.nextn.eh_proj.weight" in gguf.tensors_by_name
    return h if present else replace(h, n_layer_nextn=0)


def embeds_streams(h: HParams, gguf: GGUFFile) -> HParams:
    """Embeddings have the width of all streams.

    Source: llama.cpp 0c1e570 src/models/qwen4exp.cpp, src/models/deepseek4.cpp, load_arch_hparams (n_embd_out_impl).
    """
    return replace(h, n_embd_out=h.hc_mult * h.n_embd or h.n_embd)


def streams_and_head(h: HParams, gguf: GGUFFile) -> HParams:
    """Both of the above: deepseek4."""
    return embeds_streams(head_if_present(h, gguf), gguf)


def values_are_latent(h: HParams, gguf: GGUFFile) -> HParams:
    """Heads of values are as wide as the compressed row.

    Source: llama.cpp 0c1e570 src/models/kimi-k3.cpp, src/models/glm5-next.cpp, load_arch_hparams.
    """
    return replace(h, n_embd_head_v=h.n_lora_kv)


def heads_alone(h: HParams, gguf: GGUFFile) -> HParams:
    """All layers are prediction heads, and all of them run.

    Source: llama.cpp 0c1e570 src/models/gemma4-assistant.cpp, llama_model_gemma4_assistant::graph.
    """
    return replace(h, dec_n_layer=h.n_layer_all)


def heads_by_key(h: HParams, gguf: GGUFFile) -> HParams:
    """Sizes of heads stand in the file, even when the first layer has none.

    Source: llama.cpp 0c1e570 src/models/plamo2.cpp, load_arch_hparams.
    """
    return replace(
        h,
        n_embd_head_k=gguf.get_int(f"{h.arch}.attention.key_length", h.n_embd_head_k),
        n_embd_head_v=gguf.get_int(f"{h.arch}.attention.value_length", h.n_embd_head_v),
    )


def features(h: HParams, gguf: GGUFFile) -> HParams:
    """The input is as wide as its features, and heads share that; the embedding's length is the output's.

    Source: llama.cpp 0c1e570 src/llama-model.cpp, load_hparams (LLM_ARCH_WAVTOKENIZER_DEC).
    """
    n_embd = gguf.get_int(f"{h.arch}.features_length", h.n_embd)
    size = n_embd // h.n_head[0] if h.n_head[0] else 0
    k, v = (gguf.get_int(f"{h.arch}.attention.{part}_length", size) if size else 0 for part in ("key", "value"))
    return replace(h, n_embd=n_embd, n_embd_head_k=k, n_embd_head_v=v)


def has_several_positions(gguf: GGUFFile) -> bool:
    """Has each of the model's tokens a position in time, in height and in width (M-RoPE)?

    Source: llama.cpp 0c1e570 src/llama-model.cpp, llama_model_rope_type; src/llama-hparams.cpp, use_mrope.
    """
    arch = gguf.architecture
    if arch in _ALWAYS:
        return True
    found = gguf.metadata.get(f"{arch}.{_SECTIONS}")
    sections = [int(n) for n in found] if isinstance(found, GGUFArray) else []
    if arch in _BY_TWO_SECTIONS:
        return len(sections) > 1 and min(sections[:2]) > 0
    return arch in _BY_ANY_SECTION and any(sections)
