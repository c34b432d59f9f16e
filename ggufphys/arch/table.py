"""Which rule does each architecture follow? One row an architecture, no logic.

Source: llama.cpp 0c1e570 src/models/<arch>.cpp, load_arch_hparams; src/llama-model.cpp, llama_model::create_memory.
"""

from collections.abc import Callable, Mapping
from typing import Final

from ggufphys.arch.aborts import (
    Aborts,
    AbortsLater,
    bias_of_one_stream,
    chooses_by_group,
    embeds_nothing,
    fills_both_caches,
    fills_both_masks,
    later_never,
    never,
    parts_by_embedding,
    prompt_of_one_stream,
    reads_wider_rows,
    scales_by_no_length,
    scales_without_windows,
    stores_values_as_matrix,
)
from ggufphys.arch.adjust import (
    decoder_layers,
    deepstack,
    embeds_streams,
    encodes_in_windows,
    features,
    heads_alone,
    heads_by_key,
    keep,
    looks_both_ways,
    loops,
    one_in_four_without_rope,
    rope_by_key,
    rope_in_chunks,
    rope_in_most_windows,
    router,
    sparse_in_front,
    streams_and_head,
    two_stacks,
    values_are_latent,
)
from ggufphys.arch.alone import borrows_embedding, borrows_vocabulary, can_run, is_projector, shares_cache
from ggufphys.arch.borrowed import (
    embedding_and_output,
    embedding_beside_own,
    last_two,
    none_read,
    nothing_borrowed,
    unless_tied,
)
from ggufphys.arch.caches import FullKV
from ggufphys.arch.contexts import (
    all_but_every,
    all_but_shared,
    before_head,
    first_layers,
    head,
    hybrid,
    in_trunk,
    mixed,
    recurrent,
    trunk,
    with_indexer,
    with_indexer_glm,
    with_kv_heads,
    without_ffn,
    without_kv_heads,
    without_kv_heads_and_ffn,
)
from ggufphys.arch.rules import (
    LayerRule,
    Layers,
    both,
    every,
    flags_from_file,
    full,
    indexer_keys,
    latent,
    nothing,
    only,
    only_if,
    size_fixed,
    size_optional,
    size_or,
    size_required,
    windowed,
)
from ggufphys.arch.sparse import (
    compressed,
    delta_and_pooled_dsa,
    draft_ring,
    dsa,
    dsa_optional,
    dsa_windowed,
    msa,
    window,
)
from ggufphys.arch.states import kda, linear_attention, short_conv, ssm, ssm_and_ngrams, ssm_ungrouped, wkv
from ggufphys.frozen import dataclass
from ggufphys.gguf import GGUFFile, TensorInfo
from ggufphys.hparams.hparams import HParams
from ggufphys.params import ContextType

HYBRIDS: Final = frozenset({
    "jamba", "falcon-h1", "plamo2", "granitehybrid", "lfm2", "lfm2moe", "nemotron_h", "nemotron_h_moe", "qwen3next",
    "kimi-linear", "bailingmoe3", "kimi-k3", "glm5-next", "qwen35", "qwen35moe", "qwen4exp", "minimax-01",
})  # fmt: skip
"""Of which a context has a cache for layers that attend beside states, however many there are of either."""


