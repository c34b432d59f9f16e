"""Which tokens are evaluated next, in whose place, and what gives way? Pure Python that knows nothing of a model."""
