"""Every node of llama.cpp's graph against ours."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ggufphys.builds import PINNED
from ggufphys.cli import main
from ggufphys.embedded import MODEL
from ggufphys.errors import UnsupportedError
from ggufphys.gguf import open_gguf
from ggufphys.params import Params, rpc_device
from refengine.checks.logits import steps
from refengine.checks.node_rows import NodeRow
from refengine.checks.trace import THRESHOLD, TraceReport, verify_nodes
from refengine.model import load
from refengine.peers.llama_logits import LlamaError, LlamaRequest, llama_logits
from server.engine.llama.library import load_library
from tests.refengine import tiny
from tests.rpc_worker import workers

N_ON_WORKER = 3  # the output and the last two layers
WRONG = "blk.1.ffn_up.weight"
NODES = ("llama", "qwen3moe", "deepseek2", "qwen3next")


def with_error(path: Path, name: str, factor: float) -> Path:
    """A copy of a model in which an F32 tensor's weights are too large by a factor."""
    gguf = open_gguf(path)
    data = bytes(gguf.tensor_data(gguf.tensors_by_name[name]))
    wrong = np.frombuffer(data, np.float32) * np.float32(factor)
    copy = path.with_name("wrong.gguf")
    copy.write_bytes(path.read_bytes().replace(data, wrong.tobytes(), 1))
    return copy


@pytest.mark.parametrize("flash_attn", [False, True])
@pytest.mark.parametrize("name", NODES)
def test_every_node(name: str, flash_attn: bool, tmp_path: Path) -> None:
    """Each node by itself is llama.cpp's but for the order of sums, and has its name and layer."""
    report = verify_nodes(
        tiny.write(tmp_path / "f32.gguf", name), n_prompt=12, n_decode=2, flash_attn=flash_attn, n_threads=2
    )

    assert report.first is None
    assert flash_attn or max(row.alone for row in report.rows) < 1e-10  # sums in F16 make 1e-8 and more
    assert {row.batch for row in report.rows} == {0, 1, 2}
    assert report.rows[-1].name == "result_output"
    assert {row.layer for row in report.rows} >= {None, 0, 1}


