"""What runs the model: llama.cpp's low-level API behind the `Engine` protocol that the HTTP side sees."""
