"""Small GGUF files for the reader's tests, as bytes."""

from ggufphys.gguf import GGMLType
from ggufphys.gguf.values import ByteOrder, ValueType
from ggufphys.gguf.writer import TensorSpec, Typed, WriteValue, encode_header

METADATA: dict[str, WriteValue] = {
    "general.architecture": "llama",
    "general.name": "tiny",
    "llama.block_count": 2,
    "a.u8": Typed(255, ValueType.UINT8),
    "a.i8": Typed(-128, ValueType.INT8),
    "a.u16": Typed(65535, ValueType.UINT16),
    "a.i16": Typed(-32768, ValueType.INT16),
    "a.i32": -7,
    "a.u64": 1 << 40,
    "a.i64": -(1 << 40),
    "a.f32": 0.5,
    "a.f64": Typed(0.1, ValueType.FLOAT64),
    "a.bool": True,
    "a.text": "Grüße, 世界",
    "b.ints": [1, -2, 3],
    "b.floats": [0.5, -0.25],
    "b.flags": [True, False, True],
    "b.texts": ["", "one", "zwei", "三"],
    "b.empty": Typed([], ValueType.STRING),
}
TENSORS = (
    TensorSpec("token_embd.weight", (256, 3), GGMLType.Q4_K),
    TensorSpec("blk.0.attn_norm.weight", (5,), GGMLType.F32),
    TensorSpec("blk.0.ffn_up_exps.weight", (32, 2, 3), GGMLType.Q8_0),
)


def tiny(*, version: int = 3, byte_order: ByteOrder = "little", alignment: int = 32) -> bytes:
    """A whole small file: header and zeros for data."""
    from ggufphys.gguf.writer import data_bytes

    header = encode_header(METADATA, TENSORS, version=version, byte_order=byte_order, alignment=alignment)
    return header + bytes(data_bytes(TENSORS, alignment))
