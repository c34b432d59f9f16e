"""`ggufphys serve`: its flags. Whoever asks for help alone needs no other package."""

import argparse
import os

from ggufphys.flags.environment import words
from server.flags.serve import add_arguments

__all__ = ["add_arguments", "environment_words", "run"]


def environment_words() -> list[str]:
    """Flags that llama-server's variables in the environment stand for."""
    return words(os.environ)


def run(args: argparse.Namespace) -> int:
    """Serve until a signal; see `server.start.main`."""
    from server.start.main import run as serve

    return serve(args)
