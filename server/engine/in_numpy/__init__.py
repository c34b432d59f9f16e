"""The model in numpy as what an engine runs."""
