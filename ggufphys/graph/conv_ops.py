"""ggml's operations on images and sound, as far as sizes go: several are made of simpler ones.

Functions are named as in ggml.h. Source: llama.cpp 0c1e570 ggml/src/ggml.c.
"""

from ggufphys.gguf.ggml_types import GGMLType
from ggufphys.graph import ops
from ggufphys.graph.ir import Tensor
from ggufphys.graph.ops import F16, F32


def conv_output(size: int, kernel: int, stride: int, padding: int) -> int:
    """Positions of a kernel along one side (ggml_calc_conv_output_size, without dilation)."""
    return (size + 2 * padding - kernel) // stride + 1


def im2col(kernel: Tensor, x: Tensor, stride: int, padding: int, ggml_type: GGMLType) -> Tensor:
    """Each patch of the image (W, H, C, N) as a row: (kw*kh*C, OW, OH, N)."""
    width = conv_output(x.ne[0], kernel.ne[0], stride, padding)
    height = conv_output(x.ne[1], kernel.ne[1], stride, padding)
    ne = (kernel.ne[0] * kernel.ne[1] * kernel.ne[2], width, height, x.ne[3])
    return Tensor("IM2COL", ggml_type, ne, (kernel, x), params=(stride, padding, True))


def im2col_1d(kernel: Tensor, x: Tensor, stride: int, padding: int) -> Tensor:
    """Each patch along the time of (T, C, N) as a row: (k*C, OT, N)."""
    ne = (kernel.ne[1] * kernel.ne[0], conv_output(x.ne[0], kernel.ne[0], stride, padding), x.ne[2])
    return Tensor("IM2COL", _patch_type(kernel), ne, (kernel, x), params=(stride, padding, False))


def conv_2d(kernel: Tensor, x: Tensor, stride: int, padding: int = 0) -> Tensor:
    """A convolution of (W, H, C, N) with (kw, kh, C, OC): (OW, OH, OC, N)."""
    patches = im2col(kernel, x, stride, padding, _patch_type(kernel))
    rows = ops.reshape(patches, patches.ne[0], patches.ne[1] * patches.ne[2] * patches.ne[3])
    flat = ops.reshape(kernel, kernel.ne[0] * kernel.ne[1] * kernel.ne[2], kernel.ne[3])
    out = ops.reshape(ops.mul_mat(rows, flat), patches.ne[1], patches.ne[2], patches.ne[3], kernel.ne[3])
    return ops.cont(ops.permute(out, 0, 1, 3, 2))


def conv_2d_dw(kernel: Tensor, x: Tensor, stride: int, padding: int) -> Tensor:
    """A convolution of each channel by itself."""
    single = ops.reshape(kernel, kernel.ne[0], kernel.ne[1], 1, kernel.ne[2] * kernel.ne[3])
    planes = ops.reshape(x, x.ne[0], x.ne[1], 1, x.ne[2] * x.ne[3])
    patches = im2col(single, planes, stride, padding, _patch_type(kernel))
    rows = ops.reshape(patches, patches.ne[0], patches.ne[1] * patches.ne[2], x.ne[2], x.ne[3])
    flat = ops.reshape(single, single.ne[0] * single.ne[1], single.ne[2], single.ne[3], 1)
    return ops.reshape(ops.mul_mat(flat, rows), patches.ne[1], patches.ne[2], x.ne[2], x.ne[3])


def conv_1d_ph(kernel: Tensor, x: Tensor, stride: int) -> Tensor:
    """A convolution along time with half a kernel of padding: (T, C) with (k, C, OC) gives (OT, OC)."""
    patches = im2col_1d(kernel, x, stride, kernel.ne[0] // 2)
    rows = ops.reshape(patches, patches.ne[0], patches.ne[1] * patches.ne[2])
    flat = ops.reshape(kernel, kernel.ne[0] * kernel.ne[1], kernel.ne[2])
    return ops.reshape(ops.mul_mat(rows, flat), patches.ne[1], kernel.ne[2], patches.ne[2])


def conv_1d_dw_ph(kernel: Tensor, x: Tensor, stride: int) -> Tensor:
    """A convolution along time of each channel by itself, half a kernel padded: (T, C) with (k, 1, C) gives (OT, C)."""
    channels = ops.reshape(x, x.ne[0], 1, x.ne[1], x.ne[2])
    out = ops.mul_mat(im2col_1d(kernel, channels, stride, kernel.ne[0] // 2), kernel)
    return ops.reshape(out, out.ne[0], out.ne[2], 1)


def pool_2d(x: Tensor, size: int) -> Tensor:
    """Squares of `size` become one."""
    return Tensor("POOL_2D", F32, (x.ne[0] // size, x.ne[1] // size, x.ne[2], x.ne[3]), (x,))


def pool_1d(x: Tensor, size: int) -> Tensor:
    """Stretches of `size` become one."""
    return Tensor("POOL_1D", F32, (x.ne[0] // size, x.ne[1], x.ne[2], x.ne[3]), (x,))


def interpolate(x: Tensor, width: int, height: int) -> Tensor:
    """The image in another size."""
    return Tensor("UPSCALE", x.type, (width, height, x.ne[2], x.ne[3]), (x,))


def _patch_type(kernel: Tensor) -> GGMLType:
    return F32 if kernel.type is GGMLType.BF16 else F16
