"""ggml's operations with the very bits of its CPU code: what `emulate` takes in place of `refengine.ops`.

Roundings of activations amplify what two right computations differ by in F32's last bit (docs/verify.md), so a logit
equals llama.cpp's only where every sum before it was added up in ggml's order. These follow that order, on x86 with
AVX2 or AVX-512; each gives what `refengine.ops` gives but for the last bits, and takes many times as long.
"""

from collections.abc import Mapping
from typing import Final

from refengine.faithful import attention, products, recurrent, rope, rows
from refengine.ops.step import Operation

OPERATIONS: Final[Mapping[str, Operation]] = {
    "MUL_MAT": products.mul_mat,
    "MUL_MAT_ID": products.mul_mat_id,
    "RMS_NORM": rows.rms_norm,
    "NORM": rows.norm,
    "L2_NORM": rows.l2_norm,
    "SUM_ROWS": rows.sum_rows,
    "MEAN": rows.mean,
    "SOFT_MAX": rows.soft_max,
    "GLU": rows.glu,
    "UNARY": rows.unary,
    "ROPE": rope.rope,
    "FLASH_ATTN_EXT": attention.flash_attn_ext,
    "SSM_CONV": recurrent.ssm_conv,
    "SSM_SCAN": recurrent.ssm_scan,
    "GATED_DELTA_NET": recurrent.gated_delta_net,
}
