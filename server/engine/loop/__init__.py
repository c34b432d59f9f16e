"""Step by step: requests in, tokens out, in the one thread that owns the model."""
