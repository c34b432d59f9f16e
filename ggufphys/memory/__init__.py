"""How many bytes will llama.cpp take, of what and where? Terms, each with its formula and source; totals are sums."""
