"""A mapped file's weights must begin where llama.cpp can map them."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from ggufphys import Params, open_gguf, predict_memory
from ggufphys.gguf.writer import data_bytes, encode_header
from tests.ggufphys.models import llama_metadata, llama_tensors

PARAMS = Params(n_ctx=256, n_threads=2)


@pytest.mark.parametrize("alignment", [8, 16])
def test_a_mapped_file_begins_at_multiples_of_32(tmp_path: Path, alignment: int) -> None:
    """Of files that are aligned to less, those whose first tensor lies elsewhere can be read, not mapped."""
    path, n_refused, n_mapped = tmp_path / "model.gguf", 0, 0
    for n in range(0, 32, alignment):
        metadata = llama_metadata("llama", **{"general.name": "x" * (n + 1)})
        header = encode_header(metadata, llama_tensors(), alignment=alignment)
        path.write_bytes(header)
        os.truncate(path, len(header) + data_bytes(llama_tensors(), alignment))
        with open_gguf(path) as gguf:
            assert predict_memory(gguf, replace(PARAMS, use_mmap=False)).model_bytes
            if len(header) % 32:
                n_refused += 1
                with pytest.raises(ValueError, match=f"begins at byte {len(header):,}, expected a multiple of 32"):
                    predict_memory(gguf, PARAMS)
            else:
                n_mapped += 1
                assert predict_memory(gguf, PARAMS).model_bytes
    assert n_refused
    assert n_mapped
