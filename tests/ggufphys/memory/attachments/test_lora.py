"""What adapters take is llama.cpp's own figure: buffers, and the compute buffer that runs them."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ggufphys import GGUFError, Params, RefusedError, open_gguf
from ggufphys.arch import read_hparams, rule_for
from ggufphys.context import resolve
from ggufphys.frozen import replace
from ggufphys.gguf import GGMLType, GGUFFile
from ggufphys.gguf.values import ValueType
from ggufphys.gguf.writer import TensorSpec, Typed, WriteValue, data_bytes, encode_header
from ggufphys.graph.allocating.layout import Layouts
from ggufphys.graph.devices.placement import place_layers, place_weights
from ggufphys.graph.devices.sizes import host_size
from ggufphys.machine import host
from ggufphys.memory.attachments import Attachments
from ggufphys.memory.attachments.lora import adapters_of, check_pairs, lora_pairs, lora_terms
from ggufphys.memory.attachments.predict import predict_attached
from ggufphys.params import HOST, rpc_device
from tests import archs, attachment_oracle, rpc_worker
from tests.ggufphys.memory.attachments.adapter_files import write_lora
from tests.ggufphys.models import llama_metadata, llama_tensors, tiny_llama, write_model

BASE = Params(n_ctx=512)
MOE = [
    *(t for t in llama_tensors() if ".ffn_" not in t.name or "norm" in t.name),
    *(
        TensorSpec(f"blk.{il}.ffn_{name}.weight", ne, GGMLType.F32 if name == "gate_inp" else GGMLType.F16)
        for il in range(2)
        for name, ne in (
            ("gate_inp", (256, 4)),
            ("gate_exps", (256, 128, 4)),
            ("up_exps", (256, 128, 4)),
            ("down_exps", (128, 256, 4)),
        )
    ),
]


def predicted(base: GGUFFile, params: Params, adapters: list[GGUFFile]) -> tuple[dict[str, int], int]:
    """Bytes of the adapters' buffers by name, and of the compute buffer."""
    h, rule = read_hparams(base), rule_for(base.architecture)
    placement = place_layers(params, h.n_layer_all)
    weights = place_weights(base, params, placement, host.cpu_features())
    buffers: Counter[str] = Counter()
    for adapter in adapters:
        buffers.update({term.buffer: term.nbytes for term in lora_terms(adapter, base, weights)})
    context = resolve(params, n_ctx_train=h.n_ctx_train)
    made = [host_size(Layouts(base, h, rule, a), context).nbytes[HOST] for a in (None, adapters_of(adapters))]
    return dict(buffers), max(made)


@pytest.mark.parametrize("ggml_type", [GGMLType.F16, GGMLType.Q4_0])
@pytest.mark.parametrize("use_mmap", [True, False])
@pytest.mark.parametrize("use_extra_bufts", [True, False])
@pytest.mark.parametrize("n_seq_max", [1, 2])
def test_adapters_against_llama_cpp(
    tmp_path: Path, ggml_type: GGMLType, use_mmap: bool, use_extra_bufts: bool, n_seq_max: int
) -> None:
    """Two adapters of different type, rank and targets: each buffer and the compute buffer, to the byte."""
    tensors = llama_tensors(ggml_type)
    base = write_model(tmp_path / "base.gguf", llama_metadata(), tensors)
    paths = [
        write_lora(tmp_path / "all.gguf", tensors, rank=3),
        write_lora(
            tmp_path / "wide.gguf", tensors, rank=96, ggml_type=GGMLType.F16, names=("blk.1.ffn_", "blk.0.attn_q")
        ),
    ]
    params = replace(BASE, use_mmap=use_mmap, use_extra_bufts=use_extra_bufts, n_seq_max=n_seq_max)
    truth = attachment_oracle.adapters(base, params, paths)
    with open_gguf(base) as gguf:
        buffers, compute = predicted(gguf, params, [open_gguf(path) for path in paths])
    assert buffers == truth["buffers"]
    assert compute == truth["compute"]


