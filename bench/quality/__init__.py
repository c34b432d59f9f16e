"""How good is a model, and how much worse is another file of it? `ggufphys bench quality`."""