@dataclass(frozen=True)
class ArchRule:
    """What llama.cpp keeps for each layer of one architecture, and where it says so."""

    name: str
    keeps: LayerRule
    source: str
    draft: LayerRule | None = None  # in a context that runs the prediction head; None: llama.cpp has no graph of it
    adjust: Callable[[HParams, GGUFFile], HParams] = keep  # what the loader changes after reading the keys
    alone: Callable[[GGUFFile], str] = can_run  # why a context cannot be created for the file alone; empty if it can
    borrows: Callable[[GGUFFile, GGUFFile], Mapping[str, TensorInfo]] = nothing_borrowed  # weights of a draft's target
    reads: Callable[[HParams, Layers], Layers | None] = none_read  # a draft: which of its target's caches
    aborts: Aborts = never  # why llama.cpp dies of a context; empty if it does not
    aborts_later: AbortsLater = later_never  # why it dies of the first batch
    aborts_embedding: AbortsLater = later_never  # the same of a context for embeddings alone
    flash_attn: bool = True  # False: llama.cpp turns flash attention off for it
    has_encoder: bool = False  # every token of a batch may be an output
    has_decoder: bool = True  # False: nothing but an encoder
    is_diffusion: bool = False  # text is made of it all at once, not token by token
    rollback: bool = False  # drafted tokens can be taken back from its recurrent state
    mla: bool = False  # its loader reads the sizes of heads before compression
    same_types: bool = False  # K and V must be of one type, compressed or not
    lone_prompt: bool = False  # llama.cpp reserves for a prompt of one sequence too, which may take more

    @property
    def is_draft(self) -> bool:
        """Whether it goes on from what another model, its target, has computed."""
        return self.borrows is not nothing_borrowed

    @property
    def reads_at_once(self) -> bool:
        """Whether a sequence is read as a whole and nothing is kept of it: encoders, and diffusion models."""
        return self.keeps is nothing or not self.has_decoder

    def layers(self, h: HParams, ctx_type: ContextType = "default") -> Layers:
        """The caches of each of `n_layer_all` layers in a context of this type.

        Raises:
            ValueError: llama.cpp cannot create such a context for this architecture or model.
        """
        if ctx_type == "default":
            return self.keeps(h)
        if self.draft is None or h.n_layer_nextn == 0:
            why = "llama.cpp runs no prediction head of" if self.draft is None else "the file has no prediction head:"
            raise ValueError(f"ctx_type {ctx_type}: {why} {self.name}")
        return self.draft(h)

    def dies_at_first_batch(self, h: HParams) -> str:
        """Why llama.cpp makes an ordinary context and dies of its first batch; empty if it does not.

        Source: llama.cpp 0c1e570 src/llama-arch.cpp, llm_arch_is_hybrid; src/llama-graph.cpp,
        llm_graph_input_mem_hybrid::set_input (GGML_ASSERT of buffers, which inputs that no node reads lack).
        """
        if self.name in HYBRIDS and not any(isinstance(cache, FullKV) for layer in self.keeps(h) for cache in layer):
            return (
                "llama.cpp aborts at the first batch: no layer attends, and it fills their cache's inputs all the same "
                "(expected a layer with heads for keys)"
            )
        return self.aborts_later(h)

    def needs_same_types(self, h: HParams) -> bool:
        """Must K and V be of one type?"""
        return self.same_types or (self.mla and h.is_mla)


def _same(keeps: LayerRule, source: str, *names: str) -> tuple[ArchRule, ...]:
    return tuple(ArchRule(name, keeps, source) for name in names)


