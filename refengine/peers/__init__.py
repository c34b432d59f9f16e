"""llama.cpp and gguf, asked for what ours is compared with."""
