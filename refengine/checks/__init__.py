"""Are the numbers right? Blocks, logits and nodes beside those of others."""