# fmt: off
TABLE: Final[tuple[ArchRule, ...]] = (
    # -- keys and values of the whole context in every layer
    *_same(
        trunk(full), "llama-model.cpp, create_memory: default branch",
        "llama", "llama-embed", "deci", "falcon", "gpt2", "gptneox", "mpt", "baichuan", "starcoder", "starcoder2",
        "refact", "bloom", "stablelm", "qwen", "qwen2", "qwen2moe", "qwen2vl", "qwen3", "qwen3moe", "qwen3tts",
        "phi2", "phimoe", "plamo", "codeshell", "orion", "internlm2", "minicpm",
        "minicpm3", "gemma", "xverse", "command-r", "dbrx", "olmo", "olmoe", "openelm", "arctic", "deepseek",
        "deepseek2-ocr", "chatglm", "glm4", "bitnet", "jais", "jais2", "nemotron", "exaone", "granite",
        "granitemoe", "chameleon", "bailingmoe", "bailingmoe2", "dots1", "arcee", "ernie4_5", "ernie4_5-moe",
        "hunyuan-moe", "hunyuan-dense", "hunyuan_vl", "seed_oss", "grovemoe", "apertus",
        "minimax-m2", "pangu-embedded", "mistral3", "paddleocr", "maincoder", "talkie", "pockettts",
    ),
    ArchRule("cogvlm",   trunk(full), "models/cogvlm.cpp", aborts=parts_by_embedding),
    ArchRule("glm4moe",  trunk(full), "models/glm4-moe.cpp", draft=head(full)),
    ArchRule("hy_v3",    trunk(full), "models/hy-v3.cpp", draft=head(full)),
    ArchRule("qwen3vl",    trunk(full), "models/qwen3vl.cpp", adjust=deepstack),
    ArchRule("qwen3vlmoe", trunk(full), "models/qwen3vlmoe.cpp", adjust=deepstack),
    ArchRule("smollm3",  trunk(full), "models/smollm3.cpp", adjust=one_in_four_without_rope),
    ArchRule("plm",      trunk(full), "models/plm.cpp", aborts=stores_values_as_matrix),
    ArchRule("grok",     trunk(full), "llama-context.cpp, llama_init_from_model: no flash attention", flash_attn=False),
    ArchRule("phi3",     trunk(full), "models/phi3.cpp: its window is disabled"),
    ArchRule("hrm_text", trunk(full), "models/hrm-text.cpp: block_count counts every pass through the two stacks",
             adjust=two_stacks),
    ArchRule("nanbeige", trunk(full), "models/nanbeige.cpp: a cache for each loop", adjust=loops),
    ArchRule("graniteswitch", full, "models/granite-switch.cpp: a router behind the trunk", adjust=router),
    ArchRule("t5",        trunk(full), "llama-model.cpp, create_memory: as many layers as the encoder has",
             aborts=bias_of_one_stream, adjust=decoder_layers, has_encoder=True),
    ArchRule("t5encoder", trunk(full), "llama-model.cpp, create_memory: a cache that the encoder does not use",
             has_encoder=True, has_decoder=False),

    # -- one compressed row a position instead of keys and values, if the file is of the newer kind
    ArchRule("deepseek2", trunk(latent(full)), "models/deepseek2.cpp", mla=True, draft=head(latent(full)),
             aborts_later=scales_by_no_length),
    ArchRule("mistral4",  trunk(latent(full)), "models/mistral4.cpp: as deepseek2, but it runs no head", mla=True,
             aborts_later=scales_by_no_length),

    # -- windows in some layers, when the file names a window
    ArchRule("gemma3",       trunk(windowed(every(6), size_optional)),                   "models/gemma3.cpp"),
    ArchRule("olmo2",        trunk(windowed(every(4), size_optional)),                   "models/olmo2.cpp"),
    ArchRule("afmoe",        trunk(windowed(every(4), size_optional)),                   "models/afmoe.cpp",
             adjust=one_in_four_without_rope),
    ArchRule("mellum",       trunk(windowed(every(4), size_optional)),                   "models/mellum.cpp"),
    ArchRule("plamo3",       trunk(windowed(every(8), size_optional)),                   "models/plamo3.cpp"),
    ArchRule("laguna",       trunk(windowed(every(4, dense_first=True), size_optional)), "models/laguna.cpp"),

    # -- windows always
    ArchRule("gemma2",       trunk(windowed(every(2), size_or(4096))),                   "models/gemma2.cpp"),
    ArchRule("gpt-oss",      trunk(windowed(every(2), size_required)),                   "models/openai-moe.cpp"),
    ArchRule("cohere2",      trunk(windowed(every(4), size_required)),                   "models/cohere2.cpp"),
    ArchRule("cohere2moe",   trunk(windowed(every(4, dense_first=True), size_required)), "models/cohere2moe.cpp",
             draft=head(windowed(every(4, dense_first=True), size_required))),
    ArchRule("exaone-moe",   trunk(windowed(every(4), size_required)),                   "models/exaone-moe.cpp"),
    ArchRule("muse-glimmer", trunk(windowed(every(4), size_required)),                   "models/muse-glimmer.cpp"),
    ArchRule("granite_swa",  trunk(windowed(flags_from_file, size_required)),            "models/granite-swa.cpp",
             adjust=rope_by_key),
    ArchRule("maple",        trunk(windowed(flags_from_file, size_required)),            "models/maple.cpp"),
    ArchRule("mimo2",        trunk(windowed(flags_from_file, size_required)),            "models/mimo2.cpp",
             draft=head(windowed(flags_from_file, size_required))),
    ArchRule("spark2_5",     trunk(windowed(flags_from_file, size_required)),            "models/spark2-5.cpp"),
    ArchRule("step35",       trunk(windowed(flags_from_file, size_required)),            "models/step35.cpp",
             draft=head(windowed(flags_from_file, size_required))),

    # -- windows in some models of the architecture, or of a size that the source fixes
    ArchRule("exaone4",      trunk(windowed(every(4), only_if(lambda h: h.n_layer == 64, size_or(4096)))),
             "models/exaone4.cpp: the 64-layer model only"),
    ArchRule("smallthinker",
             trunk(windowed(every(4, dense_first=True), only_if(lambda h: bool(h.n_swa), size_fixed(4096)))),
             "models/smallthinker.cpp", adjust=rope_in_most_windows),
    ArchRule("llama4",
             trunk(windowed(every(4), only_if(lambda h: h.n_swa != 0, size_fixed(8192)), chunked=True)),
             "models/llama4.cpp: chunks of 8192", adjust=rope_in_chunks,
             aborts_later=scales_without_windows),

    # -- layers that read the caches of earlier ones
    ArchRule("gemma3n", trunk(only(windowed(every(5), size_required), first_layers(20))),
             "models/gemma3n.cpp: n_layer_kv_from_start is 20", adjust=sparse_in_front),
    ArchRule("gemma4",  trunk(only(windowed(flags_from_file, size_required), all_but_shared)), "models/gemma4.cpp"),

    # -- no cache: encoders, and diffusion models, which read a whole sequence at once
    *_same(
        nothing, "llama-model.cpp, create_memory: no memory",
        "bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3", "eurobert",
    ),
    ArchRule("wavtokenizer-dec", nothing, "llama-model.cpp, create_memory: no memory",   adjust=features),
    ArchRule("gemma-embedding",  nothing, "models/gemma-embedding.cpp: causal_attn off", adjust=encodes_in_windows(6),
             aborts_later=fills_both_masks(windowed=True)),
    ArchRule("modern-bert",      nothing, "models/modern-bert.cpp",
             adjust=encodes_in_windows(3, dense_first=True, causal=True),
             aborts_later=fills_both_masks(windowed=False)),
    ArchRule("dream",            nothing, "models/dream.cpp: causal_attn off", adjust=looks_both_ways,
             is_diffusion=True),
    ArchRule("llada",            nothing, "models/llada.cpp: causal_attn off", adjust=looks_both_ways,
             is_diffusion=True),
    ArchRule("llada-moe",        nothing, "models/llada-moe.cpp: causal_attn off", adjust=looks_both_ways,
             is_diffusion=True),
    ArchRule("rnd1",             nothing, "models/rnd1.cpp: causal_attn off", adjust=looks_both_ways,
             is_diffusion=True),

    # -- a state for each sequence, however long it is
    ArchRule("mamba",      recurrent(ssm_ungrouped), "models/mamba.cpp: does not read ssm.group_count"),
    ArchRule("mamba2",     recurrent(ssm),           "models/mamba2.cpp"),
    ArchRule("rwkv6",      recurrent(wkv),           "models/rwkv6.cpp"),
    ArchRule("rwkv6qwen2", recurrent(wkv),           "models/rwkv6qwen2.cpp"),
    ArchRule("rwkv7",      recurrent(wkv),           "models/rwkv7.cpp"),
    ArchRule("arwkv7",     recurrent(wkv),           "models/arwkv7.cpp"),

    # -- hybrids: a state in some layers, keys and values in the others
    ArchRule("jamba",         hybrid(full, ssm_ungrouped, without_kv_heads), "models/jamba.cpp"),
    ArchRule("granitehybrid", hybrid(full, ssm, without_kv_heads),           "models/granite-hybrid.cpp"),
    ArchRule("plamo2",        hybrid(full, ssm, without_kv_heads),           "models/plamo2.cpp", adjust=heads_by_key),
    ArchRule("falcon-h1",     mixed(full, ssm),                              "models/falcon-h1.cpp"),
    ArchRule("lfm2",          hybrid(windowed(with_kv_heads, size_optional, needed=False), short_conv,
                                      without_kv_heads), "models/lfm2.cpp", rollback=True),
    ArchRule("lfm2moe",       hybrid(full, short_conv, without_kv_heads),    "models/lfm2moe.cpp", rollback=True),
    ArchRule("nemotron_h",    hybrid(full, ssm, without_kv_heads_and_ffn, attends=without_ffn),
             "models/nemotron-h.cpp", rollback=True),
    ArchRule("nemotron_h_moe", hybrid(full, ssm, without_kv_heads_and_ffn, attends=without_ffn),
             "models/nemotron-h.cpp", draft=head(full), rollback=True),
    ArchRule("minimax-01",    hybrid(full, linear_attention, all_but_every(8), attends=before_head),
             "models/minimax-01.cpp", lone_prompt=True, aborts=prompt_of_one_stream(all_but_every(8))),
    ArchRule("qwen3next",     hybrid(full, ssm, all_but_every(4), attends=before_head),
             "models/qwen3next.cpp", draft=head(full)),
    ArchRule("qwen35",        hybrid(full, ssm, all_but_every(4), attends=before_head),
             "models/qwen35.cpp", draft=head(full), rollback=True),
    ArchRule("qwen35moe",     hybrid(full, ssm, all_but_every(4), attends=before_head),
             "models/qwen35moe.cpp", draft=head(full), rollback=True),
    ArchRule("qwen4exp",      hybrid(both(full, indexer_keys), ssm_and_ngrams, all_but_every(4), attends=before_head),
             "models/qwen4exp.cpp; llama-memory-hybrid-idx.cpp", adjust=embeds_streams, rollback=True,
             aborts_embedding=reads_wider_rows),
    ArchRule("kimi-linear",   hybrid(latent(full), kda, without_kv_heads),
             "models/kimi-linear.cpp", mla=True, lone_prompt=True, aborts=prompt_of_one_stream(without_kv_heads)),
    ArchRule("kimi-k3",       hybrid(latent(full), kda, without_kv_heads),
             "models/kimi-k3.cpp", adjust=values_are_latent, rollback=True, mla=True),
    ArchRule("bailingmoe3",   hybrid(latent(full), kda, without_kv_heads),
             "models/bailingmoe3.cpp", draft=head(latent(full)), rollback=True, mla=True),

    # -- sparse attention, with the keys of an indexer beside the others
    ArchRule("deepseek32", dsa(latent(full), in_trunk), "models/deepseek32.cpp", draft=head(latent(full)), mla=True),
    ArchRule("glm-dsa",    dsa(latent(full), with_indexer_glm), "models/glm-dsa.cpp", draft=head(latent(full)),
             mla=True),
    ArchRule("hy_v4",      dsa_optional(latent(full), with_indexer), "models/hy-v4.cpp", mla=True),
    ArchRule("dots3note",  dsa_windowed(latent(windowed(flags_from_file, size_required)), with_indexer),
             "models/dots3note.cpp", mla=True, aborts_later=fills_both_caches),
    ArchRule("minimax-m3", msa, "models/minimax-m3.cpp", aborts=chooses_by_group),
    ArchRule("glm5-next",  delta_and_pooled_dsa, "models/glm5-next.cpp",
             adjust=values_are_latent, rollback=True, mla=True),
    ArchRule("deepseek4",  compressed, "models/deepseek4.cpp; llama-kv-cache-dsv4.cpp",
             draft=head(window), adjust=streams_and_head, rollback=True, same_types=True,
             aborts_embedding=reads_wider_rows),

    # -- files that llama.cpp runs beside another model only, or not always
    ArchRule("eagle3",           trunk(full),       "models/eagle3.cpp",           alone=borrows_vocabulary,
             borrows=embedding_and_output, aborts=embeds_nothing, has_encoder=True),
    ArchRule("dflash",           trunk(draft_ring), "models/dflash.cpp",           alone=borrows_embedding,
             borrows=unless_tied, has_encoder=True),
    ArchRule("gemma4-assistant", nothing,           "models/gemma4-assistant.cpp", alone=shares_cache,
             borrows=embedding_beside_own, reads=last_two, adjust=heads_alone, aborts=embeds_nothing),
    ArchRule("clip",             nothing,           "models/clip.cpp",             alone=is_projector),
)
# fmt: on


def _index(table: tuple[ArchRule, ...]) -> Mapping[str, ArchRule]:
    rules = {row.name: row for row in table}
    assert len(rules) == len(table), "an architecture has two rows"
    return rules


RULES: Final[Mapping[str, ArchRule]] = _index(TABLE)

# Architectures that a newer llama.cpp knows (`ggufphys.builds.newer`), of which its source is at hand.
LATER: Final[Mapping[str, ArchRule]] = _index((
    ArchRule("clef",             nothing,     "models/clef.cpp"),
    ArchRule("k2-horizon",       trunk(full), "models/k2-horizon.cpp"),
    ArchRule("kolibri1",         trunk(windowed(flags_from_file, size_required)), "models/kolibri1.cpp"),
    ArchRule("maion-coder",      trunk(windowed(flags_from_file, size_required)), "models/maion-coder.cpp"),
    ArchRule("gemma-embedding2", nothing,     "models/gemma-embedding2.cpp: causal_attn off",
             adjust=encodes_in_windows(6)),
))  # fmt: skip
