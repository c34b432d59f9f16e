"""llama.cpp through `Params`: what is asked for, what is refused before it could abort."""

import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from ggufphys import GGUFError, UnsupportedError
from ggufphys.gguf.writer import encode_header
from ggufphys.params import LOAD_MODES, Params
from server.engine.checks import one_output_per_sequence
from server.engine.errors import EngineError
from server.engine.llama.batch import Batch
from server.engine.llama.handles import Context, Model
from server.engine.llama.library import create_context, default_threads, load_library, load_model, system_info
from server.engine.llama.log import LOG
from server.engine.llama.tiny_model import METADATA, TENSORS, write_tiny_model
from tests.server.chain_model import EOS, byte_token, successors


@pytest.fixture(scope="module")
def model(chain_path: Path) -> Iterator[Model]:
    with load_model(chain_path, Params()) as model:
        yield model


def test_library_is_loaded_once() -> None:
    """The module is the same each time, and knows what it was built with."""
    assert load_library() is load_library()
    assert "CPU" in system_info()


def test_default_threads() -> None:
    """There is at least one thread and not more than the process may use."""
    assert 1 <= default_threads() <= (os.cpu_count() or 1)


def test_params_reach_llama_cpp(model: Model) -> None:
    """What llama.cpp reports of a context is what was asked for, padded as it pads."""
    params = Params(n_ctx=600, n_batch=64, n_ubatch=32, n_seq_max=2, n_outputs_max=3, kv_unified=False, n_threads=1)
    api = model.api
    with create_context(model, params) as context:
        pointer = context.pointer

        assert api.llama_n_ctx(pointer) == context.params.n_ctx == 1024
        assert api.llama_n_ctx_seq(pointer) == context.n_ctx_seq == context.params.n_ctx_seq == 512
        assert api.llama_n_batch(pointer) == context.params.n_batch == 64
        assert api.llama_n_ubatch(pointer) == context.params.n_ubatch == 32
        assert api.llama_n_seq_max(pointer) == 2
        assert api.llama_n_threads(pointer) == api.llama_n_threads_batch(pointer) == 1


def test_log_tells_sizes(model: Model) -> None:
    """The log kept since a mark holds llama.cpp's own figures, at the level it gave them."""
    mark = LOG.mark
    create_context(model, Params(n_ctx=256)).close()
    text = "\n".join(line.text for line in LOG.since(mark))

    assert "KV buffer size" in text
    assert "compute buffer size" in text


def test_progress(chain_path: Path) -> None:
    """Progress rises to 1; returning False cancels; an exception of the callback comes out of the call."""
    seen: list[float] = []

    def watch(fraction: float) -> bool:
        seen.append(fraction)
        return True

    load_model(chain_path, Params(), progress=watch).close()

    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    with pytest.raises(EngineError, match="cancelled"):
        load_model(chain_path, Params(), progress=lambda fraction: False)
    with pytest.raises(ZeroDivisionError):
        load_model(chain_path, Params(), progress=lambda fraction: bool(1 / 0))


@pytest.mark.parametrize("mode", LOAD_MODES)
def test_load_modes(chain_path: Path, mode: str) -> None:
    """llama.cpp loads the way it is asked to."""
    fields: dict[str, Any] = {**LOAD_MODES[mode]}
    mark = LOG.mark
    load_model(chain_path, Params(**fields)).close()

    assert any(f"(load_mode = {mode})" in line.text for line in LOG.since(mark))


def test_close_order(chain_path: Path) -> None:
    """Closing a model closes its contexts; closing twice does nothing."""
    model = load_model(chain_path, Params(use_mmap=False))
    context = create_context(model, Params(n_ctx=256))
    model.close()
    model.close()
    context.close()

    assert context.pointer == model.pointer == 0


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (Params(n_ctx=300, n_batch=2, n_seq_max=4), "room for 2 outputs"),
        (Params(n_ctx=3, n_seq_max=4), "room for 3 outputs"),
        (Params(n_ctx=300, n_batch=0), "a batch of 0 tokens"),
        (Params(n_ctx=300, type_v="q8_0", flash_attn="off"), "flash attention"),
    ],
)
def test_refused_before_it_aborts(model: Model, params: Params, message: str) -> None:
    """Parameters on which llama.cpp would abort the process are a ValueError that says why."""
    with pytest.raises(ValueError, match=message):
        create_context(model, params)


