"""Numbers to blocks."""
