"""Which device runs which part of a graph, and what does each backend make of it?"""