@pytest.mark.parametrize("names", [("ffn_", "attn_v"), ("token_embd", "output"), ("ffn_gate_inp",)])
def test_experts_embedding_and_output(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Adapters of experts, of the router, of the output matrix and of the embedding, which is looked up in them."""
    tensors = [*MOE, TensorSpec("output.weight", (256, 512), GGMLType.F16)]
    metadata = llama_metadata(expert_count=4, expert_used_count=2, feed_forward_length=128)
    base = write_model(tmp_path / "base.gguf", metadata, tensors)
    adapted = [t for t in tensors if "norm" not in t.name and t.name != "token_embd.weight"]
    path = write_lora(tmp_path / "lora.gguf", adapted, rank=64, names=names)
    if "token_embd" in names:
        pair = [
            TensorSpec(f"token_embd.weight.lora_{half}", (64, n), GGMLType.F32) for half, n in (("a", 512), ("b", 256))
        ]
        with open_gguf(path) as lora:
            keys = {name: value for name, value in lora.metadata.items() if isinstance(value, str | float)}
            specs = [TensorSpec(t.name, t.ne, GGMLType.F32) for t in lora.tensors]
        write_model(path, dict(keys), [*specs, *pair])
    truth = attachment_oracle.adapters(base, BASE, [path])
    with open_gguf(base) as gguf, open_gguf(path) as lora:
        buffers, compute = predicted(gguf, BASE, [lora])
    assert buffers == truth["buffers"]
    assert compute == truth["compute"]


def test_adapters_follow_their_weights_to_devices(tmp_path: Path) -> None:
    """With half of the model on an RPC worker, each pair lies where its weight does."""
    tensors = llama_tensors(GGMLType.Q4_0)
    base = write_model(tmp_path / "base.gguf", llama_metadata(), tensors)
    path = write_lora(tmp_path / "lora.gguf", tensors, rank=5)
    with rpc_worker.workers(1) as (endpoint,):
        params = replace(BASE, devices=(rpc_device(endpoint, 1 << 34),), n_gpu_layers=2)
        truth = attachment_oracle.adapters(base, params, [path])
    with open_gguf(base) as gguf, open_gguf(path) as lora:
        weights = place_weights(gguf, params, place_layers(params, 2), host.cpu_features())
        terms = lora_terms(lora, gguf, weights)
    assert len(terms) == 2
    assert {term.buffer: term.nbytes for term in terms} == truth["buffers"]


def test_without_a_model_all_is_on_the_cpu(tmp_path: Path) -> None:
    """An adapter by itself: the bytes it takes wherever all is padded alike, norms left out as llama.cpp does."""
    tensors = [*llama_tensors(), TensorSpec("blk.0.attn_norm.weight.ignored_norm.weight", (256,), GGMLType.F32)]
    path = write_lora(
        tmp_path / "lora.gguf",
        tensors,
        rank=4,
        more={"adapter.alora.invocation_tokens": Typed((1, 2), ValueType.UINT32)},
    )
    with open_gguf(path) as lora:
        (term,) = lora_terms(lora)
        assert (term.buffer, term.quantity) == ("CPU", "attachment")
        assert term.nbytes == sum(-(-(t.nbytes or 0) // 32) * 32 for t in lora.tensors)
        assert {(pair.a.ne[1], pair.b.ne[0]) for pair in lora_pairs(lora)} == {(4, 4)}


def test_an_adapter_of_a_head_that_is_not_loaded(tmp_path: Path) -> None:
    """llama.cpp leaves out exaone4's prediction head, and finds no weight of that name: refused, with the name."""
    model = tmp_path / "head.gguf"
    model.write_bytes(archs.header("exaone4/head"))
    tensors = archs.records()["exaone4/head"].tensors
    path = write_lora(tmp_path / "lora.gguf", tensors, arch="exaone4", names=("attn_output",))
    with open_gguf(model) as gguf, open_gguf(path) as lora, pytest.raises(ValueError, match=r"blk\.3\..*not load"):
        predict_attached(gguf, BASE, Attachments(loras=(lora,)))


def test_refusals_name_what_does_not_fit(tmp_path: Path) -> None:
    """Each file that llama.cpp refuses is refused, with the tensor, the architecture or the shape at fault."""
    base = tiny_llama(tmp_path / "base.gguf")
    good = llama_tensors()

    def pairs_of(path: Path) -> None:
        with open_gguf(base) as gguf, open_gguf(path) as lora:
            check_pairs(lora, lora_pairs(lora), gguf)

    with pytest.raises(ValueError, match="of kind 'model', expected a LoRA adapter"):
        pairs_of(base)
    with pytest.raises(ValueError, match="adapter.type is 'ia3'"):
        pairs_of(write_lora(tmp_path / "ia3.gguf", good, more={"adapter.type": "ia3"}))
    with pytest.raises(ValueError, match="an adapter for 'qwen2', but the model is 'llama'"):
        pairs_of(write_lora(tmp_path / "arch.gguf", good, arch="qwen2"))
    with pytest.raises(ValueError, match="changes blk.7.attn_q.weight, which the model has not"):
        pairs_of(write_lora(tmp_path / "more.gguf", [TensorSpec("blk.7.attn_q.weight", (256, 256), GGMLType.F16)]))
    with pytest.raises(ValueError, match="does not fit the model's"):
        pairs_of(write_lora(tmp_path / "shape.gguf", [TensorSpec("blk.0.attn_q.weight", (256, 128), GGMLType.F16)]))
    half = [TensorSpec("blk.0.attn_q.weight.lora_a", (256, 8), GGMLType.F32)]
    keys = {"general.type": "adapter", "general.architecture": "llama", "adapter.type": "lora"}
    with pytest.raises(GGUFError, match=r"lora_b is missing"):
        pairs_of(write_model(tmp_path / "half.gguf", dict(keys), half))
    with pytest.raises(GGUFError, match="ends neither in"):
        pairs_of(write_model(tmp_path / "odd.gguf", dict(keys), [TensorSpec("x.weight", (32, 2), GGMLType.F32)]))


@pytest.mark.parametrize(
    ("base", "weight", "a", "b", "words"),
    [
        ("gpt2", "token_embd.weight", ((5, 300), GGMLType.F32), ((4, 256), GGMLType.F32), "MUL_MAT"),
        ("llama/moe", "blk.1.attn_q.weight", ((256, 4), GGMLType.F32), ((4, 256, 2), GGMLType.F32), "MUL_MAT"),
        ("llama/moe", "blk.1.attn_q.weight", ((256, 4), GGMLType.I32), ((4, 256), GGMLType.F32), "lora_a is I32"),
        ("llama/moe", "blk.1.attn_q.weight", ((256, 4), GGMLType.F32), ((4, 256), GGMLType.F64), "lora_b is F64"),
        ("llama/moe", "blk.1.ffn_up_exps.weight", ((256, 4), GGMLType.F16), ((4, 320, 4), GGMLType.F16), "expected 4"),
    ],
)
def test_pairs_that_end_llama_cpp(tmp_path: Path, base: str, weight: str, a: Any, b: Any, words: str) -> None:
    """Pairs that llama.cpp loads and could not compute with are refused: ranks, matrices too many, types, experts."""
    model = tmp_path / "base.gguf"
    model.write_bytes(archs.header(base))
    tensors = [TensorSpec(f"{weight}.lora_{half}", *spec) for half, spec in (("a", a), ("b", b))]
    keys = {"general.type": "adapter", "general.architecture": archs.models()[base].arch, "adapter.type": "lora"}
    path = write_model(tmp_path / "lora.gguf", dict(keys), tensors)
    with open_gguf(model) as gguf, open_gguf(path) as lora, pytest.raises(ValueError, match=words):
        predict_attached(gguf, BASE, Attachments(loras=(lora,)))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"adapter.alora.invocation_tokens": [1, 2]}, r"found arr\[i32, 2\], expected arr\[u32\]"),
        ({"adapter.alora.invocation_tokens": 7}, r"found u32, expected arr\[u32\]"),
        ({"general.alignment": Typed(32, ValueType.UINT64)}, "found u64, expected u32"),
    ],
)
def test_keys_of_another_type(tmp_path: Path, more: dict[str, WriteValue], words: str) -> None:
    """Adapters whose keys are of other types than llama.cpp reads are refused as it does, with the reason."""
    base = tiny_llama(tmp_path / "base.gguf")
    path = write_lora(tmp_path / "lora.gguf", llama_tensors(), more=more)
    with open_gguf(base) as gguf, open_gguf(path) as lora, pytest.raises(RefusedError, match=words):
        predict_attached(gguf, BASE, Attachments(loras=(lora,)))
    assert attachment_oracle.adapters(base, BASE, [path]) == {"error": "llama.cpp refuses the adapter"}


