"""RPC workers on loopback, as devices for tests on a machine without one."""

from bench.running.rpc_worker import workers

__all__ = ["workers"]
