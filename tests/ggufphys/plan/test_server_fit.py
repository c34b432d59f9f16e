"""llama-server's parameters: what real servers printed, and what --fit makes of a context that nobody asked for."""

from dataclasses import replace

import pytest

from ggufphys import Device, GGUFFile, Params, open_gguf, predict_memory
from ggufphys.gguf.writer import WriteValue
from ggufphys.memory.predict import Predictor
from ggufphys.plan.server_fit import fitted
from ggufphys.synth.catalogue import Shape
from ggufphys.synth.tensors import tensor_table
from tests.ggufphys.models import shape_header, write_model

MIB = 1 << 20
GIB = 1 << 30
SMOLLM2: dict[str, WriteValue] = {
    "context_length": 8192, "embedding_length": 576, "block_count": 30, "feed_forward_length": 1536,
    "attention.head_count": 9, "attention.head_count_kv": 3, "attention.layer_norm_rms_epsilon": 1e-5,
    "rope.dimension_count": 64,
}  # fmt: skip
GEMMA3: dict[str, WriteValue] = {
    "context_length": 32768, "embedding_length": 640, "block_count": 18, "feed_forward_length": 2048,
    "attention.head_count": 4, "attention.head_count_kv": 1, "attention.key_length": 256,
    "attention.value_length": 256, "attention.layer_norm_rms_epsilon": 1e-6, "attention.sliding_window": 512,
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, GGUFFile]:
    """Headers of the shapes that the servers ran."""
    folder = tmp_path_factory.mktemp("models")
    made = {"qwen2.5-0.5b": open_gguf(shape_header(folder / "qwen.gguf", "qwen2.5-0.5b"))}
    for name, arch, n_vocab, keys in (
        ("SmolLM2-135M", "llama", 49152, SMOLLM2),
        ("gemma-3-270m", "gemma3", 262144, GEMMA3),
    ):
        shape = Shape(name=name, architecture=arch, source="", n_vocab=n_vocab, tied=True, keys=keys, n_params=None)  # type: ignore[arg-type]
        metadata: dict[str, WriteValue] = {
            "general.architecture": arch, "tokenizer.ggml.model": "no_vocab", f"{arch}.vocab_size": n_vocab,
            **{f"{arch}.{key}": value for key, value in keys.items()},
        }  # fmt: skip
        made[name] = open_gguf(write_model(folder / f"{arch}.gguf", metadata, tensor_table(shape)))
    return made


# Lines of llama-server of builds that reserve as the pinned one does: n_ctx, then MiB of caches, compute, output.
@pytest.mark.parametrize(
    ("name", "fields", "n_ctx", "caches", "compute", "output"),
    [
        ("qwen2.5-0.5b", {"n_ctx": 4096, "n_seq_max": 1}, 4096, [48], 39.51, 0.58),  # b10229, b11063: -c 4096 -np 1
        ("qwen2.5-0.5b", {}, 32768, [384], None, 2.32),  # b11549
        ("qwen2.5-0.5b", {"n_ctx": 131072}, 131072, [1536], 163.51, None),  # what b11063 made of none
        ("gemma-3-270m", {}, 32768, [96, 37.5], 52.27, 4.0),  # b10809
        ("gemma-3-270m", {"n_seq_max": 4}, 131072, [384, 60], None, 4.0),  # b11549: -np 4
        ("gemma-3-270m", {"n_ctx": 131072}, 131072, [384, 37.5], 148.27, None),  # what b11063 made of none
        ("SmolLM2-135M", {}, 8192, [180], None, None),  # b10809
        ("SmolLM2-135M", {"n_seq_max": 4}, 32768, [720], None, None),  # b10809, b11549: -np 4
        ("SmolLM2-135M", {"n_seq_max": 2, "kv_unified": True}, 8192, [180], None, None),  # b11549: -np 2 -kvu
        ("SmolLM2-135M", {"n_seq_max": 4, "fit_params": False}, 8192, [180], None, None),  # b11549: -np 4 -fit off
    ],
)
def test_real_servers(
    models: dict[str, GGUFFile],
    name: str,
    fields: dict[str, int | bool],
    n_ctx: int,
    caches: list[float],
    compute: float | None,
    output: float | None,
) -> None:
    """Contexts, caches, compute and output buffers are what llama-server printed, to its 0.01 MiB."""
    prediction = predict_memory(models[name], Params.server(**fields))  # type: ignore[arg-type]

    assert prediction.context.n_ctx == n_ctx
    assert sorted(t.nbytes / MIB for t in prediction.terms if t.quantity == "context") == sorted(caches)
    for expected, nbytes in ((compute, prediction.compute_bytes), (output, prediction.output_bytes)):
        assert expected is None or round(nbytes / MIB, 2) == expected


