"""Whose is a tensor? GGUF files name the tensors of a layer `blk.N.` and a name that all layers share.

Where a model has several stacks of layers, their names begin with the stack's: `enc.blk.N.`, `convnext.N.`.
"""

from typing import Final

_BLOCK: Final = "blk."
MAX_DIGITS: Final = 10  # of a 32-bit number
_STACKS: Final = ("enc.blk.", "dec.blk.", "convnext.", "posnet.")


def split_name(name: str) -> tuple[int | None, str]:
    """`blk.7.attn_q.weight` as 7 and `attn_q.weight`, `dec.blk.7.attn_q.weight` as 7 and `dec.attn_q.weight`.

    None and the whole name for tensors outside of layers.
    """
    if name.startswith(_BLOCK):
        number, _, rest = name[len(_BLOCK) :].partition(".")
        return (int(number), rest) if _is_layer(number) else (None, name)
    for stack in _STACKS if name.startswith(_STACKS) else ():
        number, _, rest = name.removeprefix(stack).partition(".")
        if _is_layer(number):
            return int(number), f"{stack.removesuffix(_BLOCK)}{rest}"
    return None, name


def _is_layer(number: str) -> bool:
    return len(number) <= MAX_DIGITS and number.isascii() and number.isdecimal()
