"""What could be done with a model: which types its tensors get as a given file type, and what that weighs."""
