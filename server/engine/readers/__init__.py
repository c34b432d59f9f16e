"""From tokens to what readers get: text, and where it ends."""
