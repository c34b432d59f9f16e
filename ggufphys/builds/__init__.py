"""Which llama.cpp is predicted for? Its builds by number, what moved between them, and which of them were recorded."""

from ggufphys.builds.moves import LATEST, MOVES, PINNED, Move, Rule, rules_of

__all__ = ["LATEST", "MOVES", "PINNED", "Move", "Rule", "rules_of"]
