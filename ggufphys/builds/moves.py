"""What moved in llama.cpp, and when? The one table of rules that hold in some builds and not in others.

Whatever follows from a build's number follows from here: code that builds graphs asks whether a rule is among
`ContextParams.rules`, and never compares numbers. Rules are worded so that each holds in a stretch of builds.

A move lies between two builds that were seen: `before`, the last one without it, and `first`, the first one with it;
`last` and `after` say the same of its end. A build in such a gap is taken to be like the one before it, and what is
predicted for it is an estimate.
"""

from functools import cache
from typing import Final, Literal

from ggufphys.frozen import dataclass

PINNED: Final = 11312  # 0c1e570, the llama.cpp in the pinned llama-cpp-python
LATEST: Final = 11739  # the newest that was recorded

Rule = Literal[
    "alone_padded", "bailingmoe3_keeps_no_snapshots", "bailingmoe3_positions", "bert_positions_first",
    "block_scores_by_head", "blocks_of_cells", "blocks_pooled", "blocks_unchecked_if_on", "caches_as_they_are",
    "chameleon_shapes_behind_norms", "choice_as_mask", "chosen_not_rotated", "clamps_are_views",
    "context_times_streams", "context_times_unified_streams", "deepseek32_head_cached", "deepseek32_head_unread",
    "delta_nets_in_chunks", "encoders_limited", "few_look_both_ways", "fused_experts_of_head", "glm4moe_head_unread",
    "glm5_next_drafts", "glm_dsa_attends_to_all", "glm_dsa_head_cached", "glm_dsa_indexes_all", "gpt_oss_crops_early",
    "heads_cached", "heads_loaded", "indexer_by_parts", "kimi_k3_keeps_no_snapshots", "kimi_linear_reserves_alike",
    "l2_norm_op", "layer_inputs_late", "lfm2_always_causal", "lfm2_keeps_no_snapshots", "llama4_as_llama",
    "mamba2_projects_by_sequence", "mask_cast", "minimax_01_reserves_alike", "mixed_batches",
    "nemotron_h_keeps_no_snapshots", "norms_of_head", "outputs_rounded", "outputs_unlimited", "parts_not_rotated",
    "pools_filled_anew", "pools_masked_always", "qwen3next_crops_early", "rope_by_parts", "rotations_alike",
    "rows_first", "server_reserves_all_outputs", "snapshots_one_by_one", "step35_without_biases", "taps_behind_zeros",
    "types_of_rows_differ", "wanted_before_drafts", "window_periods_unread",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A rule that holds from build `first` to build `last`; 0: it always did, or still does.

    Bytes `what` changed, for `whom`; `source` is llama.cpp's file and symbol, and the pull request where it is known;
    `found` says how the builds were found.
    """

    rule: Rule
    before: int = 0
    first: int = 0
    last: int = 0
    after: int = 0
    what: str
    whom: str
    source: str
    found: str

    def holds(self, build: int) -> bool:
        """Whether builds of this number have it."""
        return self.first <= build and (not self.last or build < self.after)


MOVES: Final = (
    Move(
        rule="delta_nets_in_chunks",
        last=8233,
        after=8305,
        what="prompts of delta nets are computed by chunks of tokens, not by one operation",
        whom="qwen3next, qwen35, qwen35moe, kimi-linear",
        source="src/models/delta-net-base.cpp, build_delta_net_chunking (fused_gdn_ch)",
        found="sources of b8229 and b8405; records of b8233 and b8305",
    ),
    Move(
        rule="chameleon_shapes_behind_norms",
        last=8808,
        after=8840,
        what="normed heads are shaped again",
        whom="chameleon",
        source="src/models/chameleon.cpp",
        found="sources of b8762 and b11312; records of b8808 and b8840",
    ),
    Move(
        rule="window_periods_unread",
        last=8233,
        after=8305,
        what="attention.sliding_window_pattern is not read: layers have windows as in the models that were published",
        whom="afmoe, cohere2, exaone4, exaone-moe, gemma2, gemma3, gemma3n, gemma-embedding, gpt-oss, llama4, olmo2, "
        "smallthinker, whose file says otherwise",
        source="src/llama-model.cpp, load_hparams (LLM_KV_ATTENTION_SLIDING_WINDOW_PATTERN)",
        found="sources of b8229 and b8405; records of b8233 and b8305",
    ),
    Move(
        rule="llama4_as_llama",
        last=8808,
        after=8840,
        what="without windows the graph is llama's: no scale of queries, no experts that every token uses",
        whom="llama4 without windows",
        source="src/llama-model.cpp, build_graph (llm_build_llama)",
        found="sources of b8762 and b11312; records of b8808 and b8840",
    ),
    Move(
        rule="few_look_both_ways",
        last=8508,
        after=8560,
        what="attention.causal is read for encoders alone, so others' batches are never longer than the context",
        whom="qwen2 and others whose file says that they look both ways",
        source="src/llama-model.cpp, load_hparams (LLM_KV_ATTENTION_CAUSAL)",
        found="sources of 24 and 27 March 2026; records of b8508 and b8560",
    ),
    Move(
        rule="blocks_unchecked_if_on",
        last=8683,
        after=8739,
        what="whether heads are whole blocks of a quantised cache is asked only where flash attention is \"auto\"",
        whom="models whose heads are not whole blocks",
        source="src/llama-context.cpp, llama_init_from_model",
        found="sources of b8672 and about b8740; records of b8683 and b8739",
    ),
    Move(
        rule="layer_inputs_late",
        last=8683,
        after=8739,
        what="inputs of layers are looked up and scaled when they are added, not before anything else",
        whom="gemma3n, gemma4",
        source="src/models/gemma3n-iswa.cpp, gemma4-iswa.cpp (ggml_build_forward_expand)",
        found="sources of b8672 and b8762; records of b8683 and b8739",
    ),
    Move(
        rule="caches_as_they_are",
        last=8606,
        after=8660,
        what="rows of a quantised cache are not rotated",
        whom="attention over a quantised cache",
        source="src/llama-kv-cache.cpp, attn_rot_k; PR 21038",
        found="records of b8606 and b8660",
    ),
    Move(
        rule="rotations_alike",
        last=8683,
        after=8739,
        what="rows of a quantised cache are not rotated where layers' rows differ in width, whatever their heads; "
        "layers with a window are rotated by the matrices of those without, as large as the first layer's heads allow",
        whom="deci, gpt-oss, openelm, plamo2, plamo3; attention over a quantised cache",
        source="src/llama-kv-cache.cpp, attn_rot_k (is_n_embd_k_gqa_variable); src/llama-graph.cpp, self_k_rot_swa",
        found="sources of b8672 and about b8740; records of b8683 and b8739",
    ),
    Move(
        rule="parts_not_rotated",
        last=9014,
        after=9093,
        what="it ends where rows that are parts of one product are to be rotated",
        whom="bailingmoe2, bloom, cogvlm, dbrx, falcon, gpt2, gptneox, jais, mpt, openelm, phi3, plamo2, plamo3, qwen, "
        "starcoder, and others whose file has one product, with a quantised cache",
        source="src/llama-graph.cpp, ggml_mul_mat_aux",
        found="source of b8672; records of b8660 to b9102; xllamacpp's b9093",
    ),
    Move(
        rule="mask_cast",
        last=9388,
        after=9432,
        what="the mask is an F32 input, cast to F16 for flash attention: 4 + 2 bytes an element in place of 2",
        whom="attention with flash attention",
        source="src/llama-graph.cpp, build_attn_inp_kq_mask, self_kq_mask_cnv",
        found="sources of b9388 and b9432; records of b9309 and b9445",
    ),
    Move(
        rule="outputs_unlimited",
        last=9445,
        after=9538,
        what="contexts have no n_outputs_max: logits of a whole batch are reserved",
        whom="contexts that limit their outputs",
        source="include/llama.h, llama_context_params",
        found="records of b9445 and b9554; xllamacpp's b9538",
    ),
    Move(
        rule="encoders_limited",
        last=9554,
        after=9637,
        what="n_outputs_max counts for models with an encoder, too",
        whom="t5, t5encoder",
        source="src/llama-context.cpp, llama_context ctor (llama_model_has_encoder)",
        found="sources of b9553 and b9637; records of b9554 and b9642",
    ),
    Move(
        rule="snapshots_one_by_one",
        before=9209,
        first=9246,
        last=9554,
        after=9637,
        what="a delta net's state is padded to as many as there are snapshots, each of which is copied by itself",
        whom="qwen35, qwen35moe, qwen3next, with n_rs_seq",
        source="src/models/delta-net-base.cpp, build_recurrent_attn",
        found="sources of b9246, b9553 and b9637; records of b9209, b9309, b9554 and b9642",
    ),
    Move(
        rule="server_reserves_all_outputs",
        last=9554,
        after=10229,
        what="llama-server reserves logits of a whole batch, not one row a slot",
        whom="llama-server",
        source="tools/server/server-context.cpp, server_output_limits",
        found="logs of b9093 and b10229; b9554 cannot be asked for it",
    ),
    Move(
        rule="context_times_streams",
        before=10566,
        first=10809,
        what="llama-server's context is the trained one for each stream of the cache, without -c",
        whom="llama-server",
        source="common/fit.cpp, common_params_fit_impl",
        found="logs of b10566 and b10809",
    ),
    Move(
        rule="context_times_unified_streams",
        before=10809,
        first=11063,
        last=11063,
        after=11312,
        what="the same for each slot where one cache serves all of them",
        whom="llama-server",
        source="common/fit.cpp, common_params_fit_impl",
        found="logs of b10809, b11063 and b11549; source of b11312",
    ),
    Move(
        rule="outputs_rounded",
        last=9445,
        after=9538,
        what="as many outputs are reserved as tokens, where these are rounded up to whole sequences",
        whom="batches that sequences do not divide",
        source="src/llama-context.cpp, graph_reserve",
        found="records of b9445 and b9554; xllamacpp's b9538",
    ),
    Move(
        rule="glm_dsa_attends_to_all",
        last=10069,
        after=10133,
        what="the indexer is loaded and not used: attention as deepseek2's, over all rows",
        whom="glm-dsa",
        source="src/models/glm-dsa.cpp",
        found="records of b10069 and b10133",
    ),
    Move(
        rule="glm_dsa_indexes_all",
        before=10069,
        first=10133,
        last=10236,
        after=10330,
        what="indexer keys are kept for every layer of the trunk, for those without an indexer, too",
        whom="glm-dsa",
        source="src/llama-model.cpp, create_memory (filter_lid)",
        found="sources of b10235 and b10338; records of b10236 and b10330",
    ),
    Move(
        rule="glm_dsa_head_cached",
        before=10069,
        first=10133,
        last=10152,
        after=10229,
        what="the prediction head's layers have both caches, too",
        whom="glm-dsa",
        source="src/llama-model.cpp, create_memory",
        found="sources of b10142 and b10235; records of b10152 and b10236; xllamacpp\'s b10229",
    ),
    Move(
        rule="deepseek32_head_cached",
        before=9445,
        first=9538,
        last=10236,
        after=10330,
        what="the prediction head's layers have both caches, too",
        whom="deepseek32",
        source="src/llama-model.cpp, create_memory",
        found="sources of b10235 and b10338; records of b9445, b9554, b10236 and b10330; xllamacpp's b9538",
    ),
    Move(
        rule="deepseek32_head_unread",
        last=10236,
        after=10330,
        what="the prediction head is not loaded, and a draft context is as any other",
        whom="deepseek32",
        source="src/models/deepseek32.cpp, load_arch_tensors, build_arch_graph",
        found="records of b10236 and b10330",
    ),
    Move(
        rule="glm4moe_head_unread",
        last=10566,
        after=10603,
        what="the prediction head is not loaded, and a draft context is as any other",
        whom="glm4moe",
        source="src/models/glm4-moe.cpp, load_arch_tensors, build_arch_graph",
        found="records of b10335 and b10603; xllamacpp's b10566",
    ),
    Move(
        rule="gpt_oss_crops_early",
        last=10069,
        after=10235,
        what="the last layer's feed-forward part computes the wanted tokens alone, not all for drafts to start from",
        whom="gpt-oss",
        source="src/models/openai-moe.cpp, t_h_nextn",
        found="sources of b9432 and b10235; real shapes at b10069 and b10335",
    ),
    Move(
        rule="chosen_not_rotated",
        last=10159,
        after=10229,
        what="it ends where rows of a quantised cache are to be rotated whose blocks are chosen",
        whom="minimax-m3 with a quantised cache",
        source="src/models/minimax-m3.cpp (GGML_ASSERT, self_k_rot)",
        found="sources of b10151 and b10159; records of b10152 and b10236; xllamacpp\'s b10229",
    ),
    Move(
        rule="types_of_rows_differ",
        last=10152,
        after=10229,
        what="K and V of different types are not refused where one row holds both",
        whom="deepseek2, deepseek32, kimi-linear, mistral4",
        source="src/llama-context.cpp, llama_init_from_model",
        found="records of b10152 and b10236; xllamacpp\'s b10229",
    ),
    Move(
        rule="norms_of_head",
        before=8808,
        first=8840,
        last=10236,
        after=10330,
        what="norms of a head are loaded all the same",
        whom="glm4moe, hy_v3, qwen35, qwen35moe, step35 with prediction heads",
        source="src/models/, load_arch_tensors",
        found="records of b10236 and b10330",
    ),
    Move(
        rule="qwen3next_crops_early",
        last=10235,
        after=10330,
        what="the last layer's feed-forward part computes the wanted tokens alone, not all for drafts to start from",
        whom="qwen3next",
        source="src/models/qwen3next.cpp, t_h_nextn",
        found="sources of b10235 and b10338; real shapes at b10069 and b10335",
    ),
    Move(
        rule="blocks_of_cells",
        last=10236,
        after=10330,
        what="blocks are of cells, not of positions; indexers' keys are in F32, without values, and masks not copied",
        whom="minimax-m3",
        source="src/models/minimax-m3.cpp; src/llama-kv-cache.cpp, k_idx",
        found="sources of b10235 and b10338; records of b10236 and b10330",
    ),
    Move(
        rule="nemotron_h_keeps_no_snapshots",
        last=10335,
        after=10566,
        what="states cannot be rolled back, whatever n_rs_seq",
        whom="nemotron_h, nemotron_h_moe",
        source="src/llama-arch.cpp, llm_arch_supports_rs_rollback",
        found="records of b10335 and b10603; xllamacpp's b10566",
    ),
    Move(
        rule="heads_loaded",
        last=10152,
        after=10229,
        what="weights of prediction heads are loaded whether they are asked for or not (load_mtp)",
        whom="models with prediction heads, but those that never load them",
        source="src/llama-model-loader.cpp, load_mtp",
        found="records of b10152 and b10236; xllamacpp\'s b10229",
    ),
    Move(
        rule="lfm2_always_causal",
        last=9756,
        after=9838,
        what="convolutions see what came before alone, also where tokens may look both ways",
        whom="lfm2 and lfm2moe with attention both ways",
        source="src/models/lfm2.cpp, build_shortconv_block",
        found="sources of b9432 and b9993; records of b9756 and b9838",
    ),
    Move(
        rule="indexer_by_parts",
        last=9879,
        after=9982,
        what="an indexer's scores are made by operations of their own: as many rows as it has heads at a time",
        whom="deepseek32",
        source="src/models/deepseek32.cpp, ggml_lightning_indexer",
        found="sources of b9432 and b9993; records of b9879 and b9982",
    ),
    Move(
        rule="lfm2_keeps_no_snapshots",
        last=10335,
        after=10566,
        what="states cannot be rolled back, whatever n_rs_seq",
        whom="lfm2, lfm2moe",
        source="src/llama-arch.cpp, llm_arch_supports_rs_rollback",
        found="records of b10335 and b10603; xllamacpp's b10566",
    ),
    Move(
        rule="bailingmoe3_keeps_no_snapshots",
        last=10566,
        after=10603,
        what="states cannot be rolled back, whatever n_rs_seq",
        whom="bailingmoe3",
        source="src/llama-arch.cpp, llm_arch_supports_rs_rollback",
        found="source of b10566, xllamacpp's; record of b10603",
    ),
    Move(
        rule="minimax_01_reserves_alike",
        last=10603,
        after=10705,
        what="no prompt of one sequence is reserved for, of which later builds end where streams do not divide it",
        whom="minimax-01",
        source="src/llama-context.cpp, sched_reserve",
        found="sources of b10603 and b10705; records of b10603 and b10715",
    ),
    Move(
        rule="kimi_linear_reserves_alike",
        last=10840,
        after=10950,
        what="no prompt of one sequence is reserved for, of which later builds end where streams do not divide it",
        whom="kimi-linear",
        source="src/llama-context.cpp, sched_reserve (TAG_RESERVE_DIAG_DECAY)",
        found="sources of b10840 and b10950; records of b10837 and b10952",
    ),
    Move(
        rule="mamba2_projects_by_sequence",
        last=10603,
        after=10705,
        what="the projection in front of the scan multiplies (E, T, N), and the one behind it is shaped back",
        whom="mamba2, granitehybrid, nemotron_h, nemotron_h_moe",
        source="src/models/mamba-base.cpp, build_mamba2_layer",
        found="sources of b10603 and b10705; records of b10603 and b10715",
    ),
    Move(
        rule="rope_by_parts",
        last=10338,
        after=10566,
        what="elements of a head that are not turned are cut off and put back, by a copy, not passed over",
        whom="minicpm3, plm, deepseek2 without compressed rows, indexers of deepseek32 and glm-dsa",
        source="ggml/src/ggml.c, ggml_rope_set_offset; src/models/deepseek2.cpp",
        found="sources of b10338 and b10603; records of b10335 and b10603; xllamacpp's b10566",
    ),
    Move(
        rule="heads_cached",
        before=9445,
        first=9538,
        last=10840,
        after=10950,
        what="contexts keep rows of the layers behind the trunk, too",
        whom="bailingmoe2, deepseek2, exaone-moe, exaone4, glm4, glm4moe, mistral4 with prediction heads",
        source="src/llama-model.cpp, llama_model::create_memory",
        found="sources of b10840 and b10950; records of b9445, b9554, b10837 and b10952; xllamacpp's b9538",
    ),
    Move(
        rule="kimi_k3_keeps_no_snapshots",
        last=10840,
        after=10950,
        what="states cannot be rolled back, whatever n_rs_seq",
        whom="kimi-k3",
        source="src/llama-arch.cpp, llm_arch_supports_rs_rollback",
        found="sources of b10840 and b10950; records of b10837 and b10952",
    ),
    Move(
        rule="fused_experts_of_head",
        last=10952,
        after=11063,
        what="experts of a head are loaded all the same where gate and up are one tensor",
        whom="deepseek2, mistral4, qwen3next, qwen35moe with prediction heads",
        source="src/llama-model.cpp, create_tensor_gate_up_exps",
        found="records of b10952 and b11067; xllamacpp's b11063",
    ),
    Move(
        rule="l2_norm_op",
        last=10705,
        after=10715,
        what="rows of queries and keys of delta nets are normed by an operation of its own, not a scaled RMS norm",
        whom="bailingmoe3; the graph of all delta nets",
        source="src/models/models.h, build_gdn_l2_norm",
        found="sources of b10705 and b10840; records of b10603 and b10715",
    ),
    Move(
        rule="clamps_are_views",
        last=10603,
        after=10705,
        what="a clamp is done where its source lies and shows it, so what reads it cannot take over the bytes",
        whom="models that clamp activations or weights of experts",
        source="ggml/src/ggml.c, ggml_clamp; ggml/src/ggml-alloc.c, ggml_op_can_inplace",
        found="sources of b10603 and b10705; records of b10603 and b10715",
    ),
    Move(
        rule="step35_without_biases",
        last=10705,
        after=10715,
        what="biases of queries, keys and values are loaded and not added",
        whom="step35",
        source="src/models/step35.cpp, graph (build_lora_mm in place of build_qkv)",
        found="sources of b10705 and b10840; records of b10603 and b10715",
    ),
    Move(
        rule="bailingmoe3_positions",
        last=11067,
        after=11227,
        what="tokens have one position, not one for each section of mrope",
        whom="bailingmoe3",
        source="src/models/bailingmoe3.cpp, use_mrope",
        found="sources of b11065 and b11311; records of b11067 and b11227",
    ),
    Move(
        rule="taps_behind_zeros",
        last=11236,
        after=11292,
        what="a block's tokens are moved behind zeros that are filled and joined to them, not padded; taps that reach "
        "before the block are computed all the same",
        whom="dflash with convolutions",
        source="src/models/dflash.cpp, build_dflash2_conv",
        found="sources of b11236 and b11292; records of b11227 and b11312",
    ),
    Move(
        rule="pools_filled_anew",
        before=11327,
        first=11352,
        what="masks of chosen pools are filled from tensors of their own, not from the choice; whether rows are "
        "gathered follows from the context alone, not from the batch",
        whom="glm5-next",
        source="src/models/glm5-next.cpp, build_kpool_select, build_inp_kpool",
        found="sources of b11312 and b11434; records of b11327 and b11352",
    ),
    Move(
        rule="blocks_pooled",
        before=11327,
        first=11352,
        what="the key of a block of cells is computed once and kept beside theirs, which are twice as wide; blocks are "
        "scored by ggml_lightning_indexer and chosen as glm5-next's pools are",
        whom="qwen4exp, whose layers must have blocks of one size",
        source="src/models/qwen4exp.cpp, build_qsa_sel, build_inp_kpool",
        found="sources of b11312 and b11434; records of b11327 and b11352",
    ),
    Move(
        rule="block_scores_by_head",
        before=11327,
        first=11352,
        last=11368,
        after=11382,
        what="blocks are scored by a product whose heads are added up one by one, and a mask of F32",
        whom="qwen4exp, whose layers must have blocks of one size",
        source="src/models/qwen4exp.cpp, build_qsa_sel",
        found="sources of b11368 and b11382; records of b11352 and b11391",
    ),
    Move(
        rule="mixed_batches",
        before=11393,
        first=11401,
        what="a batch may mix tokens and ready-made embeddings: a third way into the graph, with inputs of its own "
        "(I32 and I64 a token, F32 n_embd a token), a copy of the last and the rows written into it; the scale of "
        "embeddings is an input, a number for each row",
        whom="all but the architectures that tell tokens from embeddings (cogvlm, deepseek4, granite_switch, eagle3, "
        "dflash, gemma4-assistant), in contexts of the usual type",
        source="src/llama-graph.cpp, build_inp_embd; src/llama-arch.cpp, llm_arch_supports_mixed_batch",
        found="sources of b11393 and b11401; records of b11391 and b11413",
    ),
    Move(
        rule="rows_first",
        before=11434,
        first=11548,
        what="embeddings are looked up before anything else is computed, those of mixed batches too, and gemma4's "
        "inputs of layers before them",
        whom="gemma4 and models with deepstack; where rows are wide, others",
        source="src/llama-graph.cpp, build_inp_embd (ggml_build_forward_order); src/models/gemma4.cpp; PR 30160",
        found="sources of b11434 and b11549; records of b11413 and b11548",
    ),
    Move(
        rule="wanted_before_drafts",
        before=11434,
        first=11548,
        what="the last layer's feed-forward part computes the wanted tokens alone, unless drafts start from all",
        whom="bailingmoe3, cohere2moe, gemma4, gpt-oss, hy_v3, nemotron_h, qwen35, qwen35moe, qwen3next, step35",
        source="src/llama-graph.h, crop_before_nextn",
        found="sources of b11434 and b11549; records of b11413 and b11548",
    ),
    Move(
        rule="glm5_next_drafts",
        before=11434,
        first=11548,
        what="there is a graph of the prediction head, and contexts that keep its rows alone",
        whom="glm5-next",
        source="src/models/glm5-next.cpp, graph_mtp; src/llama-model.cpp, create_memory",
        found="sources of b11434 and b11549; records of b11413 and b11548",
    ),
    Move(
        rule="pools_masked_always",
        before=11434,
        first=11549,
        what="chosen rows are told by a mask alone, never copied",
        whom="glm5-next with n_ubatch up to 16",
        source="src/models/glm5-next.cpp, build_inp_kpool",
        found="sources of b11434 and b11549",
    ),
    Move(
        rule="alone_padded",
        before=11549,
        first=11739,
        what="keys, values and the mask's columns are filled up to multiples of 256 tokens, by copies even "
        "where nothing is missing",
        whom="models that keep nothing: encoders, and diffusion models",
        source="src/llama-graph.cpp, build_attn and build_attn_inp_no_cache (read off the library's code: no package "
        "has the source)",
        found="source of b11549; records of b11548 and b11739",
    ),
    Move(
        rule="bert_positions_first",
        before=11549,
        first=11739,
        what="learned positions are looked up before the embeddings",
        whom="bert",
        source="src/models/bert.cpp (read off the library's code: no package has the source)",
        found="source of b11549; records of b11548 and b11739",
    ),
    Move(
        rule="choice_as_mask",
        before=11549,
        first=11739,
        what="what is chosen is added to the mask in the mask's shape, where both were reshaped to rows of tokens",
        whom="glm5-next",
        source="src/models/glm5-next.cpp, build_kpool_select, build_dsa_layer (read off the library's code: no package "
        "has the source)",
        found="source of b11549; records of b11548 and b11739",
    ),
)  # fmt: skip


@cache
def rules_of(build: int) -> frozenset[Rule]:
    """The rules that hold in a build."""
    return frozenset(move.rule for move in MOVES if move.holds(build))
