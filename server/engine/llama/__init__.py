"""llama.cpp as what an engine runs."""
