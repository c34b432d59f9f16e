"""The model that ships with ggufphys, so that every subcommand has something real to run on.

A llama of 5.77 M parameters, trained by scripts/train in this project's repository on Python's standard library:
sources, test suites and help topics. Give it the start of a Python file and it goes on in kind; it knows nothing else.
The file is F16; `bench.derive.derived("Q4_K_M")` makes the quantised ones.

Licence: the weights are this project's (MIT); the text they were trained on is the Python Software Foundation's, under
the PSF License Version 2. docs/embedded-model.md says how it was made and what it measures.
"""

from pathlib import Path
from typing import Final

MODEL: Final = Path(__file__).with_name("stdlib-6m-f16.gguf")
"""The F16 file."""
