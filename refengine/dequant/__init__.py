"""Blocks of every type to numbers."""
