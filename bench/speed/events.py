"""What does a measuring process tell? Its events one by one, or why it failed."""

import json
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

from bench.running.telling import said_in
from ggufphys.errors import GGUFPhysError
from ggufphys.machine.children import describe, environment, module_command


def measured(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Each measurement of the child.

    Raises:
        GGUFPhysError: the child failed.
    """
    return (event for event in events("bench.speed.child", config) if "question" in event)


def events(module: str, config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a measuring process tells.

    Raises:
        GGUFPhysError: it failed.
    """
    command = module_command(module, json.dumps(config))
    with (
        tempfile.TemporaryFile() as stderr,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=stderr,
            encoding="utf-8",
            errors="replace",
            env=environment(spinning=True),
        ) as child,
    ):
        assert child.stdout is not None
        try:
            for line in child.stdout:
                event = json.loads(line)
                if "error" in event:
                    said = event["message"]
                    raise GGUFPhysError(said if config["path"] in said else f"{config['path']}: {said}")
                yield event
            code = child.wait()
        except BaseException:
            child.kill()
            raise
        if code:
            ended = f"{config['path']}: the measuring process ended with {describe(code)}"
            raise GGUFPhysError(ended + said_in(stderr))
