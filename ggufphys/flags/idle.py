"""Which flags of a pasted line change nothing, given the others? llama.cpp overlooks them, too, but says nothing.

Source: llama.cpp 0c1e570 src/llama.cpp, llama_prepare_model_devices (main_gpu); common/common.cpp, common_init_result
(fit_params); tools/server/server-context.cpp, load_model (kv_unified_per_slot).
"""

import argparse
from collections.abc import Iterator, Mapping
from typing import Final

from ggufphys.params import Params

# By what they are about: their destinations, and names.
_OF_DEVICES: Final = {
    "tensor_split": "-ts", "split_mode": "-sm", "main_gpu": "-mg", "offload_kqv": "-kvo/-nkvo",
    "op_offload": "--op-offload/--no-op-offload", "no_host": "--no-host",
}  # fmt: skip
_OF_DRAFT: Final = {
    "draft_type_k": "-ctkd", "draft_type_v": "-ctvd", "draft_n_gpu_layers": "-ngld", "draft_device_specs": "-devd",
    "draft_override_tensor": "-otd", "draft_n_cpu_moe": "-ncmoed", "draft_n_max": "--spec-draft-n-max",
}  # fmt: skip
_OF_MMPROJ: Final = {
    "mmproj_offload": "--no-mmproj-offload", "mmproj_device": "-mmdev", "image_max_tokens": "--image-max-tokens",
    "batch_max_tokens": "--mtmd-batch-max-tokens",
}  # fmt: skip
_WITHOUT_CONTEXT: Final = {"n_ctx_each": "--kv-unified-per-slot", "fit_ctx": "-fitc", "fit_target": "-fitt"}
_OF_FIT: Final = {name: _WITHOUT_CONTEXT[name] for name in ("fit_ctx", "fit_target")}


def idle_notes(args: argparse.Namespace, params: Params) -> Iterator[str]:
    """A sentence for each reason why flags that were given change nothing."""
    given = vars(args)
    idle = (
        (_OF_DEVICES, not params.devices, "there is no device"),
        (_OF_DRAFT, "draft_model" not in given, "there is no draft model (-md)"),
        (_OF_MMPROJ, "mmproj" not in given, "there is no --mmproj"),
        (_WITHOUT_CONTEXT, "n_ctx" in given, "-c says how long the context is"),
        (_OF_FIT, given.get("fit") == "off", "--fit is off"),
        ({**_WITHOUT_CONTEXT, "fit": "-fit"}, given.get("run_as_asked") == "library", "--as library has no server"),
    )
    for names, holds, why in idle:
        if holds and (flags := _named(names, given)):
            yield f"{flags}: nothing changes by that, since {why}"
    n_devices = len(params.devices)
    if n_devices and params.split_mode != "none" and "main_gpu" in given:
        yield f"-mg: nothing changes by that, since split mode {params.split_mode} divides the layers among all devices"
    if 0 < n_devices < len(params.tensor_split):
        yield f"-ts: {len(params.tensor_split)} proportions for {n_devices} devices: the first {n_devices} count"


def _named(names: Mapping[str, str], given: Mapping[str, object]) -> str:
    return ", ".join(flag for name, flag in names.items() if name in given)