def test_quantised_k_without_flash_attention(tmp_path: Path) -> None:
    """A K type whose blocks do not divide the head is refused where llama.cpp checks nothing and asserts."""
    params = Params(n_ctx=256, type_k="q8_0", flash_attn="off")
    with load_model(narrow_heads(tmp_path), Params()) as model, pytest.raises(ValueError, match="n_embd_head_k = 16"):
        create_context(model, params)


def test_context_that_llama_cpp_refuses(tmp_path: Path) -> None:
    """A context that llama.cpp refuses is an error that quotes its reason."""
    with (
        load_model(narrow_heads(tmp_path), Params()) as model,
        pytest.raises(EngineError, match=r"llama\.cpp said: .*does not divide n_embd_head_k=16"),
    ):
        create_context(model, Params(n_ctx=256, type_k="q8_0"))


def test_one_output() -> None:
    """Serving reserves a row of logits for each sequence, unless it is told otherwise."""
    assert one_output_per_sequence(Params(n_seq_max=4)).n_outputs_max == 4
    assert one_output_per_sequence(Params(n_seq_max=4, n_outputs_max=9)).n_outputs_max == 9


def test_files_that_cannot_be_run(tmp_path: Path) -> None:
    """What is missing, no GGUF, no model, or unfinished never reaches llama.cpp."""
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "none.gguf", Params())
    text = tmp_path / "text.gguf"
    text.write_text("hello")
    with pytest.raises(GGUFError):
        load_model(text, Params())
    adapter = tmp_path / "adapter.gguf"
    adapter.write_bytes(encode_header({"general.type": "adapter", "general.architecture": "llama"}, []))
    with pytest.raises(UnsupportedError, match="adapter"):
        load_model(adapter, Params())
    whole = tmp_path / "whole.gguf"
    write_tiny_model(whole)
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole.read_bytes()[:-1000])
    with pytest.raises(GGUFError, match="missing"):
        load_model(cut, Params())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"llama.block_count": 600}, "block_count"),
        ({"llama.block_count": 0}, "block_count"),
        ({"llama.expert_count": 4}, "expert_used_count"),
        ({"llama.expert_count": 2, "llama.expert_used_count": 3}, "expert_used_count"),
        ({"llama.expert_count": 2000, "llama.expert_used_count": 3}, "expert_count"),
    ],
)
def test_counts_that_abort(tmp_path: Path, change: dict[str, int], message: str) -> None:
    """Counts that llama.cpp asserts are refused by their name."""
    path = tmp_path / "tiny.gguf"
    write_tiny_model(path)
    path.write_bytes(_with_metadata(path, {**METADATA, **change}))
    with pytest.raises(GGUFError, match=message):
        load_model(path, Params())


def test_llama_cpp_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that llama.cpp itself refuses, should we not have foreseen it, is an error that quotes its reason."""
    monkeypatch.setattr("server.engine.checks.require_loads", lambda gguf, params: None)
    path = tmp_path / "tiny.gguf"
    write_tiny_model(path)
    path.write_bytes(_with_metadata(path, {**METADATA, "llama.feed_forward_length": 512}))
    with pytest.raises(EngineError, match=r"tiny\.gguf: llama\.cpp could not load the model.*ffn_gate.*wrong shape"):
        load_model(path, Params())


def narrow_heads(folder: Path) -> Path:
    """A model with heads of 16, which blocks of 32 do not divide."""
    path = folder / "narrow.gguf"
    write_tiny_model(path)
    path.write_bytes(_with_metadata(path, {**METADATA, "llama.attention.head_count": 16}))
    return path


def _with_metadata(path: Path, metadata: dict[str, object]) -> bytes:
    """The tiny model's bytes with another header."""
    data = path.read_bytes()[len(encode_header(METADATA, TENSORS)) :]
    return encode_header(metadata, TENSORS) + data  # type: ignore[arg-type]


