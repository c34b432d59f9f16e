"""From flags to a running server, and to its end."""