def test_a_scale_of_another_type(tmp_path: Path) -> None:
    """An alpha that is no f32 fails an assertion there, and is refused here."""
    with open_gguf(write_lora(tmp_path / "lora.gguf", llama_tensors())) as lora:
        assert lora_terms(lora)
        (shard,) = lora.shards
        types = {**shard.header.value_types, "adapter.lora.alpha": ValueType.UINT32}
        other = replace(lora, shards=(replace(shard, header=replace(shard.header, value_types=types)),))
        with pytest.raises(
            RefusedError, match=r"adapter\.lora\.alpha: .*found u32, expected f32; llama\.cpp would end"
        ):
            lora_terms(other)


@pytest.mark.parametrize(("form", "words"), [({"version": 1}, "GGUF v1"), ({"byte_order": "big"}, "found big")])
def test_files_that_llama_cpp_does_not_read(tmp_path: Path, form: dict[str, Any], words: str) -> None:
    """What would be no GGUF to llama.cpp is refused beside a model as it is by itself."""
    base, path = tiny_llama(tmp_path / "base.gguf"), tmp_path / "lora.gguf"
    specs = [TensorSpec("blk.0.attn_q.weight.lora_a", (256, 8), GGMLType.F32)]
    specs += [TensorSpec("blk.0.attn_q.weight.lora_b", (8, 256), GGMLType.F32)]
    keys = {"general.type": "adapter", "general.architecture": "llama", "adapter.type": "lora"}
    path.write_bytes(encode_header(keys, specs, **form) + bytes(data_bytes(specs)))
    with open_gguf(base) as gguf, open_gguf(path) as lora, pytest.raises(RefusedError, match=words):
        predict_attached(gguf, BASE, Attachments(loras=(lora,)))
    assert attachment_oracle.adapters(base, BASE, [path]) == {"error": "llama.cpp refuses the adapter"}
