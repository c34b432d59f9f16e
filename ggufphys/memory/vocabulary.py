"""How much main memory does llama.cpp's vocabulary take? Strings, hash maps, and a table of Unicode.

Error: strings of 16 bytes and more have memory of their own, which is left out. Files of `ggufphys synth`, which have
few such, were at most 3 MiB off in anonymous memory where nothing was staged (docs/measure.md).

Source: llama.cpp 0c1e570 src/llama-vocab.cpp, llama_vocab::impl; src/unicode.cpp, unicode_cpt_flags_array. Sizes of
standard containers are libstdc++'s on 64 bit, of allocations glibc's.
"""

from collections.abc import Mapping
from typing import Final

from ggufphys.gguf import GGUFFile

UNICODE_TABLE_BYTES: Final = 2 * 0x110000  # 16 bits a code point
TOKEN_BYTES: Final = 40 + 64 + 32  # token_data, node of token_to_id, string of cache_token_to_piece
MERGE_BYTES: Final = 96  # node of bpe_ranks: two strings and a rank
# An element of the metadata's arrays: a string, or a number
_METADATA_BYTES: Final[Mapping[str, int]] = {"tokens": 32, "merges": 32, "scores": 4, "token_type": 4}
_POINTER: Final = 8
# libstdc++'s unordered_map grows to the next of these: _Prime_rehash_policy, the first prime beyond twice the last
_BUCKETS: Final = (
    13, 29, 59, 127, 257, 541, 1109, 2357, 5087, 10273, 20753, 42043, 85229, 172933, 351061, 712697, 1447153, 2938679,
)  # fmt: skip


def vocabulary_bytes(gguf: GGUFFile) -> tuple[int, str]:
    """Bytes, and how they come about."""
    tokens, merges = gguf.get_array("tokenizer.ggml.tokens"), gguf.get_array("tokenizer.ggml.merges")
    n_tokens, n_merges = len(tokens or ()), len(merges or ())
    buckets = _POINTER * (_n_buckets(n_tokens) + _n_buckets(n_merges))
    nbytes = UNICODE_TABLE_BYTES + n_tokens * TOKEN_BYTES + n_merges * MERGE_BYTES + buckets
    return nbytes, (
        f"{n_tokens:,} tokens x {TOKEN_BYTES} B + {n_merges:,} merges x {MERGE_BYTES} B + buckets {buckets:,} + "
        f"Unicode table {UNICODE_TABLE_BYTES:,}"
    )


def metadata_bytes(gguf: GGUFFile) -> tuple[int, str]:
    """Bytes of the vocabulary as the file's metadata, beside the model's own, while it loads; how they come about.

    Source: llama.cpp 0c1e570 ggml/src/gguf.cpp, gguf_kv.
    """
    lengths = {name: len(gguf.get_array(f"tokenizer.ggml.{name}") or ()) for name in _METADATA_BYTES}
    nbytes = sum(n * _METADATA_BYTES[name] for name, n in lengths.items())
    return nbytes, " + ".join(f"{n:,} {name} x {_METADATA_BYTES[name]} B" for name, n in lengths.items())


def _n_buckets(n: int) -> int:
    return next((size for size in _BUCKETS if size >= n), n) if n else 0
