"""Which positions does a sliding window hide?

Source: llama.cpp 0c1e570 src/llama-hparams.h, is_masked_swa.
"""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from refengine.batch import Numbers

Window = Literal["standard", "chunked", "symmetric"]


def beyond(window: Window, n_swa: int, held: Numbers, own: Numbers | int) -> npt.NDArray[np.bool_]:
    """Whether the position `held` lies outside of the window of position `own`; shapes are broadcast.

    A standard window reaches `n_swa` positions back, its own included, a chunked one to the last multiple of `n_swa`,
    a symmetric one half of `n_swa` to either side.
    """
    hidden: npt.NDArray[Any]
    if window == "standard":
        hidden = own - held >= n_swa
    elif window == "chunked":
        hidden = held < own // n_swa * n_swa
    else:
        hidden = np.abs(own - held) > n_swa // 2
    return hidden
