"""Which layers have a window and how wide it is, for each kind of rule; and what must hold of the table."""

import re
from pathlib import Path

import pytest

import ggufphys
from ggufphys import GGUFError, Params, UnsupportedError, open_gguf
from ggufphys.arch import RULES, FullKV, WindowKV, read_hparams, rule_for
from ggufphys.context import resolve
from ggufphys.gguf.writer import WriteValue
from ggufphys.hparams.hparams import HParams
from ggufphys.memory.context import context_terms
from tests.ggufphys.models import llama_metadata, llama_tensors, write_model


def hparams(tmp_path: Path, arch: str = "llama", **keys: WriteValue) -> HParams:
    """The hyperparameters of a file with these keys."""
    path = write_model(tmp_path / f"{arch}.gguf", llama_metadata(arch, **keys), llama_tensors())
    with open_gguf(path) as gguf:
        return read_hparams(gguf)


def windows(h: HParams) -> str:
    """`w` for each layer with a window, `F` for each without."""
    return "".join(
        "w" if isinstance(cache, WindowKV) else "F" for layer in rule_for(h.arch).layers(h) for cache in layer
    )


def window_size(h: HParams) -> int:
    """The size of the first window."""
    return next(c.n_swa for layer in rule_for(h.arch).layers(h) for c in layer if isinstance(c, WindowKV))


@pytest.mark.parametrize(
    ("arch", "keys", "pattern"),
    [
        ("llama", {"attention__sliding_window": 64}, "FFFFFFFF"),
        ("phi3", {"attention__sliding_window": 64}, "FFFFFFFF"),
        ("gemma3", {"attention__sliding_window": 64}, "wwwwwFww"),
        ("gemma3", {"attention__sliding_window": 0}, "FFFFFFFF"),
        ("gemma3", {}, "FFFFFFFF"),
        ("gemma3", {"attention__sliding_window": 64, "attention__sliding_window_pattern": 3}, "wwFwwFww"),
        ("gemma3", {"attention__sliding_window": 64, "attention__sliding_window_pattern": [True] * 3}, "wwwFFFFF"),
        ("gemma3", {"attention__sliding_window": 64, "attention__sliding_window_pattern": 0}, "wwwwwwww"),
        ("gemma2", {}, "wFwFwFwF"),
        ("cohere2moe", {"attention__sliding_window": 64}, "FwwwFwww"),
        (
            "step35",
            {"attention__sliding_window": 64, "attention__sliding_window_pattern": [False, True] * 4},
            "FwFwFwFw",
        ),
        ("exaone4", {"attention__sliding_window": 64}, "FFFFFFFF"),
        ("smallthinker", {"attention__sliding_window": 64}, "FwwwFwww"),
        ("llama4", {}, "wwwFwwwF"),
        ("llama4", {"attention__sliding_window": 0}, "FFFFFFFF"),
    ],
)
def test_patterns(tmp_path: Path, arch: str, keys: dict[str, WriteValue], pattern: str) -> None:
    """Windows fall where llama.cpp puts them: by the file's flags, its period, or the source's."""
    assert windows(hparams(tmp_path, arch, block_count=8, **keys)) == pattern


@pytest.mark.parametrize(
    ("arch", "keys", "n_swa"),
    [
        ("gemma3", {"attention__sliding_window": 64}, 64),
        ("gemma2", {}, 4096),
        ("gemma2", {"attention__sliding_window": 64}, 64),
        ("exaone4", {"block_count": 64}, 4096),
        ("exaone4", {"block_count": 64, "attention__sliding_window": 64}, 64),
        ("smallthinker", {"attention__sliding_window": 64}, 4096),
        ("llama4", {"attention__sliding_window": 64}, 8192),
    ],
)
def test_sizes(tmp_path: Path, arch: str, keys: dict[str, WriteValue], n_swa: int) -> None:
    """A window's size is the file's, the source's default, or what the source insists on."""
    assert window_size(hparams(tmp_path, arch, **keys)) == n_swa


@pytest.mark.parametrize(
    ("arch", "keys", "message"),
    [
        ("gpt-oss", {}, "attention.sliding_window' is missing"),
        ("step35", {"attention__sliding_window": 64}, "must be an array with a flag for each layer"),
        ("gemma3", {"attention__sliding_window": 64, "attention__sliding_window_pattern": 1}, "no layer has a window"),
    ],
)
def test_required_keys(tmp_path: Path, arch: str, keys: dict[str, WriteValue], message: str) -> None:
    """A key that llama.cpp requires is named when it is missing."""
    h = hparams(tmp_path, arch, **keys)
    with pytest.raises(GGUFError, match=message):
        rule_for(arch).layers(h)


