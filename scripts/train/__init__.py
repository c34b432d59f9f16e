"""How the embedded model was made: `prepare`, `train`, `export`, one after the other (see README.md beside this)."""
