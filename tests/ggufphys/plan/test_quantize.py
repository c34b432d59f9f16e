"""The choice of types against llama.cpp's own quantiser: real shapes, every special case, random models."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ggufphys.errors import GGUFError
from ggufphys.gguf.ggml_types import FILE_TYPES, GGMLType
from ggufphys.gguf.writer import TensorSpec, WriteValue, data_bytes, encode_header
from ggufphys.plan.quantize import (
    QuantizeOptions,
    check_conversions,
    choose_types,
    needs_imatrix,
    parse_file_type,
    parse_tensor_type,
    quantize_model,
    quantized_order,
)
from ggufphys.plan.quantize_rules import ATTN_V_GROUPED, LOW_BIT
from ggufphys.plan.quantize_tables import BASE_TYPES
from ggufphys.synth.catalogue import shapes
from ggufphys.synth.tensors import tensor_table
from tests.ggufphys.plan.quantizer import Quantizer

Metadata = Mapping[str, WriteValue]
Dry = Callable[[Metadata, Sequence[TensorSpec], str, QuantizeOptions], dict[str, object]]

# Every name that the rules tell apart, and some that they must not.
GLOBAL_NAMES = (
    "token_embd.weight", "per_layer_token_embd.weight", "position_embd.weight", "token_types.weight",
    "per_layer_model_proj.weight", "output_norm.weight", "mm.a.code_embd.weight", "a.rvq.codebook.0.weight",
    "v.patch_embd.weight", "v.patch_merger.weight", "v.position_embd.weight", "v.rel_pos.weight", "sam.pos_embd.weight",
    "sam.neck.0.weight", "sam.net_2.weight", "v.blk.0.attn_v.weight", "enc.blk.1.attn_v.weight", "rope_freqs.weight",
    "a.b.c", "d2t", "cls.output.weight", "altup_proj.weight", "output.bias",
)  # fmt: skip
LAYER_NAMES = (
    "attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_qkv.weight", "attn_output.weight",
    "ffn_up.weight", "ffn_gate.weight", "ffn_down.weight", "ssm_in.weight",  # ROLES_END
    "attn_q_norm.weight", "attn_q_a.weight", "attn_q_b.weight", "attn_k_b.weight", "attn_v_b.weight", "attn_v.bias",
    "attn_kv_a_mqa.weight", "attn_kv_b.weight", "attn_rel_b.weight", "attn_gate.weight", "cross_attn_v.weight",
    "ffn_gate_inp.weight", "ffn_up_shexp.weight", "ffn_down_shexp.weight", "ffn_gate_tid2eid.weight",
    "ffn_norm.weight", "ffn_down.bias", "laurel_l.weight", "nextn.eh_proj.weight", "hc_attn_fn.weight",
    "ssm_out.weight", "ssm_a", "ssm_conv1d.weight", "ssm_f_a.weight", "ssm_f_b.weight", "ssm_g_a.weight",
    "ssm_g_b.weight", "ssm_beta.weight", "shortconv.conv.weight", "shortconv.in_proj.weight",
    "indexer.k_proj.weight", "indexer.q_proj.weight", "indexer.attn_k.weight", "indexer.attn_q_b.weight",
    "indexer.proj.weight", "indexer_compressor_gate.weight", "indexer_compressor_ape.weight",
    "time_mix_key.weight", "time_mix_first.weight", "time_mix_w0.weight", "time_mix_w1.weight", "time_mix_w2.weight",
    "time_mix_v0.weight", "time_mix_v1.weight", "time_mix_v2.weight", "time_mix_a0.weight", "time_mix_a1.weight",
    "time_mix_a2.weight", "time_mix_g1.weight", "time_mix_g2.weight", "time_mix_decay_w1.weight",
    "time_mix_decay_w2.weight", "time_mix_lerp_fused.weight",
)  # fmt: skip
ROLES_END = 9
EXPERT_NAMES = (
    "ffn_up_exps.weight", "ffn_gate_exps.weight", "ffn_down_exps.weight", "ffn_gate_up_exps.weight", "attn_k_b.weight",
)  # fmt: skip

# Keys that an architecture's loader asks for beside the common ones.
EXTRA_KEYS: Mapping[str, Mapping[str, WriteValue]] = {
    "glm5-next": {
        "attention.key_length_mla": 192, "attention.value_length_mla": 128, "attention.q_lora_rank": 64,
        "attention.kv_lora_rank": 64, "ssm.conv_kernel": 4, "kda.head_dim": 64, "expert_feed_forward_length": 64,
        "expert_shared_count": 1, "attention.indexer.head_count": 2, "attention.indexer.key_length": 32,
        "attention.indexer.top_k": 8, "attention.indexer.kpool": 2, "hyper_connection.count": 4,
        "hyper_connection.sinkhorn_iterations": 1, "hyper_connection.epsilon": 1e-6,
    },
    "bailingmoe3": {
        "attention.key_length_mla": 192, "attention.value_length_mla": 128, "attention.kv_lora_rank": 64,
        "ssm.conv_kernel": 4, "kda.head_dim": 64, "kda.safe_gate": True, "kda.gate_lower_bound": -5.0,
        "expert_feed_forward_length": 64, "expert_shared_count": 1, "leading_dense_block_count": 1,
        "expert_gating_func": 2,
    },
    "nanbeige": {"num_loops": 3},
}  # fmt: skip

# architecture, n_layer, n_head, n_head_kv, n_expert, and why it is here
SPECIAL_MODELS = (
    ("falcon", 60, 64, 1, 0),  # its own rules
    ("mpt", 32, 32, 32, 0),  # no output.weight, fused QKV
    ("llama", 80, 64, 8, 0),  # "70B"
    ("llama", 80, 64, 64, 0),  # "65B": no grouped queries
    ("llama", 80, 64, 8, 8),  # 8 experts: not "70B"
    ("llama-embed", 80, 64, 8, 0),
    ("qwen2", 80, 64, 8, 0),
    ("deci", 80, 64, 8, 0),
    ("olmo", 80, 64, 64, 0),
    ("jais2", 68, 64, 8, 0),
    ("llama", 33, 8, 1, 4),  # few experts: layers by name, V richer
    ("glm5-next", 9, 8, 8, 16),
    ("bailingmoe3", 9, 8, 8, 16),
    ("nanbeige", 12, 8, 2, 0),  # layers looped over
    ("gemma3n", 10, 8, 2, 0),
)


@pytest.fixture(scope="module")
def quantizer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dry]:
    """llama.cpp's quantiser in a child process, asked about header-only files."""
    pytest.importorskip("llama_cpp")
    path = tmp_path_factory.mktemp("quantizer") / "model.gguf"
    with Quantizer() as child:
        written: list[Sequence[TensorSpec]] = []

        def ask(
            metadata: Metadata, tensors: Sequence[TensorSpec], file_type: str, options: QuantizeOptions
        ) -> dict[str, object]:
            if not written or written[0] is not tensors:
                write_hole(path, encode_header(metadata, tensors), tensors)
                written[:] = [tensors]
            return child.ask(path, file_type, options)

        yield ask