def test_prediction_heads_keep_nothing(tmp_path: Path) -> None:
    """Layers of the next-token-prediction head have no cache in an ordinary context."""
    h = hparams(tmp_path, "glm4moe", block_count=5, nextn_predict_layers=1)

    assert (h.n_layer, h.n_layer_all) == (4, 5)
    assert windows(h) == "FFFF"


def test_heads_by_layer(tmp_path: Path) -> None:
    """Per-layer head counts give per-layer widths; without flash attention V is padded to the widest."""
    h = hparams(tmp_path, "openelm", block_count=3, attention__head_count=[4, 4, 8], attention__head_count_kv=[1, 2, 4])
    layers = rule_for("openelm").layers(h)
    on = resolve(Params(n_ctx=256, flash_attn="on"), n_ctx_train=256)
    off = resolve(Params(n_ctx=256, flash_attn="off"), n_ctx_train=256)

    assert layers == tuple(
        (FullKV(n_embd_k_gqa=64 * n, n_embd_v_gqa=64 * n, n_embd_v_max=None if n == 4 else 256),) for n in (1, 2, 4)
    )
    assert sum(t.nbytes for t in context_terms(h, rule_for("openelm"), on)) == 256 * 2 * 64 * (7 + 7)
    assert sum(t.nbytes for t in context_terms(h, rule_for("openelm"), off)) == 256 * 2 * 64 * (7 + 3 * 4)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"block_count": 0}, "block_count is 0, expected 1 to 512"),
        ({"block_count": 513}, "block_count is 513"),
        ({"block_count": "two"}, "'llama.block_count' is 'two', expected an integer"),
        ({"nextn_predict_layers": 3}, "nextn_predict_layers is 3, expected 0 to 2"),
        ({"attention.head_count": [4]}, "has 1 entries, expected 2"),
    ],
)
def test_malformed_hyperparameters(tmp_path: Path, keys: dict[str, WriteValue], message: str) -> None:
    """Keys that are out of range, of the wrong type or length are named with what they hold."""
    with pytest.raises(GGUFError, match=message):
        hparams(tmp_path, "llama", **keys)


def test_unknown_architecture() -> None:
    """No row, no answer."""
    with pytest.raises(UnsupportedError, match="architecture 'llama5' has no memory rule yet"):
        rule_for("llama5")


def test_every_row_has_a_source() -> None:
    """Each row names the file of llama.cpp that it was derived from."""
    assert all(re.search(r"\.cpp\b", rule.source) for rule in RULES.values())


def test_architectures_are_told_apart_in_one_place() -> None:
    """No code outside arch/ and the graph's model files asks which architecture it has."""
    root = Path(ggufphys.__file__).parent
    asking = re.compile(r"\barch(itecture)?\s*(==|!=|in\b)")
    found = [
        f"{path.relative_to(root)}: {line.strip()}"
        for path in root.rglob("*.py")
        if path.parts[-2] not in ("arch", "builds", "loads", "models", "plan", "synth")
        for line in path.read_text().splitlines()
        if asking.search(line.partition("#")[0])
    ]

    assert sorted(found) == [
        'gguf/file.py: if declared in ("mmproj", "clip-vision") or self.architecture == "clip":',
        'gguf/file.py: if self.architecture == "controlvector":',
        'graph/allocating/layout.py: self.ctx_type = ctx_type if h.arch in HEADS else "default"',
        "graph/building/construction.py: self.h = h if h.arch in HEADS_BY_LAYER else _as_first(h, caches)",
        'graph/building/embedding.py: return "output.weight" if b.h.arch in OUTPUT_IS_EMBEDDING '
        "and name not in b.tensors else name",
        'graph/building/pooling.py: kind = b.keys.integer("classifier.pooling_type", '
        "MEAN if b.h.arch in GELU_CLASSIFIERS else -1)",
        "graph/building/pooling.py: return ops.soft_max(x) if b.h.arch in SCORES_ARE_SHARES else x",
        'graph/building/pooling.py: x = ops.unary(x, "gelu" if b.h.arch in GELU_CLASSIFIERS else "tanh")',
        "memory/compute.py: return h.n_embd_out if context.embeddings or h.arch in ALWAYS_EMBED else 0",
        'memory/compute.py: written = arch in MODELS or arch in LATER if ctx_type == "default" else arch in HEADS',
        "memory/judged.py: n_nodes = (context.n_seq_max, context.n_ubatch) if self.h.arch in BY_SEQUENCE else ()",
    ]
