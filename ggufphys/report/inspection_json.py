"""The report of `inspect` as one JSON document."""

from typing import Any, Final

from ggufphys.frozen import asdict
from ggufphys.gguf import GGUFFile
from ggufphys.memory.phases import ProcessMemory
from ggufphys.memory.prediction import MemoryPrediction
from ggufphys.memory.terms import total
from ggufphys.params import Params
from ggufphys.report.inspection import SCHEMA_VERSION, Inspection, dumps, type_bytes
from ggufphys.report.loads import loads_json

_LOAD_PARAMS: Final = ("use_mmap", "use_mlock", "use_direct_io", "use_extra_bufts", "use_amx", "use_blas")
_DEVICE_PARAMS: Final = (
    "devices", "n_gpu_layers", "split_mode", "tensor_split", "main_gpu", "offload_kqv", "op_offload",
    "override_tensor", "n_cpu_moe", "no_host",
)  # fmt: skip


def inspect_json(found: Inspection) -> str:
    """The document; `memory` is null for files that are no model, `fits` there if it was asked."""
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "model": model_json(found.gguf),
        "loads": loads_json(found.refusals, found.is_unknown) if found.gguf.kind == "model" else None,
        "params": None,
        "memory": None,
        "speed": None,
        "notes": list(found.all_notes),
    }
    if found.prediction is not None and found.params is not None:
        document["params"] = _params_json(found.prediction, found.params)
        document["memory"] = _memory_json(found.prediction)
    elif found.weights:
        document["memory"] = {
            "model_bytes": total(found.weights, "model"),
            "context_bytes": None,
            "compute_bytes": None,
            "output_bytes": None,
            "total_bytes": None,
            "process_bytes": None,
            "basis": {"model": "exact", "context": "unsupported", "compute": "unsupported"},
            "devices": [],
            "terms": [asdict(term) for term in found.weights],
        }
    elif found.attachment:
        nbytes = total(found.attachment, "attachment")
        document["memory"] = {
            **dict.fromkeys(("model_bytes", "context_bytes", "compute_bytes", "output_bytes", "process_bytes")),
            "attachment_bytes": nbytes,
            "total_bytes": nbytes,
            "basis": {},
            "devices": [],
            "terms": [asdict(term) for term in found.attachment],
        }
    if found.fits:
        document["fits"] = [{**asdict(fit), "margin_bytes": fit.margin_bytes, "fits": fit.holds} for fit in found.fits]
    document.update((section.key, section.value) for section in found.sections)
    return dumps(document)


def model_json(gguf: GGUFFile) -> dict[str, Any]:
    """What the file is, as it stands under `model` in every document."""
    return {
        "path": gguf.location,
        "kind": gguf.kind,
        "architecture": gguf.architecture,
        "name": gguf.name,
        "n_params": gguf.n_params,
        "n_tensors": len(gguf.tensors),
        "n_shards": len(gguf.shards),
        "file_bytes": gguf.file_bytes,
        "missing_bytes": gguf.missing_bytes,
        "bpw": gguf.bpw,
        "file_type": gguf.file_type,
        "type_bytes": type_bytes(gguf),
    }


def _params_json(prediction: MemoryPrediction, params: Params) -> dict[str, Any]:
    asked = asdict(params)
    context = asdict(prediction.context)
    del context["rules"]  # which follow from the build
    return {
        "as": params.run_as,
        **context,
        "llama_build": params.llama_build,
        "type_k": params.type_k,
        "type_v": params.type_v,
        "flash_attn": params.flash_attn,
        "load_mode": params.load_mode,
        **{name: asked[name] for name in _LOAD_PARAMS},
        **{name: asked[name] for name in _DEVICE_PARAMS},
    }


def _process_json(process: ProcessMemory) -> dict[str, Any]:
    return {
        "anon_bytes": process.anon_bytes,
        "file_bytes": process.file_bytes,
        "device_bytes": process.device_bytes,
        "locked_bytes": process.locked_bytes,
        "peak_bytes": process.peak_bytes,
        "needed_bytes": process.needed_bytes,
        "phases": [asdict(phase) for phase in process.phases],
    }


def _memory_json(prediction: MemoryPrediction) -> dict[str, Any]:
    return {
        "model_bytes": prediction.model_bytes,
        "context_bytes": prediction.context_bytes,
        "compute_bytes": prediction.compute_bytes,
        "output_bytes": prediction.output_bytes,
        "attachment_bytes": prediction.attachment_bytes,
        "total_bytes": prediction.total_bytes,
        "process_bytes": prediction.process_bytes,
        "process": _process_json(prediction.process),
        "basis": prediction.basis,
        "devices": [asdict(device) for device in prediction.devices],
        "terms": [asdict(term) for term in prediction.terms],
    }
