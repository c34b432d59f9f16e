"""The trial that `amx.run_probe` starts: one prefill and one decode of a tiny quantised model, with extra buffers.

Run as `python -m server.engine.llama.amx_probe`. Exit status 0 when both went well; a broken build kills it instead.
"""

import sys
import tempfile
from pathlib import Path

from ggufphys.params import Params
from server.engine.llama.batch import Batch
from server.engine.llama.library import create_context, load_model
from server.engine.llama.tiny_model import write_tiny_model

PARAMS = Params(n_ctx=256, n_batch=32, n_ubatch=32, n_threads=1, use_mmap=False)


def main() -> int:
    """Run the trial; 0 when llama.cpp decoded, 1 when it said it could not."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.gguf"
        write_tiny_model(path)
        with load_model(path, PARAMS) as model, create_context(model, PARAMS) as context, Batch(context, 32) as batch:
            batch.add(range(32), seq_id=0, start=0, logits_of_last=True)
            prefill = batch.decode(context)
            batch.clear()
            batch.add((1,), seq_id=0, start=32, logits_of_last=True)
            return int(prefill != 0 or batch.decode(context) != 0)


if __name__ == "__main__":
    sys.exit(main())
