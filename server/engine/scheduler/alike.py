"""What may a step hold, so that an answer has the same bits whatever shares it (batch invariance)?

ggml's CPU code chooses how it adds up by the number of rows: one row by a vector's product, several by a matrix's;
attention for 64 and more tokens of a sequence in tiles, and of a single one in as many parts as there are threads.
Within what is chosen each row is computed by itself. So two rules make shapes that do not depend on others:

- Answers' next tokens go together and with nothing else, in whole blocks of slots: a slot of a block that has no token
  in the step is given one that is taken back, so that rows are never fewer than a block and always a multiple of it.
- A prompt is read by itself, in pieces whose ends follow from its own length. What memory holds of one that began
  alike is gone on from at the ends of whole pieces alone.

The cache is divided, so that a sequence's cells lie in the order of its positions.

Source: llama.cpp 0c1e570 ggml/src/ggml-cpu: llamafile/sgemm.cpp, llamafile_sgemm; repack.cpp,
forward_mul_mat_one_chunk; tiled/tiled.cpp, ggml_tiled_min_batch; ops.cpp, ggml_compute_forward_flash_attn_ext_f16.
"""

from collections.abc import Collection
from typing import Final

PIECE: Final = 64  # tokens of a prompt that are read together: from so many on attention is tiled
LONGEST: Final = PIECE + PIECE // 2  # a last piece takes a shorter rest along: that would be a pass for few tokens


def piece_end(start: int, n_tokens: int, n_max: int) -> int:
    """Where the piece from `start` on of so many tokens ends; `n_max`: rows of logits that there are for it."""
    end = n_tokens if n_tokens - start <= LONGEST else start + PIECE
    return min(end, start + n_max)


def whole(n_common: int, n_tokens: int) -> int:
    """How many of the first `n_common` of so many tokens lie in pieces in front of the last one."""
    n_before_last = max(0, -(-(n_tokens - LONGEST) // PIECE)) * PIECE
    return min(n_common // PIECE * PIECE, n_before_last)


def fillers(slots: Collection[int], block: int) -> list[int]:
    """The other slots of the blocks that these are in."""
    blocks = {slot // block for slot in slots}
    return [slot for each in sorted(blocks) for slot in range(each * block, (each + 1) * block) if slot not in slots]
