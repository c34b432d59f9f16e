"""Evaluates a prompt and prints the logits and the devices there are.

Run as a child: llama.cpp keeps a registered RPC worker for the life of the process and aborts when it is gone.
"""

import json
import sys
from pathlib import Path

import numpy as np

from ggufphys.params import Params
from server.engine.llama.batch import Batch
from server.engine.llama.devices import available_devices
from server.engine.llama.library import create_context, load_library, load_model

PROMPT = (3, 1, 4, 1, 5)


def main(path: Path, params: Params) -> None:
    """Print one JSON object."""
    with load_model(path, params) as model, create_context(model, params) as context, Batch(context, 8) as batch:
        batch.clear()
        batch.add(list(PROMPT), seq_id=0, start=0, logits_of_last=True)
        assert batch.decode(context) == 0
        n_vocab = int(model.api.llama_vocab_n_tokens(model.vocab))
        logits = np.ctypeslib.as_array(model.api.llama_get_logits_ith(context.pointer, -1), shape=(n_vocab,))
        devices = [device.name for device in available_devices(load_library())]
        print(json.dumps({"logits": [float(x) for x in logits], "devices": devices}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Params.from_json(json.loads(sys.argv[2])))
