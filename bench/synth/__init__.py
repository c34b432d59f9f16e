"""`ggufphys synth`: random blocks for the files that `ggufphys.synth` plans, and the subcommand."""

from bench.synth.command import add_arguments, run

__all__ = ["add_arguments", "run"]