def test_whose_defaults() -> None:
    """Params() stays the library's; Params.server has slots, an output for each and for drafts, and says so."""
    assert (Params().run_as, Params().n_seq_max, Params().n_outputs_max) == ("library", 1, 0)
    server = Params.server()
    assert (server.run_as, server.n_seq_max, server.kv_unified, server.n_outputs_max) == ("server", 4, True, 4)
    given = Params.server(n_seq_max=2, n_draft=3)
    assert (given.n_seq_max, given.kv_unified, given.n_outputs_max) == (2, False, 8)
    with pytest.raises(ValueError, match="run_as is 'cli', expected library or server"):
        Params(run_as="cli")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("params", "gib"),
    [
        (Params.server(), 4.0),
        (Params.server(n_seq_max=3), 5.0),
        (Params.server(devices=(Device(name="CUDA0", memory_bytes=3 * GIB),)), 64.0),
    ],
)
def test_shortened(models: dict[str, GGUFFile], params: Params, gib: float) -> None:
    """A context is shortened by llama.cpp's straight line, in whole steps, until memory less the margin holds it."""
    predictor = Predictor(models["qwen2.5-0.5b"])
    long = 32768 * 8
    n_stream = params.n_stream_fitted

    def used(n_ctx: int) -> int:
        p = predictor.predict(replace(params, n_ctx=n_ctx, use_mmap=False, no_alloc=True))
        name = params.devices[0].name if params.devices else "Host"
        return sum(t.nbytes for t in p.terms if t.device == name and t.quantity in ("model", "context", "compute"))

    result = fitted(
        predictor.buffers, params, n_ctx_train=long, n_layer=24, n_expert=0, main_bytes=int(gib * GIB)
    )  # fmt: skip
    room = (params.devices[0].memory_bytes if params.devices else int(gib * GIB)) - GIB
    most, least, low = used(long * n_stream), used(4096 * n_stream), 4096 * n_stream
    assert most > room > least
    expected = low + (long * n_stream - low) * (room - least) // (most - least)
    assert result.params.n_ctx == expected - expected % (256 * n_stream)
    assert used(result.params.n_ctx) <= room
    assert f"so the context is {result.params.n_ctx:,}" in result.note


def test_not_shortened(models: dict[str, GGUFFile]) -> None:
    """What fits, what was asked for, what the library runs, and unknown memory are left alone; too little is told."""
    predictor = Predictor(models["SmolLM2-135M"])

    def made(params: Params, main_bytes: int) -> tuple[int, str]:
        result = fitted(
            predictor.buffers, params, n_ctx_train=8192, n_layer=30, n_expert=0, main_bytes=main_bytes
        )  # fmt: skip
        return result.params.n_ctx, result.note

    for params, main_bytes in (
        (Params.server(), 64 * GIB),
        (Params.server(), 0),
        (Params(), GIB),
        (Params.server(fit_params=False), GIB),
    ):
        assert made(params, main_bytes) == (0, "")
    assert made(Params.server(n_ctx=8192), GIB) == (8192, "")
    n_ctx, note = made(Params.server(), GIB)
    assert n_ctx == 4096
    assert "still too much" in note
