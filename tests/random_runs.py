"""Random models and random ways of running them: shapes, types and parameters that no record has.

What a model or a way is depends on the generator that is given alone, so that a seed names it.
"""

import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final, get_args

from ggufphys.gguf import GGMLType, open_gguf
from ggufphys.gguf.ggml_types import SIZES
from ggufphys.gguf.writer import TensorSpec, WriteValue, encode_header
from ggufphys.loads.check import reasons
from ggufphys.loads.refusal import Refusal
from ggufphys.loads.table import EVERY, GLOBAL, Branch, Read, Statement, statements
from ggufphys.params import CACHE_TYPES, Device, Params, Pooling
from tests import archs, variants
from tests.load_changes import Draft, read_draft

MENDS: Final = 12  # how often tensors are made to fit the keys
TYPES: Final = (
    "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ1_S",
    "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0", "MXFP4", "NVFP4",
)  # fmt: skip
MISSING: Final = "a tensor that this architecture needs is missing"
SHAPE: Final = "the tensor has another shape than llama.cpp wants"
LEFT_OVER: Final = "a tensor that this architecture does not load"


def random_model(name: str, rng: random.Random) -> Draft | None:
    """A model like the recorded one in other sizes and types; None where its keys cannot be had together."""
    model = archs.models()[name]
    metadata = dict(model.metadata)
    changes = [change for change in CHANGES if rng.random() < CHANGES[change]]
    for key in changes:
        _change(metadata, model.arch, key, rng)
    if rng.random() < 0.5:
        for _ in range(rng.choice((1, 1, 2, 3))):
            _change_any(metadata, model.arch, rng)
    tensors = {t.name: t for t in archs.records()[name].tensors}
    if rng.random() < 0.3:
        tensors.pop("output.weight", None)
    if rng.random() < 0.3:
        _other_tensors(name, tensors, rng)
    if not _fit(metadata, tensors):
        return None
    style = rng.choice(("as recorded", "one", "mixed", "mixed"))
    one = rng.choice(TYPES)
    for tensor in tensors.values():
        wanted = one if style == "one" else rng.choice(TYPES)
        if style == "as recorded" or not variants.PRODUCTS.fullmatch(tensor.name):
            continue
        ggml_type = GGMLType[wanted]
        if tensor.ne[0] % SIZES[ggml_type].block_size == 0:
            tensors[tensor.name] = replace(tensor, ggml_type=ggml_type)
    return Draft(name, _typed(metadata, tensors.values()), tuple(sorted(tensors.values(), key=variants.file_order)))


def random_adapter(draft: Draft, rng: random.Random) -> Draft:
    """A LoRA adapter for some of the model's weights."""
    rank, ggml_type = rng.choice((1, 2, 3, 8, 16, 64, 200)), rng.choice((GGMLType.F32, GGMLType.F32, GGMLType.F16))
    share = rng.choice((0.1, 0.5, 1.0))
    tensors: list[TensorSpec] = []
    for weight in draft.tensors:
        if not variants.PRODUCTS.fullmatch(weight.name) or len(weight.ne) < 2 or rng.random() > share:
            continue
        n_in, n_out, *experts = weight.ne
        if weight.name == "token_embd.weight":  # looked up: a row of `a` for each token
            n_in, n_out = n_out, n_in
        tensors.append(TensorSpec(f"{weight.name}.lora_a", (n_in, rank, *experts), ggml_type))
        tensors.append(TensorSpec(f"{weight.name}.lora_b", (rank, n_out, *experts), ggml_type))
    keys: dict[str, WriteValue] = {
        "general.type": "adapter", "general.architecture": archs.models()[draft.name].arch, "adapter.type": "lora",
        "adapter.lora.alpha": 16.0,
    }  # fmt: skip
    return Draft(draft.name, _typed(keys, tensors), tuple(tensors))


def reshaped(name: str, changes: Mapping[str, WriteValue]) -> Draft | None:
    """The recorded model with other keys, its tensors of the shapes that these ask for."""
    metadata = {**archs.models()[name].metadata, **changes}
    tensors = {t.name: t for t in archs.records()[name].tensors}
    if not _fit(metadata, tensors):
        return None
    return Draft(name, _typed(metadata, tensors.values()), tuple(sorted(tensors.values(), key=variants.file_order)))


