"""Who may ask, how much, and from which pages? API keys, limits and CORS."""
