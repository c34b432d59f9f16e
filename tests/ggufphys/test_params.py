"""llama.cpp's rounding of lengths and batches, and its refusals."""

import pytest

from ggufphys import Params
from ggufphys.params import resolve


@pytest.mark.parametrize(
    ("params", "n_ctx", "n_ctx_seq", "n_batch", "n_ubatch"),
    [
        (Params(), 8192, 8192, 2048, 512),
        (Params(n_ctx=1000), 1024, 1024, 1000, 512),
        (Params(n_ctx=100), 256, 256, 100, 100),
        (Params(n_ctx=4096, n_seq_max=100), 25600, 256, 2048, 512),
        (Params(n_ctx=4096, n_seq_max=3), 4608, 1536, 2048, 512),
        (Params(n_ctx=4096, n_seq_max=100, kv_unified=True), 4096, 4096, 2048, 512),
        (Params(n_ctx=4096, n_batch=128), 4096, 4096, 128, 128),
        (Params(n_ctx=4096, n_ubatch=0), 4096, 4096, 2048, 2048),
    ],
)
def test_lengths(params: Params, n_ctx: int, n_ctx_seq: int, n_batch: int, n_ubatch: int) -> None:
    """Padded to 256, shared among sequences, batches clipped before the padding."""
    context = resolve(params, n_ctx_train=8192)

    assert (n_ctx, n_ctx_seq, n_batch, n_ubatch) == (
        context.n_ctx,
        context.n_ctx_seq,
        context.n_batch,
        context.n_ubatch,
    )


def test_encoders_keep_their_batch() -> None:
    """Without causal attention the batch is not clipped to the context."""
    assert resolve(Params(n_ctx=512), n_ctx_train=512, causal_attn=False).n_batch == 2048


def test_outputs() -> None:
    """n_outputs_max is the batch unless it is given."""
    assert resolve(Params(n_ctx=300), n_ctx_train=0).n_outputs_max == 300
    assert resolve(Params(n_ctx=300, n_outputs_max=2), n_ctx_train=0).n_outputs_max == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"type_k": "q6_k"}, "type_k is 'q6_k', expected one of f32, f16"),
        ({"flash_attn": "yes"}, "flash_attn is 'yes'"),
        ({"n_seq_max": 0}, "n_seq_max is 0, expected 1 to 256"),
        ({"n_seq_max": 257}, "n_seq_max is 257"),
        ({"n_ctx": -1}, "n_ctx is -1"),
        ({"n_batch": 0, "n_ubatch": 0}, "cannot both be zero"),
        ({"n_outputs_max": 1, "n_seq_max": 2}, "llama.cpp aborts otherwise"),
    ],
)
def test_refused_at_once(arguments: dict[str, object], message: str) -> None:
    """What no model could be run with is refused when it is written down."""
    with pytest.raises(ValueError, match=message):
        Params(**arguments)  # type: ignore[arg-type]


def test_refused_for_the_model() -> None:
    """Quantised V needs flash attention; a length is needed from somewhere."""
    with pytest.raises(ValueError, match="needs flash attention, which is off"):
        resolve(Params(n_ctx=256, type_v="q8_0", flash_attn="off"), n_ctx_train=0)
    with pytest.raises(ValueError, match="does not use for this architecture"):
        resolve(Params(n_ctx=256, type_v="q8_0"), n_ctx_train=0, flash_attn_possible=False)
    with pytest.raises(ValueError, match="room for 3 outputs, expected one for each of 4 sequences"):
        resolve(Params(n_ctx=3, n_seq_max=4), n_ctx_train=0)
    with pytest.raises(ValueError, match="a batch of 0 tokens"):
        resolve(Params(n_ctx=256, n_batch=0, n_ubatch=1), n_ctx_train=0)
    with pytest.raises(ValueError, match="does not say how long"):
        resolve(Params(), n_ctx_train=0)