@pytest.mark.parametrize("factor", [1.01, float("nan")])
def test_names_the_node_that_is_wrong(factor: float, tmp_path: Path) -> None:
    """When llama.cpp has one tensor wrong, the product with it is named, and no node behind it is blamed."""
    path = tiny.write(tmp_path / "f32.gguf", "llama")

    report = verify_nodes(path, against=with_error(path, WRONG, factor), n_prompt=8, n_decode=1, n_threads=2)

    assert report.exit_code == 1
    first = report.first
    assert first is not None
    assert (first.op, first.name, first.layer, first.batch) == ("MUL_MAT", "ffn_up-1", 1, 0)
    assert first.sources[0].name == WRONG
    blamed = [row for row in report.rows if not row.alone <= THRESHOLD]
    assert {source.name for row in blamed for source in row.sources if "blk." in source.name} == {WRONG}
    behind = report.rows[report.rows.index(first) + 1 :]
    assert any(not row.carried <= THRESHOLD for row in behind)  # that is, what only passes it on


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--trace` prints a line a layer and names the node; `--json` has every node; the exit code says it."""
    path = tiny.write(tmp_path / "f32.gguf", "llama")
    command = ["verify", str(path), "--logits", "--trace", "--prompt-tokens", "4", "--decode-tokens", "1"]

    assert main(command) == 0
    text = capsys.readouterr().out
    assert "layer 1" in text
    assert "no node by itself differs by more than 1e-06" in text

    command += ["--against", str(with_error(path, WRONG, 2.0))]
    assert main(command) == 1
    assert "ffn_up-1, MUL_MAT" in capsys.readouterr().out

    assert main([*command, "--threshold", "0.1", "--flash-attn", "off", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["flash_attn"] is False
    assert report["first"]["alone"] > report["threshold"] == 0.1
    assert {row["batch"] for row in report["rows"]} == {0, 1}

    assert main([*command, "--threshold", "10"]) == 0


def test_devices_of_fewer_digits_have_a_limit_of_their_own() -> None:
    """What Vulkan's arithmetic makes of a node is no fault there, and one on the CPU or in pinned memory; more is one
    anywhere, and so is all that a threshold on the command line forbids.
    """
    node = NodeRow(
        batch=0, index=0, name="x", op="MUL_MAT", layer=0, ne=(4, 1, 1, 1), type="F32", sources=(), alone=1e-5,
        carried=0.0, is_exact=False, buffer="Vulkan0",
    )  # fmt: skip

    def first(threshold: float | None = None, **changes: str | float) -> NodeRow | None:
        rows = (replace(node, **changes),)  # type: ignore[arg-type]
        return TraceReport(
            model="m", against="m", n_prompt=1, n_decode=0, seed=0, flash_attn=True, threshold=threshold, rows=rows
        ).first

    assert first() is None
    assert first(alone=1e-4) is not None
    assert first(1e-6) is not None
    assert all(first(buffer=place) is not None for place in ("CPU", "Vulkan_Host", "RPC0[10.0.0.1:50052]"))


def test_options_of_trace_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """`--trace` without `--logits`, and `--against` without `--trace`, are refused."""
    assert main(["verify", str(MODEL), "--trace"]) == 2
    assert main(["verify", str(MODEL), "--logits", "--against", str(MODEL)]) == 2
    err = capsys.readouterr().err
    assert "--trace: for --logits, which is not given" in err
    assert "--against: for --trace, which is not given" in err


def test_another_graph(tmp_path: Path) -> None:
    """Where llama.cpp computes another graph the first node that is another is named."""
    path, other = (tiny.write(tmp_path / f"{name}.gguf", name) for name in ("llama", "qwen3"))

    with pytest.raises(UnsupportedError, match="llama.cpp computes another graph: node .* RMS_NORM"):
        verify_nodes(path, against=other, n_prompt=4, n_decode=0)


def test_llama_that_never_answers() -> None:
    """llama.cpp has a time to answer in, whether logits are wanted or nodes."""
    model = load(MODEL)
    request = LlamaRequest(path=MODEL, context=model.context, batches=steps([1, 2], 1), n_threads=1)

    with pytest.raises(LlamaError, match=r"llama.cpp gave no answer in 0.001 s"):
        llama_logits([request], timeout_s=0.001)
    with pytest.raises(LlamaError, match=r"llama.cpp gave no answer in 0.001 s"):
        verify_nodes(MODEL, n_prompt=1, n_decode=0, timeout_s=0.001)


def test_llama_that_dies(tmp_path: Path) -> None:
    """What llama.cpp said last is in the error."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")

    with pytest.raises(LlamaError, match="llama.cpp refused: .*gguf"):
        verify_nodes(MODEL, against=broken, n_prompt=1, n_decode=0)


def test_layers_on_a_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With layers on a worker every node is still ours, and the first that is wrong is named with its device."""
    if not load_library().llama_supports_rpc():
        pytest.skip("llama-cpp-python is built without RPC")
    path = tiny.write(tmp_path / "f32.gguf", "llama")
    wrong = with_error(path, WRONG, 1.01)
    command = ["verify", str(path), "--logits", "--prompt-tokens", "4", "--decode-tokens", "1"]
    with workers(1) as endpoints:
        worker = rpc_device(endpoints[0])
        report = verify_nodes(
            path, against=wrong, n_prompt=4, n_decode=0, n_threads=2,
            placement=Params(devices=(worker,), n_gpu_layers=N_ON_WORKER),
        )  # fmt: skip
    with workers(1) as endpoints:
        assert main([*command, "--json", "--rpc", endpoints[0]]) == 0
        document = json.loads(capsys.readouterr().out)

    assert report.first is not None
    assert report.first.name == "ffn_up-1"
    assert report.first.buffer == worker.name
    assert "CPU" in {row.buffer for row in report.rows if row.layer == 0}
    assert document["devices"] == [rpc_device(endpoints[0]).name]
    assert document["llama_build"] == PINNED
    assert all(row["ok"] for row in document["rows"])
