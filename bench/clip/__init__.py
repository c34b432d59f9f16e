"""mmproj files of every kind of projector, for benchmarks and tests."""