def write_hole(path: Path, header: bytes, tensors: Sequence[TensorSpec]) -> None:
    """A file of full length without data."""
    path.write_bytes(header)
    os.truncate(path, len(header) + data_bytes(tensors))


def agrees(
    quantizer: Dry,
    metadata: Metadata,
    tensors: Sequence[TensorSpec],
    file_type: str,
    *,
    has_imatrix: bool = False,
    options: QuantizeOptions | None = None,
) -> None:
    """Assert that llama.cpp and we choose the same types, or both refuse."""
    options = options or QuantizeOptions(has_imatrix=has_imatrix)
    theirs = quantizer(metadata, tensors, file_type, options)
    try:
        chosen = choose_types(quantize_model(metadata), tensors, file_type, options)
    except ValueError:
        ours = None
    else:
        ours = {t.name: ggml_type.name for t, ggml_type in zip(tensors, chosen, strict=True)}

    assert theirs.get("types") == ours, f"{file_type}, {options}: {theirs.get('error')}"


def metadata_of(architecture: str, n_layer: int, n_head: int, n_head_kv: int, n_expert: int) -> Metadata:
    """The least metadata that the loader of the architecture is content with."""
    keys: dict[str, WriteValue] = {
        "context_length": 512,
        "embedding_length": 64 * max(1, n_head),
        "block_count": n_layer,
        "feed_forward_length": 256,
        "attention.head_count": n_head,
        "attention.head_count_kv": n_head_kv,
        "attention.layer_norm_epsilon": 1e-5,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "attention.sliding_window": 256,
        **EXTRA_KEYS.get(architecture, {}),
    }
    if n_expert:
        keys |= {"expert_count": n_expert, "expert_used_count": 1, "expert_feed_forward_length": 64}
    return {
        "general.architecture": architecture,
        "general.file_type": 1,
        **{f"{architecture}.{k}": v for k, v in keys.items()},
    }


