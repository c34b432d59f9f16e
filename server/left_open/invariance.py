"""--batch-invariant: how is a model run so that an answer has the bits of a lone request's, and where can't it be?

What a step then holds, and why so, is in `server/engine/scheduler/alike.py`. How many slots make a block follows from
the types of weights: kernels for several rows begin at two, repacked weights take four rows at a time and the rest one
by one, and K and IQ types are multiplied in tiles from eight on.

Source: llama.cpp 0c1e570 ggml/src/ggml-cpu: llamafile/sgemm.cpp, llamafile_sgemm; repack.cpp,
forward_mul_mat_one_chunk; tiled/tiled.cpp, ggml_tiled_matmul_type_dispatch, ggml_tiled_min_batch,
ggml_tiled_matmul_enabled.
"""

import argparse
import os
import platform
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from ggufphys import UnsupportedError, open_gguf
from ggufphys.arch import FullKV, WindowKV, read_hparams, rule_for
from ggufphys.gguf import GGMLType, GGUFFile
from ggufphys.hparams.hparams import HParams
from ggufphys.params import Params
from server.engine.scheduler.alike import LONGEST
from server.flags.guessing import named_draft

MACHINES: Final = ("x86_64", "AMD64")
TILES: Final = "GGML_CPU_TILED_MM"  # in the environment, 0: no tiles

AT_LEAST: Final = 2  # also where each row is multiplied by itself: one token alone is attended to in parts
REPACKED: Final = 4
TILED: Final = 8

REPACKED_TYPES: Final = frozenset(
    {GGMLType.Q4_0, GGMLType.IQ4_NL, GGMLType.MXFP4, GGMLType.Q4_K, GGMLType.Q2_K}
)  # fmt: skip
TILED_TYPES: Final = frozenset(
    {
        GGMLType.Q2_K, GGMLType.Q3_K, GGMLType.Q4_K, GGMLType.Q5_K, GGMLType.Q6_K, GGMLType.IQ1_S, GGMLType.IQ1_M,
        GGMLType.IQ2_XXS, GGMLType.IQ2_XS, GGMLType.IQ2_S, GGMLType.IQ3_XXS, GGMLType.IQ3_S, GGMLType.IQ4_XS,
    }
)  # fmt: skip


def invariant(args: argparse.Namespace, params: Params, path: Path) -> tuple[Params, int]:
    """`params` with slots in whole blocks that share nothing, and how many make one; 0 and as they are if not asked.

    Slots beyond those that -np asks for are as long as its are.

    Raises:
        UnsupportedError: of this model, or on this machine, no such answers are known.
        ValueError: other flags forbid it.
    """
    if not args.batch_invariant:
        return params, 0
    _refuse(args, params)
    with open_gguf(path) as gguf:
        hparams = read_hparams(gguf)
        if why := _why_not(gguf, hparams, params):
            raise UnsupportedError(f"{path}: --batch-invariant: {why}")
        block = block_of(gguf, params)
    n_slots = -(-params.n_seq_max // block) * block
    n_ctx = params.n_ctx
    if "n_seq_max" in vars(args) and n_slots != params.n_seq_max:
        n_ctx = (n_ctx or hparams.n_ctx_train) // params.n_seq_max * n_slots
    least = max(LONGEST, n_slots)
    if min(params.n_ubatch, params.n_batch) < least:
        n_least = f"n_ubatch = {params.n_ubatch} and n_batch = {params.n_batch}, expected at least {least}"
        raise ValueError(f"--batch-invariant: {n_least}: what goes together is one pass")
    return replace(params, n_seq_max=n_slots, n_ctx=n_ctx, kv_unified=False), block


def block_of(gguf: GGUFFile, params: Params, environment: Mapping[str, str] = os.environ) -> int:
    """How many slots make a block for these weights."""
    types = {tensor.ggml_type for tensor in gguf.tensors if len(tensor.ne) > 1}
    if types & TILED_TYPES and _has_tiles(environment):
        return TILED
    return REPACKED if types & REPACKED_TYPES and params.use_extra_bufts else AT_LEAST


def _has_tiles(environment: Mapping[str, str]) -> bool:
    return environment.get(TILES, "1") != "0"


def _refuse(args: argparse.Namespace, params: Params) -> None:
    """Raises ValueError, UnsupportedError: not with these flags, or not on this machine."""
    if args.engine == "numpy":
        raise ValueError("--batch-invariant: the numpy engine has one request at a time; leave it out")
    if params.embeddings:
        raise ValueError("--batch-invariant: no answers are generated here, whose bits could be the same; leave it out")
    if args.spec_type or named_draft(args):
        raise ValueError("--batch-invariant: guesses make rows of an answer more; without --spec-type, --model-draft")
    if vars(args).get("kv_unified"):
        raise ValueError("--batch-invariant: in one cache an answer's cells lie as others leave them; without -kvu")
    if platform.machine() not in MACHINES:
        found = f"this is {platform.machine()}"
        raise UnsupportedError(f"--batch-invariant: which kernels add up alike is known of x86-64 alone, and {found}")
    if params.devices and params.n_gpu_layers:
        names = ", ".join(device.name for device in params.devices)
        raise UnsupportedError(f"--batch-invariant: it is known of the CPU alone, not of {names}: --device none")


def _why_not(gguf: GGUFFile, hparams: HParams, params: Params) -> str:
    """Why nothing can be promised of the model; empty: it can."""
    for caches in rule_for(hparams.arch).layers(hparams):
        for cache in caches:
            if isinstance(cache, WindowKV) and not params.swa_full:
                return "a window's cache lies as its past has it; --swa-full keeps all"
            if type(cache) not in (FullKV, WindowKV):
                return f"{hparams.arch} keeps more than keys and values by position, from which no token is taken back"
    experts = {tensor.ggml_type for tensor in gguf.tensors if len(tensor.ne) == 3} & TILED_TYPES
    if experts and _has_tiles(os.environ):
        names = ", ".join(sorted(GGMLType(each).name for each in experts))
        return f"how many rows an expert gets is others' doing, and kernels of {names} go by it; {TILES}=0 forbids that"
    return ""
