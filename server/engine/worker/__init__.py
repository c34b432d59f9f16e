"""The engine in a process of its own: a native crash ends that process, not the service."""