def soup(n_layer: int, n_expert: int, *, tied: bool, columns: Sequence[int]) -> list[TensorSpec]:
    """One tensor of every name, rows as long as `columns` says in turn."""
    # what depends on depth does so by role: in deep models few layers have all the names
    names = [*GLOBAL_NAMES]
    for layer in range(n_layer):
        layer_names = LAYER_NAMES if n_layer < 16 or layer % 32 == 0 else LAYER_NAMES[:ROLES_END]
        names += [f"blk.{layer}.{name}" for name in layer_names]
    if not tied:
        names.append("output.weight")
    tensors = [
        TensorSpec(
            name, (columns[i % len(columns)],) if "bias" in name else (columns[i % len(columns)], 8), GGMLType.F16
        )
        for i, name in enumerate(names)
        if n_expert < 2 or not name.startswith(("v.", "enc."))
    ]
    experts = [
        TensorSpec(f"blk.{i}.{name}", (256, 8, n_expert), GGMLType.F16)
        for i in range(n_layer if n_expert else 0)
        for name in EXPERT_NAMES
    ]
    return list({t.name: t for t in tensors + experts}.values())


@pytest.mark.parametrize("name", shapes())
def test_types_of_real_shapes(name: str, quantizer: Dry) -> None:
    """Every tensor of every catalogued model gets llama.cpp's type, for every file type, with and without imatrix."""
    shape = shapes()[name]
    metadata: Metadata = {
        "general.architecture": shape.architecture,
        "general.file_type": 1,
        **{f"{shape.architecture}.{key}": value for key, value in shape.keys.items()},
        f"{shape.architecture}.vocab_size": shape.n_vocab,
    }
    tensors = tensor_table(shape)
    for file_type in BASE_TYPES:
        for has_imatrix in (False, True):
            agrees(quantizer, metadata, tensors, file_type, has_imatrix=has_imatrix)


@pytest.mark.parametrize("special", SPECIAL_MODELS, ids=lambda m: "-".join(map(str, m)))
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_types_of_special_models(special: tuple[str, int, int, int, int], tied: bool, quantizer: Dry) -> None:
    """Architectures and sizes with rules of their own agree on every name that any rule tells apart."""
    architecture, n_layer, n_head, n_head_kv, n_expert = special
    metadata = metadata_of(architecture, n_layer, n_head, n_head_kv, n_expert)
    tensors = soup(n_layer or 8, n_expert, tied=tied, columns=(256,))
    for file_type in BASE_TYPES:
        agrees(quantizer, metadata, tensors, file_type, has_imatrix=tied)


