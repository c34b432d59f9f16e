"""Is our server as fast as llama-server, and does it bear what it should? Both side by side on one machine."""
