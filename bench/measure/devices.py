"""Which devices would llama.cpp use here? Asked in a child, so that the measuring process does not load it."""

import json
import subprocess

from ggufphys.machine.children import environment, module_command
from ggufphys.machine.vulkan import with_limits
from ggufphys.params import Device


def llama_devices() -> tuple[Device, ...]:
    """The GPUs that the installed build finds; none where it cannot say."""
    answer = subprocess.run(
        module_command("server.engine.llama.list_devices"),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        env=environment(),
    )
    if answer.returncode:
        return ()
    return with_limits(map(Device.from_json, json.loads(answer.stdout)))
