"""The graph llama.cpp builds for a batch, and what can be read off it."""