def test_batch_evaluates_what_it_was_given(model: Model) -> None:
    """Several sequences in a batch, each with its own positions, give each its own row of logits."""
    params = Params(n_ctx=512, n_seq_max=2, n_outputs_max=2, n_batch=16, n_ubatch=16)
    with create_context(model, params) as context, Batch(context, 16) as batch:
        rows = [
            batch.add([byte_token(c) for c in text], seq_id=seq_id, start=0, logits_of_last=True)
            for seq_id, text in enumerate((b"ab1", b"zyxw5"))
        ]

        assert rows == [2, 7]
        assert batch.decode(context) == 0
        assert [context.n_past(0), context.n_past(1)] == [3, 5]
        for row, last in zip(rows, b"15", strict=True):
            logits = model.api.llama_get_logits_ith(context.pointer, row)
            best = int(np.ctypeslib.as_array(logits, shape=(259,)).argmax())
            assert best == successors()[byte_token(last)] != EOS


def test_batch_limits(model: Model) -> None:
    """More tokens or rows than llama_decode would assert on are refused, and a position gap is reported by its code."""
    params = Params(n_ctx=256, n_batch=4, n_ubatch=4, n_outputs_max=1)
    with create_context(model, params) as context, Batch(context, 4) as batch:
        with pytest.raises(ValueError, match="expected 1 to n_batch = 4"):
            Batch(context, 5)
        with pytest.raises(ValueError, match="expected 1 to 4"):
            batch.add([1] * 5, seq_id=0, start=0, logits_of_last=False)
        with pytest.raises(ValueError, match="expected 1 to 4"):
            batch.add([], seq_id=0, start=0, logits_of_last=False)
        batch.add([1, 2], seq_id=0, start=0, logits_of_last=True)
        with pytest.raises(ValueError, match="n_outputs_max = 1"):
            batch.add([3], seq_id=0, start=2, logits_of_last=True)

        assert batch.decode(context) == 0
        batch.clear()
        batch.add([3], seq_id=0, start=5, logits_of_last=True)
        assert batch.decode(context) == -1
        assert context.remove(0, 1)
        assert context.n_past(0) == 1


def test_tiny_model_is_reproducible(tmp_path: Path) -> None:
    """The probe's model is the same bytes for the same seed, with finite weights."""
    first, second = tmp_path / "a", tmp_path / "b"
    write_tiny_model(first)
    write_tiny_model(second)

    assert first.read_bytes() == second.read_bytes()
    assert struct.unpack("<4s", first.read_bytes()[:4]) == (b"GGUF",)


@pytest.mark.parametrize(
    ("recurrent", "hybrid", "n_swa", "swa_full", "expected"),
    [
        (False, False, 0, False, "full"),
        (False, False, 1024, False, "window"),
        (False, False, 1024, True, "full"),
        (True, False, 0, True, "recurrent"),
        (False, True, 0, True, "recurrent"),
    ],
)
def test_kinds_of_memory(
    model: Model,
    monkeypatch: pytest.MonkeyPatch,
    *,
    recurrent: bool,
    hybrid: bool,
    n_swa: int,
    swa_full: bool,
    expected: str,
) -> None:
    """What memory keeps of a sequence is told apart: all positions, a window of them, or one state."""
    with create_context(model, Params(n_ctx=256, swa_full=swa_full)) as context:
        monkeypatch.setattr(model.api, "llama_model_is_recurrent", lambda pointer: recurrent)
        monkeypatch.setattr(model.api, "llama_model_is_hybrid", lambda pointer: hybrid)
        monkeypatch.setattr(model.api, "llama_model_n_swa", lambda pointer: n_swa)

        assert context.kind == expected


def test_ctrl_c_behind_a_call_frees_nothing_twice() -> None:
    """It comes when llama.cpp has freed a context or a model, before the call returns: whoever closes them again, as a
    `with` around them does, must not free them again.
    """
    freed: list[tuple[str, int]] = []

    class Api:
        llama_cpp = SimpleNamespace(_lib={"llama_get_logits": SimpleNamespace()})

        def llama_n_ctx_seq(self, pointer: int) -> int:
            return 8

        def llama_free(self, pointer: int) -> None:
            freed.append(("context", pointer))
            raise KeyboardInterrupt

        def llama_model_free(self, pointer: int) -> None:
            freed.append(("model", pointer))
            raise KeyboardInterrupt

    unused: Any = None
    model = Model(cast("Any", Api()), 1, Path("model.gguf"), unused)
    context = Context(model, 2, unused, 1)

    for owner in (context, model, context, model):
        with suppress(KeyboardInterrupt):
            owner.close()

    assert freed == [("context", 2), ("model", 1)]
