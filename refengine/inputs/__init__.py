"""How are the inputs of a graph filled for a batch?"""
