"""RPC workers on loopback, as devices for tests on a machine without one."""

from bench.rpc_worker import workers

__all__ = ["workers"]
