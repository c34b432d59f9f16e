"""How the reports of this folder set their cells: in columns, without a line below the head."""

from collections.abc import Sequence


def columns(rows: Sequence[Sequence[str]], alignments: str) -> list[str]:
    """A line for each row, columns as wide as their widest cell; `<` and `>` say to which side each is aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, alignments, widths, strict=True)).rstrip()
        for row in rows
    ]
