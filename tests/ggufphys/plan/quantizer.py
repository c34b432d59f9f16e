"""llama.cpp's own quantiser, in a child process, for tests to compare with: one JSON request and answer a line."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ggufphys.gguf import TensorInfo
from ggufphys.gguf.writer import TensorSpec
from ggufphys.plan.quantize import QuantizeOptions, ftype_number


class Quantizer:
    """The child while the block runs."""

    def __enter__(self) -> Self:
        self.child = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("quantizer_child.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.child.communicate()

    def ask(
        self, path: Path, file_type: str, options: QuantizeOptions, *, output: Path | None = None, **fields: Any
    ) -> dict[str, Any]:
        """{"types"} by tensor name, or {"error"}; a dry run without `output`. `fields` go before those of `options`."""
        request = {
            "path": str(path),
            "ftype": ftype_number(file_type),
            "output": output and str(output),
            **their_options(options),
            **fields,
        }
        stdin, stdout = self.child.stdin, self.child.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(request) + "\n")
        stdin.flush()
        line = stdout.readline()
        assert line, f"the quantiser died, exit code {self.child.wait()}"
        answer: dict[str, Any] = json.loads(line)
        return answer


def their_options(options: QuantizeOptions) -> dict[str, Any]:
    """The same as fields of llama_model_quantize_params; a type that is not asked for is left as it is."""
    return {
        "imatrix": {"unused": 1} if options.has_imatrix else None,
        "allow_requantize": options.allow_requantize,
        "quantize_output_tensor": not options.leave_output_tensor,
        "pure": options.pure,
        **{
            name: int(asked)
            for name in ("output_tensor_type", "token_embedding_type")
            if (asked := getattr(options, name)) is not None
        },
        "tensor_types": [(pattern, int(ggml_type)) for pattern, ggml_type in options.tensor_types],
    }


def even_imatrix(tensors: Iterable[TensorInfo | TensorSpec]) -> dict[str, int]:
    """The number of weights of an importance matrix that covers every tensor."""
    return {t.name: t.ne[0] * (t.ne[2] if len(t.ne) > 2 else 1) for t in tensors}
