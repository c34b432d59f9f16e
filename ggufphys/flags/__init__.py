"""llama-server's flags, and ours: words of a command line to parameters."""
