"""What does a graph compute and move? Operations and bytes, by node and by kind."""
