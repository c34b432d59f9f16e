"""Whose is a tensor? GGUF files name the tensors of a layer `blk.N.` and a name that all layers share."""


def split_name(name: str) -> tuple[int | None, str]:
    """`blk.7.attn_q.weight` as 7 and `attn_q.weight`; None and the whole name for tensors outside of layers."""
    if name.startswith("blk."):
        number, _, rest = name[4:].partition(".")
        if number.isdecimal():
            return int(number), rest
    return None, name
