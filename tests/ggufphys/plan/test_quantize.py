"""The choice of types against llama.cpp's own quantiser: real shapes, every special case, random models."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ggufphys.gguf.ggml_types import GGMLType
from ggufphys.gguf.writer import TensorSpec, encode_header
from ggufphys.plan.quantize import (
    QuantizeOptions,
    choose_types,
    quantize_model,
)
from ggufphys.plan.quantize_rules import ATTN_V_GROUPED, LOW_BIT
from ggufphys.plan.quantize_tables import BASE_TYPES
from ggufphys.synth.catalogue import shapes
from ggufphys.synth.tensors import tensor_table
from tests.ggufphys.plan.quantize_models import Metadata, metadata_of, soup, write_hole
from tests.ggufphys.plan.quantizer import Quantizer

Dry = Callable[[Metadata, Sequence[TensorSpec], str, QuantizeOptions], dict[str, object]]

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
