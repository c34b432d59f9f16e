"""LoRA adapters of every weight put the nodes into a graph that llama.cpp puts there, for every architecture."""

from pathlib import Path

from ggufphys import Params, open_gguf
from ggufphys.arch import read_hparams, rule_for
from ggufphys.arch.scales import PLAIN
from ggufphys.context import resolve
from ggufphys.gguf import GGMLType
from ggufphys.gguf.writer import TensorSpec, WriteValue
from ggufphys.graph.allocating.layout import Layouts
from ggufphys.graph.batch import Batch
from ggufphys.graph.models import MODELS
from ggufphys.memory.attachments.lora import adapters_of, check_pairs, lora_pairs
from tests import archs, graph_oracle
from tests.ggufphys.graph.test_models import CELLS_IN_USE, N_TOKENS
from tests.ggufphys.graph.test_scales import FIRST
from tests.ggufphys.models import write_model

PARAMS = Params(n_ctx=512, n_ubatch=64, use_extra_bufts=False, flash_attn="on")
RANK = 2
LOOKED_UP = "token_embd.weight"  # whose pair is the other way round, so that llama.cpp dies if it multiplies with it


def test_known_architectures() -> None:
    """The table names no architecture without a graph."""
    assert PLAIN.keys() <= MODELS.keys()


def test_nodes(tmp_path: Path) -> None:
    """Where a product is plain in llama.cpp's builder, an adapter of its weight changes nothing; elsewhere it does."""
    paths = [tmp_path / f"{i}.gguf" for i in range(len(FIRST))]
    loras = [tmp_path / f"{i}-lora.gguf" for i in range(len(FIRST))]
    for name, path, lora in zip(FIRST, paths, loras, strict=True):
        archs.write(path, name, archs.records()[name].tensors)
        write_adapter(lora, name)

    theirs = graph_oracle.llama_graphs(paths, PARAMS, N_TOKENS, loras)

    ours = [our_nodes(path, lora) for path, lora in zip(paths, loras, strict=True)]
    assert [name for name, nodes in zip(FIRST, theirs, strict=True) if nodes is None] == []
    pairs = [(name, a, b or []) for name, a, b in zip(FIRST, ours, theirs, strict=True)]
    assert {name: found for name, a, b in pairs if (found := graph_oracle.first_difference(a, b))} == {}


def write_adapter(path: Path, name: str) -> None:
    """A pair for every matrix that llama.cpp loads, but for an embedding that it would multiply with."""
    model, tensors = archs.models()[name], archs.records()[name].tensors
    n_layer, n_head = (model.metadata.get(f"{model.arch}.{key}", 0) for key in ("block_count", "nextn_predict_layers"))
    assert isinstance(n_layer, int)
    assert isinstance(n_head, int)
    skipped = [f"blk.{il}." for il in range(n_layer - n_head, n_layer)]
    if not any(t.name == "output.weight" for t in tensors):
        skipped.append(LOOKED_UP)
    pairs = []
    for t in tensors:
        if len(t.ne) < 2 or not t.name.endswith(".weight") or "norm" in t.name or t.name.startswith(tuple(skipped)):
            continue
        n_in, n_out, *experts = t.ne
        a, b = ((RANK, n_out), (RANK, n_in)) if t.name.endswith(LOOKED_UP) else ((n_in, RANK), (RANK, n_out))
        for half, ne in (("a", a), ("b", b)):
            pairs.append(TensorSpec(f"{t.name}.lora_{half}", (*ne, *experts), GGMLType.F32))
    keys: dict[str, WriteValue] = {
        "general.type": "adapter", "general.architecture": model.arch, "adapter.type": "lora",
        "adapter.lora.alpha": float(RANK),
    }  # fmt: skip
    write_model(path, keys, pairs)


def our_nodes(path: Path, lora: Path) -> list[graph_oracle.Node]:
    """Our graph for a first batch."""
    with open_gguf(path) as gguf, open_gguf(lora) as adapter:
        check_pairs(adapter, lora_pairs(adapter), gguf)
        h, rule = read_hparams(gguf), rule_for(gguf.architecture)
        n_outputs = 1 if any(rule.layers(h)) else N_TOKENS
        batch = Batch(n_tokens=N_TOKENS, n_seqs=1, n_outputs=n_outputs, n_kv=CELLS_IN_USE, n_enc=N_TOKENS)
        context = resolve(
            PARAMS, n_ctx_train=h.n_ctx_train, causal_attn=h.causal_attn, flash_attn_possible=rule.flash_attn
        )
        return graph_oracle.our_nodes(Layouts(gguf, h, rule, adapters_of([adapter])).graph(context, batch))
