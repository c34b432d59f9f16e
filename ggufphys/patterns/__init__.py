"""What do patterns for tensors' names match? As std::regex reads them, which llama.cpp uses."""
