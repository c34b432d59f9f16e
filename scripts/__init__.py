"""Development scripts: run from the repository's root with `python -m scripts.…`; not part of the wheel."""