@pytest.mark.parametrize("columns", [(96,), (100,), (128, 256), (64, 1000, 768)], ids=str)
def test_types_of_odd_rows(columns: tuple[int, ...], quantizer: Dry) -> None:
    """Rows that are no multiple of a type's block get llama.cpp's fallback, or its refusal."""
    metadata = metadata_of("llama", 16, 8, 2, 0)
    for file_type in BASE_TYPES:
        agrees(quantizer, metadata, soup(16, 0, tied=False, columns=columns), file_type, has_imatrix=False)


def test_a_misplaced_expert_is_refused_by_both(quantizer: Dry) -> None:
    """With experts, an FFN tensor outside the layers is refused, as llama.cpp refuses it."""
    metadata = metadata_of("llama", 2, 8, 2, 8)
    tensors = [TensorSpec("blk.2.ffn_down.weight", (256, 8), GGMLType.F16)]

    agrees(quantizer, metadata, tensors, "Q8_0", has_imatrix=False)
    with pytest.raises(ValueError, match=r"'blk\.2\.ffn_down\.weight'.*blk\.0\. to blk\.1\."):
        choose_types(quantize_model(metadata), tensors, "Q8_0")


def test_projectors(quantizer: Dry, tmp_path: Path) -> None:
    """A projector gets llama.cpp's types; in the mixes that ask for its heads llama.cpp aborts and we refuse."""
    metadata = metadata_of("clip", 0, 0, 0, 0)
    tensors = soup(8, 0, tied=True, columns=(256,))
    asking_for_heads = LOW_BIT | set(ATTN_V_GROUPED)
    for file_type in set(BASE_TYPES) - asking_for_heads:
        agrees(quantizer, metadata, tensors, file_type, has_imatrix=False)
    for file_type in asking_for_heads:
        with pytest.raises(ValueError, match="llama-quantize aborts"):
            choose_types(quantize_model(metadata), tensors, file_type)

    path = tmp_path / "model.gguf"
    write_hole(path, encode_header(metadata, tensors), tensors)
    with Quantizer() as child:
        with pytest.raises(AssertionError, match="the quantiser died"):
            child.ask(path, "Q2_K", QuantizeOptions())
        assert child.child.returncode != 0


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_types_of_random_models(data: st.DataObject, quantizer: Dry) -> None:
    """Random depths, heads, experts, names and rows agree."""
    architecture = data.draw(st.sampled_from(("llama", "falcon", "qwen2", "qwen3moe", "mpt", "gemma3", "jais2")))
    n_layer, n_head = data.draw(st.integers(1, 90)), data.draw(st.sampled_from((1, 2, 8, 32)))
    n_head_kv = data.draw(st.sampled_from([n for n in (1, 2, 8, 32) if n <= n_head]))
    n_expert = data.draw(st.sampled_from((0, 2, 4, 8, 64)))
    columns = data.draw(st.lists(st.sampled_from((32, 96, 256, 512, 1000)), min_size=1, max_size=5))
    tensors = soup(n_layer, n_expert, tied=data.draw(st.booleans()), columns=columns)
    start, step = data.draw(st.integers(0, 40)), data.draw(st.integers(1, 7))
    file_type = data.draw(st.sampled_from(list(BASE_TYPES)))

    agrees(
        quantizer,
        metadata_of(architecture, n_layer, n_head, n_head_kv, n_expert),
        tensors[start::step] or tensors,
        file_type,
        has_imatrix=data.draw(st.booleans()),
    )


