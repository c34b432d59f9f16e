"""What do flags say? Ours, and llama-server's, of which each is taken, refused or named."""
