"""How does a server bear load? Requests to any OpenAI-compatible endpoint, timed token by token."""
