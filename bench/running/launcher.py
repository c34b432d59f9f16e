"""Run one command and print its wall and CPU seconds and its peak RSS as JSON, as a slim parent.

A process's peak RSS starts at what its parent held when it was started, so the parent must hold next to nothing:
this file is run by its path and imports nothing but these.
"""

import os
import sys
import time

if __name__ == "__main__":
    sink = os.open(os.devnull, os.O_WRONLY)
    started = time.perf_counter()
    pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, sink, 1)])
    _, status, usage = os.wait4(pid, 0)
    wall_s = time.perf_counter() - started
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB elsewhere
    code = os.waitstatus_to_exitcode(status)
    cpu_s = usage.ru_utime + usage.ru_stime
    print(f'{{"wall_s": {wall_s}, "cpu_s": {cpu_s}, "peak_rss_bytes": {usage.ru_maxrss * unit}, "exit": {code}}}')
