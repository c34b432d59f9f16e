"""Where do the tensors of a graph lie, and how large is the buffer that holds them?"""
