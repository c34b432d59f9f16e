"""A measuring child's log reconciles, devices included. In a child, since llama.cpp never forgets an RPC server."""

import pytest

from bench.measure.llama import measure
from ggufphys import Params, open_gguf
from ggufphys.embedded import MODEL
from ggufphys.logs.runs import parse_log
from ggufphys.params import rpc_device
from ggufphys.plan.reconcile import reconcile
from tests.rpc_worker import workers


@pytest.mark.parametrize("n_gpu_layers", [0, 3, 99])
def test_devices(n_gpu_layers: int) -> None:
    """With two devices their weights and caches agree, and nothing is left without a prediction."""
    with workers(2) as endpoints:
        devices = tuple(rpc_device(endpoint, memory_bytes=1 << 30) for endpoint in endpoints)
        params = Params(n_ctx=512, devices=devices, n_gpu_layers=n_gpu_layers)
        context = measure(MODEL, params, n_predict=1).child.phase("context")
    assert context is not None
    with open_gguf(MODEL) as gguf:
        result = reconcile(gguf, parse_log(context.facts["log"]), {})
    by_quantity = {q: {line.verdict for line in result.lines if line.quantity == q} for q in ("model", "context")}

    assert by_quantity == {"model": {"equal"}, "context": {"equal"}}
    assert "not predicted" not in {line.verdict for line in result.lines}
    if n_gpu_layers:
        assert [d.name for d in result.params.devices] == [d.name for d in devices]
