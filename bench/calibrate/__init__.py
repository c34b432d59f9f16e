"""How fast is this machine? Rates of llama.cpp's kernels, measured on small graphs, whatever model they will run."""