@pytest.mark.parametrize(
    "options",
    [
        QuantizeOptions(pure=True),
        QuantizeOptions(pure=True, has_imatrix=True),
        QuantizeOptions(leave_output_tensor=True),
        QuantizeOptions(output_tensor_type=GGMLType.Q8_0, token_embedding_type=GGMLType.F16),
        QuantizeOptions(tensor_types=((r"attn_v", GGMLType.Q8_0), (r"ffn_(up|gate)", GGMLType.Q4_0))),
        QuantizeOptions(
            tensor_types=((r"blk\.[01]\.ffn", GGMLType.F16), ("per_layer", GGMLType.Q5_0), ("output", GGMLType.F32)),
            token_embedding_type=GGMLType.Q4_K, pure=True,
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_options(options: QuantizeOptions, tied: bool, quantizer: Dry) -> None:
    """Options that name types, and those that keep a mix or a tensor out, give llama.cpp's types."""
    metadata = metadata_of("llama", 16, 8, 2, 0)
    tensors = soup(16, 0, tied=tied, columns=(256, 512, 32))
    # the embedding's and the output's rows must fit what is asked for them
    tensors = [TensorSpec(t.name, (256, 8), t.ggml_type) if "embd" in t.name else t for t in tensors]
    for file_type in BASE_TYPES:
        agrees(quantizer, metadata, tensors, file_type, options=options)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_options(data: st.DataObject, quantizer: Dry) -> None:
    """Random options on a mixture of experts agree."""
    types = st.sampled_from((GGMLType.Q8_0, GGMLType.Q4_K, GGMLType.IQ4_NL, GGMLType.Q2_K, GGMLType.F16, GGMLType.BF16))
    patterns = st.sampled_from(("attn", "ffn_down", "exps", r"blk\.[0-3]\.", "embd", "output", "_v", "weight$"))
    options = QuantizeOptions(
        has_imatrix=data.draw(st.booleans()),
        leave_output_tensor=data.draw(st.booleans()),
        pure=data.draw(st.booleans()),
        output_tensor_type=data.draw(st.none() | types),
        token_embedding_type=data.draw(st.none() | types),
        tensor_types=tuple(data.draw(st.lists(st.tuples(patterns, types), max_size=3))),
    )
    tensors = soup(8, 4, tied=data.draw(st.booleans()), columns=(256,))
    metadata = metadata_of(data.draw(st.sampled_from(("llama", "qwen3moe"))), 8, 8, 2, 4)

    agrees(quantizer, metadata, tensors, data.draw(st.sampled_from(list(BASE_TYPES))), options=options)


def test_rows_must_fit_a_type_asked_for() -> None:
    """llama-quantize aborts where rows are no multiple of the block asked for an embedding: refused by name."""
    model = quantize_model(metadata_of("llama", 1, 8, 2, 0))
    tensors = [TensorSpec("token_embd.weight", (288, 8), GGMLType.F16)]
    with pytest.raises(ValueError, match=r"aborts at tensor 'token_embd\.weight'.*288.*Q4_K"):
        choose_types(model, tensors, "Q8_0", QuantizeOptions(token_embedding_type=GGMLType.Q4_K))


@pytest.mark.parametrize("ggml_type", [GGMLType.Q8_0, GGMLType.Q8_1, GGMLType.I32, GGMLType.F32, GGMLType.BF16])
@pytest.mark.parametrize("allow", [False, True])
def test_conversions(ggml_type: GGMLType, allow: bool, tmp_path: Path) -> None:
    """What llama.cpp converts we allow, what it refuses we refuse: requantising, integers, types without a way back."""
    pytest.importorskip("llama_cpp")
    tensors = [TensorSpec("token_embd.weight", (256, 8), ggml_type)]
    metadata = metadata_of("llama", 1, 8, 2, 0)
    source = tmp_path / "source.gguf"
    write_hole(source, encode_header(metadata, tensors), tensors)
    options = QuantizeOptions(allow_requantize=allow)
    with Quantizer() as child:
        answer = child.ask(source, "Q4_0", options, output=tmp_path / "out.gguf")
    types = choose_types(quantize_model(metadata), tensors, "Q4_0", options)
    try:
        check_conversions(tensors, types, options)
    except ValueError:
        assert "error" in answer
    else:
        assert "types" in answer


def test_a_type_already_there_is_copied() -> None:
    """A quantised tensor that keeps its type is no requantising."""
    tensors = [TensorSpec("blk.0.attn_q.weight", (256, 8), GGMLType.Q4_0)]

    check_conversions(tensors, [GGMLType.Q4_0], QuantizeOptions())


def test_types_by_name() -> None:
    """Types are read in any case; those that nothing is quantised to are refused with the others listed."""
    assert parse_tensor_type("q4_k") is GGMLType.Q4_K
    with pytest.raises(ValueError, match=r"'q8_k'.*IQ2_S"):
        parse_tensor_type("q8_k")
    with pytest.raises(ValueError, match=r"'\(' is not a regular expression"):
        QuantizeOptions(tensor_types=(("(", GGMLType.Q8_0),))


def test_order_given_does_not_matter() -> None:
    """Types come back in the order given and do not depend on it."""
    model = quantize_model(metadata_of("llama", 16, 8, 2, 0))
    tensors = soup(16, 0, tied=False, columns=(256,))
    backwards = tensors[::-1]

    assert choose_types(model, tensors, "Q4_K_M") == choose_types(model, backwards, "Q4_K_M")[::-1]


def test_order_of_the_output() -> None:
    """llama-quantize writes tensors without a layer first, then layer by layer, each in the order of names."""
    names = ["blk.10.attn_v.weight", "output.weight", "blk.2.ffn_up.weight", "blk.2.attn_q.weight", "a.weight"]

    assert quantized_order(names) == [
        "a.weight",
        "output.weight",
        "blk.2.attn_q.weight",
        "blk.2.ffn_up.weight",
        "blk.10.attn_v.weight",
    ]


def test_file_types_by_name() -> None:
    """Names are read in any case, aliases resolved, unknown ones refused with the known ones listed."""
    assert [parse_file_type(t) for t in ("q4_k_m", "Q4_K", "bf16")] == ["Q4_K_M", "Q4_K_M", "BF16"]
    with pytest.raises(ValueError, match=r"'NVFP4' .*Q4_K_M"):
        parse_file_type("NVFP4")


def test_every_file_type_is_known() -> None:
    """Every file type of llama.cpp has a base type, but the one that only converters make."""
    assert set(FILE_TYPES.values()) - set(BASE_TYPES) == {"NVFP4"}


def test_needs_imatrix() -> None:
    """Very low-bit tensors need an importance matrix, embeddings and output never."""
    assert needs_imatrix("blk.0.ffn_up.weight", GGMLType.IQ2_XXS, "IQ2_XXS")
    assert needs_imatrix("blk.0.ffn_up.weight", GGMLType.Q2_K, "Q2_K_S")
    assert not needs_imatrix("blk.0.ffn_up.weight", GGMLType.Q2_K, "Q2_K")
    assert not needs_imatrix("token_embd.weight", GGMLType.Q2_K, "Q2_K_S")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "general.architecture is missing"),
        ({"general.architecture": "llama"}, r"'llama\.block_count' is missing"),
        ({"general.architecture": "llama", "llama.block_count": "two"}, "'two', expected an integer"),
        ({"general.architecture": "llama", "llama.block_count": 2, "llama.expert_count": True}, "expected an integer"),
    ],
)
def test_unusable_metadata(metadata: Metadata, message: str) -> None:
    """What the choice depends on is named when it is missing or of the wrong type."""
    with pytest.raises(GGUFError, match=message):
        quantize_model(metadata)


def test_unknown_tensor_type() -> None:
    """A tensor of a type that llama.cpp does not know is refused by name."""

    class Odd:
        name, ne, ggml_type = "a.weight", (256, 8), 99

    model = quantize_model(metadata_of("llama", 1, 8, 2, 0))
    with pytest.raises(ValueError, match=r"'a\.weight'.*99"):
        choose_types(model, [Odd()], "Q4_0")
