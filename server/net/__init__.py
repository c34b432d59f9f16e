"""How do requests reach the application? Sockets, connections, and waitress between them and Flask."""
