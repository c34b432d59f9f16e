"""Text to tokens and back, by the vocabulary in the model file."""