def _typed(metadata: Mapping[str, WriteValue], tensors: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.gguf")
        path.write_bytes(encode_header(metadata, list(tensors)))
        return read_draft(path).metadata


# How often each key is changed.
CHANGES: Final[Mapping[str, float]] = {
    "block_count": 0.3, "vocab_size": 0.5, "embedding_length": 0.3, "feed_forward_length": 0.4,
    "attention.head_count": 0.4, "attention.head_count_kv": 0.5, "attention.key_length": 0.3,
    "attention.value_length": 0.2, "expert_count": 0.3, "expert_used_count": 0.3, "expert_feed_forward_length": 0.3,
    "attention.sliding_window": 0.4, "expert_shared_count": 0.2, "context_length": 0.3,
    "expert_shared_feed_forward_length": 0.2, "ssm.conv_kernel": 0.2, "ssm.state_size": 0.2, "ssm.group_count": 0.2,
    "ssm.inner_size": 0.1, "ssm.time_step_rank": 0.1, "attention.causal": 0.03, "pooling_type": 0.05,
    "rope.scaling.type": 0.1, "attention.kv_lora_rank": 0.1, "leading_dense_block_count": 0.2,
}  # fmt: skip
_CHOICES: Final[Mapping[str, Sequence[Any]]] = {
    "block_count": (1, 2, 3, 4, 5, 6, 8, 13),
    "vocab_size": (1, 2, 31, 32, 257, 304, 512, 1000, 4096, 33000),
    "embedding_length": (32, 64, 96, 128, 160, 192, 320, 384, 512, 768),
    "feed_forward_length": (1, 32, 48, 64, 100, 256, 512, 770, 1024),
    "attention.head_count": (1, 2, 3, 4, 5, 6, 7, 8, 12, 16),
    "attention.head_count_kv": (1, 2, 3, 4, 6, 8),
    "attention.key_length": (16, 24, 32, 40, 64, 72, 80, 96, 112, 128, 192, 256, 576),
    "attention.value_length": (16, 24, 32, 40, 64, 72, 80, 96, 112, 128, 192, 256, 512),
    "expert_count": (0, 1, 2, 3, 5, 8, 16, 64),
    "expert_used_count": (1, 2, 3, 4, 8),
    "expert_feed_forward_length": (32, 64, 100, 256),
    "expert_shared_feed_forward_length": (32, 64, 100, 256),
    "expert_shared_count": (0, 1, 2, 3),
    "attention.sliding_window": (0, 1, 32, 255, 256, 512, 1024, 5000),
    "context_length": (1, 128, 300, 512, 2048, 32768),
    "ssm.conv_kernel": (2, 3, 4, 8),
    "ssm.state_size": (16, 32, 64, 128),
    "ssm.group_count": (1, 2, 4, 8),
    "ssm.inner_size": (128, 256, 320, 512, 1024),
    "ssm.time_step_rank": (1, 2, 4, 8, 16),
    "attention.causal": (False, True),
    "pooling_type": (0, 1, 2, 3, 4),
    "rope.scaling.type": ("none", "linear", "yarn", "longrope"),
    "attention.kv_lora_rank": (32, 64, 128, 512),
    "leading_dense_block_count": (0, 1, 2, 3),
}
_BY_LAYER: Final = ("attention.head_count", "attention.head_count_kv", "feed_forward_length")
_NEW: Final = ("pooling_type", "rope.scaling.type", "attention.key_length", "attention.value_length")


def _change(metadata: dict[str, WriteValue], arch: str, key: str, rng: random.Random) -> None:
    full = f"{arch}.{key}"
    if full not in metadata and key not in _NEW:
        return
    value = rng.choice(_CHOICES[key])
    n_layer = metadata.get(f"{arch}.block_count")
    old = metadata.get(full)
    if key == "block_count":
        for other, given in metadata.items():
            if isinstance(given, list) and len(given) == old:
                metadata[other] = [given[il % len(given)] for il in range(value)]
    heads = metadata.get(f"{arch}.attention.head_count")
    if key == "attention.head_count_kv" and isinstance(heads, int) and rng.random() < 0.8:
        value = rng.choice([n for n in range(1, heads + 1) if heads % n == 0])
    if isinstance(old, list) and key != "block_count":
        value = [value if given else 0 for given in old]
    elif key in _BY_LAYER and isinstance(n_layer, int) and rng.random() < 0.1:
        value = [rng.choice(_CHOICES[key]) for _ in range(n_layer)]
    metadata[full] = value


def _change_any(metadata: dict[str, WriteValue], arch: str, rng: random.Random) -> None:
    """Set, or take away, any key that the architecture's loader reads."""
    read = rng.choice(_reads(arch))
    full = read.key if read.key.startswith(GLOBAL) else f"{arch}.{read.key}"
    n_layer = metadata.get(f"{arch}.block_count")
    if read.how in ("str", "str[]", "i32[]", "count") or read.key == "block_count":
        return
    old = metadata.get(full)
    if old is not None and not read.required and rng.random() < 0.2:
        del metadata[full]
        return
    n = len(old) if isinstance(old, list) else n_layer if isinstance(n_layer, int) else 1
    whole = (0, 1, 2, 3, 4, 5, 8, 16, 24, 32, 48, 64, 100, 128, 256)
    near = tuple(v for v in (old - 1, old + 1, old * 2, old // 2) if v >= 0) if type(old) is int else ()

    def value() -> Any:
        if read.how == "bool":
            return rng.random() < 0.5
        return rng.choice((0.0, 0.5, 1.0, 2.0, 30.0)) if read.how.startswith("f32") else rng.choice(near or whole)

    as_list = isinstance(old, list) or "[" in read.how or ("*" in read.how and rng.random() < 0.2)
    metadata[full] = [value() for _ in range(n)] if as_list and n else value()


@cache
def _reads(arch: str) -> Sequence[Read]:
    def inside(lines: Sequence[Statement]) -> Iterator[Read]:
        for line in lines:
            if isinstance(line, Read):
                yield line
            elif isinstance(line, Branch):
                yield from inside(line.then)
                yield from inside(line.otherwise)

    return [*inside(statements(EVERY)), *list(inside(statements(arch))) * 3]


def _other_tensors(name: str, tensors: dict[str, TensorSpec], rng: random.Random) -> None:
    """Tensors of a kind are missing, in one layer or in all; others are there that may be."""
    by_stem = variants.by_stem(tensors)
    for stem in rng.sample(sorted(by_stem), min(len(by_stem), rng.choice((0, 1, 2, 5)))):
        for missing in by_stem[stem] if rng.random() < 0.7 else rng.sample(by_stem[stem], 1):
            tensors.pop(missing, None)
    known = [v for v in variants.records() if v.name == name and v.more]
    for variant in rng.sample(known, min(len(known), rng.choice((0, 1, 3)))):
        tensors.update({t.name: t for t in variant.more})


def _fit(metadata: Mapping[str, WriteValue], tensors: dict[str, TensorSpec]) -> bool:
    """Give the tensors the shapes that the keys ask for; False where something else is wrong."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.gguf")
        for _ in range(MENDS):
            try:
                path.write_bytes(encode_header(metadata, sorted(tensors.values(), key=variants.file_order)))
            except ValueError:
                return False
            with open_gguf(path) as gguf:
                found = reasons(gguf)
            if not found:
                return True
            if not all(_mend(refusal, tensors) for refusal in found):
                return False
    return False


def _mend(refusal: Refusal, tensors: dict[str, TensorSpec]) -> bool:
    if refusal.what == LEFT_OVER:
        return tensors.pop(refusal.where, None) is not None
    if refusal.what not in (MISSING, SHAPE):
        return False
    shape = tuple(int(n) for n in refusal.expected.split(" x "))
    old = tensors.get(refusal.where) or _like(refusal.where, tensors)
    ggml_type = old.ggml_type if old else GGMLType.F32
    if not shape or min(shape) < 1:
        return False
    if shape[0] % SIZES[ggml_type].block_size:
        ggml_type = GGMLType.F16
    tensors[refusal.where] = TensorSpec(refusal.where, shape, ggml_type)
    return True


def _like(name: str, tensors: Mapping[str, TensorSpec]) -> TensorSpec | None:
    stem = variants.stem_of(name)
    return next((t for t in tensors.values() if variants.stem_of(t.name) == stem), None)


def random_params(rng: random.Random, devices: Sequence[Device] = ()) -> Params:
    """One way of running a model, with some of the devices."""
    while True:
        try:
            return Params.from_json(_fields(rng, devices))
        except ValueError:
            continue


def _fields(rng: random.Random, devices: Sequence[Device]) -> dict[str, Any]:
    def sometimes(share: float, *choices: Any, default: Any) -> Any:
        return rng.choice(choices) if rng.random() < share else default

    types = tuple(CACHE_TYPES)
    no_alloc = rng.random() < 0.5
    fields: dict[str, Any] = {
        "n_ctx": sometimes(0.95, 1, 100, 257, 511, 777, 1000, 2048, 3001, 4096, 5000, 9999, 40000, default=0),
        "n_batch": sometimes(0.5, 1, 7, 33, 100, 255, 513, 1000, 2048, 4000, default=2048),
        "n_ubatch": sometimes(0.6, 0, 1, 3, 17, 65, 100, 256, 500, 777, 1024, 4096, default=512),
        "n_seq_max": sometimes(0.5, 2, 3, 4, 5, 7, 8, 13, 16, 33, 64, 256, default=1),
        "n_outputs_max": sometimes(0.3, 1, 2, 5, 16, 64, 100, default=0),
        "kv_unified": rng.random() < 0.4,
        "swa_full": rng.random() < 0.3,
        "type_k": sometimes(0.4, *types, default="f16"),
        "type_v": sometimes(0.4, *types, default="f16"),
        "flash_attn": rng.choice(("auto", "auto", "on", "off")),
        "offload_kqv": rng.random() < 0.8,
        "op_offload": rng.random() < 0.8,
        "embeddings": rng.random() < 0.3,
        "pooling": sometimes(0.5, *get_args(Pooling), default="model"),
        "n_rs_seq": sometimes(0.1, 1, 3, 8, default=0),
        "use_extra_bufts": rng.random() < 0.5,
        "use_mmap": not no_alloc and rng.random() < 0.5,
        "no_alloc": no_alloc,
        "run_as": "library",
    }
    if rng.random() < 0.1:
        fields["load_mtp"], fields["ctx_type"] = True, rng.choice(("mtp", "mtp", "default"))
    if rng.random() < 0.1:
        pattern = rng.choice(("exps", "attn_k", "ffn_(up|down)", r"blk\.[01]\.", "token_embd", "output", "norm", "."))
        fields["override_tensor"] = [[pattern, "CPU"]]
    if devices and rng.random() < 0.3:
        used = devices[: rng.randint(1, len(devices))]
        names = ["CPU", *(d.name for d in used)]
        fields["devices"] = [{"name": d.name, "memory_bytes": d.memory_bytes} for d in used]
        fields["n_gpu_layers"] = rng.choice((-1, 0, 1, 2, 3, 99))
        fields["tensor_split"] = rng.choice(((), (1.0, 3.0), (0.0, 1.0), (5.0, 1.0), (1.0, 0.0)))[: len(used)]
        fields["split_mode"] = rng.choice(("layer", "layer", "layer", "none", "row"))
        fields["main_gpu"] = rng.randrange(len(used))
        if rng.random() < 0.3:
            pattern = rng.choice(("exps", "attn_k", "ffn_(up|down)", r"blk\.[01]\.", "token_embd", "output", "norm"))
            fields["override_tensor"] = [[pattern, rng.choice(names)]]
        fields["n_cpu_moe"] = rng.choice((0, 0, 1, 2))
        fields["no_host"] = rng.random() < 0.2
    return fields
