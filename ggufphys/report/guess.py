"""What tensors say of a model whose architecture has no rule: a table, and the same as JSON."""

from ggufphys.arch.anatomy import Anatomy, kinds
from ggufphys.frozen import asdict
from ggufphys.report.inspection import Section, table


def anatomy_section(anatomy: Anatomy, architecture: str, known: str) -> Section:
    """Its parts, with the number of layers that have each; `known` says since when llama.cpp knows the architecture."""
    n_layer = len(anatomy.layers)
    rows = [
        ("embedding", f"{anatomy.n_vocab:,} tokens, {anatomy.n_embd:,} wide"
         + ("" if anatomy.has_output else ", output tied to it or none"), ""),
        *((what, text, f"{n} of {n_layer}") for what, text, n in kinds(anatomy)),
    ]  # fmt: skip
    if anatomy.unread:
        rows.append(("not understood", ", ".join(anatomy.unread), ""))
    return Section(
        key="anatomy",
        lines=(
            f"architecture {architecture!r} has no rule here{known}. What its tensors say:", "",
            *table(("part", "what", "layers"), rows),
        ),
        value={
            "known_since": known.removeprefix("; "),
            "n_embd": anatomy.n_embd,
            "n_vocab": anatomy.n_vocab,
            "has_output": anatomy.has_output,
            "layers": [asdict(layer) for layer in anatomy.layers],
            "unread": list(anatomy.unread),
        },
    )  # fmt: skip
