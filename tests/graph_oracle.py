"""Which graph does llama.cpp run? Its nodes in order, seen through the evaluation callback, for tests to compare.

Runs as a child process, `python tests/graph_oracle.py N_TOKENS PARAMS LORAS PATH...`, since llama.cpp may abort; prints
one JSON array a file. Weights are read but need not mean anything: a sparse file's are zero.

A node is [operation, type, ne, parameters, sources, whether it is an output]. A source is the number of an earlier
node, a weight's name, or "input". Parameters are those of `ggufphys.graph.ops`, and [] for operations that have none
there.

Source: llama.cpp 0c1e570 ggml/include/ggml.h, ggml_tensor; ggml/src/ggml.c (which numbers each operation keeps).
"""

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from ggufphys.context import cache_type
from ggufphys.gguf import GGMLType
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.ops import IN_F32
from ggufphys.graph.rope import Rope
from ggufphys.params import Params
from refengine.peers.trace_child import GgmlTensor

Node = list[Any]

CONTEXT_TYPES = {"default": 0, "mtp": 1}
FLASH_ATTN = {"auto": -1, "off": 0, "on": 1}
ROPE_MODES = {"norm": 0, "neox": 2, "mrope": 8, "vision": 24, "imrope": 40}
FLAG_INPUT, FLAG_OUTPUT = 1, 2
PREC_F32 = 10  # GGML_PREC_F32
RENAMED_CACHES = {  # by plamo2, kimi-linear, glm5-next, deepseek4 and qwen4exp
    "mamba_conv1d_state-": "cache_r_l", "mamba_ssm_states-": "cache_s_l", "conv_states_all-": "cache_r_l",
    "cache_idx_k_l": "cache_k_l", "dsv4_": "cache_", "cache_ple_r_l": "cache_p_l",
}  # fmt: skip


def llama_graphs(
    paths: Sequence[Path], params: Params, n_tokens: int, loras: Sequence[Path] = ()
) -> list[list[Node] | None]:
    """What llama.cpp runs for a batch of `n_tokens` of each sequence, one logit wanted; None where it refuses.

    With `loras` each model has an adapter, in full strength.
    Where a decoder has an encoder before it, that has read the same tokens. llama.cpp may also die of a file; the
    remaining ones get a new process.
    """
    graphs: list[list[Node] | None] = []
    while len(graphs) < len(paths):
        answer = subprocess.run(
            [
                sys.executable,
                __file__,
                str(n_tokens),
                json.dumps(asdict(params)),
                json.dumps([str(lora) for lora in loras[len(graphs) :]]),
                *map(str, paths[len(graphs) :]),
            ],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        graphs += [json.loads(line) for line in answer.stdout.splitlines()]
        if answer.returncode:
            graphs.append(None)
        elif len(graphs) < len(paths):
            raise AssertionError(f"the oracle said too little: {answer.stderr[-2000:]}")
    return graphs


def our_nodes(graph: Graph) -> list[Node]:
    """Our graph as the oracle tells its own."""
    numbers = {node: i for i, node in enumerate(graph.nodes)}

    def source(tensor: Tensor) -> int | str:
        if tensor.op != "NONE":
            return numbers[tensor]
        if not tensor.external:
            return "input" if tensor.is_input else "leaf"
        return tensor.name or "cache_{}_l{}".format(*tensor.params)

    return [
        [node.op, node.type.name, list(node.ne), _params(node), [source(s) for s in node.src], node.is_output]
        for node in graph.nodes
    ]


def first_difference(ours: Sequence[Node], theirs: Sequence[Node]) -> str:
    """Where two graphs part, in words; empty if nowhere."""
    for i, (a, b) in enumerate(zip(ours, theirs, strict=False)):
        if not _alike(a, b):
            return f"node {i}: ours is {a}, llama.cpp's {b}"
    if len(ours) != len(theirs):
        return f"{len(ours)} nodes, llama.cpp has {len(theirs)}"
    return ""


def _alike(a: object, b: object) -> bool:
    if a == b:  # as nearly always
        return True
    if isinstance(a, float) and isinstance(b, int | float):
        return abs(a - b) <= 1e-6 * max(abs(a), abs(b))  # llama.cpp computes with float32
    return isinstance(a, list) and isinstance(b, list) and len(a) == len(b) and all(map(_alike, a, b))


def _params(node: Tensor) -> list[Any]:
    match node.op, node.params:
        case (("ROPE" | "ROPE_BACK"), (Rope() as rope,)):
            sections = [*rope.sections, 0, 0, 0, 0][:4]
            yarn = [rope.freq_base, rope.freq_scale, rope.ext_factor, rope.attn_factor, rope.beta_fast, rope.beta_slow]
            return [rope.n_dims, ROPE_MODES[rope.mode], rope.n_ctx_orig, *yarn, *sections, rope.offset]
        case (("SOFT_MAX" | "FLASH_ATTN_EXT"), (*numbers, _)):
            return numbers
        case "UNARY", (kind, *numbers):
            return [str(kind), *numbers]
        case "GLU", (kind, *rest):
            return [str(kind), False, *rest]  # no model has the halves swapped
        case "ARGSORT", _:
            return []
        case _, params:
            return list(params)


# -- in the child


def _read_floats(*places: int) -> Callable[[GgmlTensor], list[Any]]:
    def read(tensor: GgmlTensor) -> list[Any]:
        floats = ctypes.cast(tensor.op_params, ctypes.POINTER(ctypes.c_float))
        return [floats[i] for i in places]

    return read


def _read_rope(tensor: GgmlTensor) -> list[Any]:
    p = tensor.op_params
    return [p[1], p[2], p[4], *_read_floats(5, 6, 7, 8, 9, 10)(tensor), *p[11:16]]


def _readers(library: Any) -> Mapping[str, Callable[[GgmlTensor], list[Any]]]:
    unary, glu = library.ggml_unary_op_name, library.ggml_glu_op_name
    for function in (unary, glu):
        function.restype, function.argtypes = ctypes.c_char_p, [ctypes.c_int]

    def read_unary(tensor: GgmlTensor) -> list[Any]:
        kind = unary(tensor.op_params[0]).decode().lower()
        return [kind, *(_read_floats(1, 2, 3, 4)(tensor) if kind == "xielu" else [])]

    def read_glu(tensor: GgmlTensor) -> list[Any]:
        kind = glu(tensor.op_params[0]).decode().lower()
        numbers = {"swiglu_oai": (2, 3), "swiglu_clamp": (3,)}.get(kind, ())
        return [kind, bool(tensor.op_params[1]), *_read_floats(*numbers)(tensor)]

    def read_pad(tensor: GgmlTensor) -> list[Any]:
        before = [tensor.op_params[i] for i in (0, 2, 4, 6)]
        return before if any(before) else []

    def read_im2col(tensor: GgmlTensor) -> list[Any]:
        return [tensor.op_params[0], tensor.op_params[2], bool(tensor.op_params[6])]

    return {
        "IM2COL": read_im2col,
        "PAD": read_pad,
        "MUL_MAT_ID": lambda tensor: [IN_F32] if tensor.op_params[3] == PREC_F32 else [],
        "GROUP_NORM": lambda tensor: [tensor.op_params[0], *_read_floats(1)(tensor)],
        "ROPE": _read_rope, "ROPE_BACK": _read_rope, "UNARY": read_unary, "GLU": read_glu,
        "RMS_NORM": _read_floats(0), "NORM": _read_floats(0), "L2_NORM": _read_floats(0), "FILL": _read_floats(0),
        "SCALE": _read_floats(0, 1), "CLAMP": _read_floats(0, 1), "SOFT_MAX": _read_floats(0, 1),
        "FLASH_ATTN_EXT": _read_floats(0, 1, 2), "GATED_LINEAR_ATTN": _read_floats(0),
        "ARANGE": _read_floats(0, 1, 2),
        "DSV4_HC_PRE": lambda tensor: [*_read_floats(0)(tensor), bool(tensor.op_params[1])],
        "DSV4_HC_COMB": lambda tensor: [*_read_floats(0)(tensor), tensor.op_params[1]],
        "POOL_2D": lambda tensor: [("max", "avg")[tensor.op_params[0]], tensor.op_params[1]],
        "SET": lambda tensor: [tensor.op_params[3] // 4],  # bytes of elements of F32
        **dict.fromkeys(("CONCAT", "SSM_SCAN", "GATED_DELTA_NET"), lambda tensor: [tensor.op_params[0]]),
    }  # fmt: skip


def main(n_tokens: int, p: Params, loras: Sequence[str], paths: Sequence[str]) -> None:
    """Decode one batch with each model."""
    from ggufphys.machine import llama_env
    from ggufphys.machine.llama_log import hear

    llama_env.prepare()
    import llama_cpp as api

    hear(api, lambda text: None)
    api.llama_backend_init()
    library = api.llama_cpp._lib
    op_name = library.ggml_op_name
    op_name.restype, op_name.argtypes = ctypes.c_char_p, [ctypes.c_int]
    readers = _readers(library)
    nodes: list[Node] = []
    numbers: dict[int, int] = {}

    @ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_bool, ctypes.c_void_p)  # type: ignore[untyped-decorator]
    def look(address: int, asks: bool, user_data: object) -> bool:
        if asks:
            tensor = GgmlTensor.from_address(address)
            op = op_name(tensor.op).decode()
            others = [s for s in tensor.src if s and s != address]  # a cast names its result as a source
            sources = [numbers.get(s) if s in numbers else _leaf(s) for s in others]
            numbers[address] = len(nodes)
            read = readers.get(op)
            params, is_output = read(tensor) if read else [], bool(tensor.flags & FLAG_OUTPUT)
            nodes.append([op, GGMLType(tensor.type).name, list(tensor.ne), params, sources, is_output])
        return False

    for i, path in enumerate(paths):
        nodes.clear()
        numbers.clear()
        settings = api.llama_model_default_params()
        settings.use_extra_bufts, settings.load_mtp = False, p.load_mtp
        model = api.llama_model_load_from_file(path.encode(), settings)
        native = api.llama_context_default_params()
        native.n_ctx, native.n_batch, native.n_ubatch, native.n_threads = p.n_ctx, p.n_batch, p.n_ubatch, 1
        native.type_k, native.type_v = int(cache_type(p.type_k)), int(cache_type(p.type_v))
        native.ctx_type = CONTEXT_TYPES[p.ctx_type]
        native.flash_attn_type, native.swa_full = FLASH_ATTN[p.flash_attn], p.swa_full
        native.n_seq_max, native.kv_unified = p.n_seq_max, p.kv_unified
        native.cb_eval = ctypes.cast(look, type(native.cb_eval))
        context = api.llama_init_from_model(model, native)
        if not context or (loras and not _adapt(api, model, context, loras[i])):
            print("null", flush=True)
            continue
        tokens = (api.llama_token * n_tokens)(*range(n_tokens))
        if _encodes_tokens(api, model):  # the decoder asks for what was encoded
            assert api.llama_encode(context, api.llama_batch_get_one(tokens, n_tokens)) == 0
            nodes.clear()
            numbers.clear()
        assert api.llama_decode(context, _batch(api, tokens, p.n_seq_max)) == 0
        print(json.dumps(nodes), flush=True)
        api.llama_free(context)
        api.llama_model_free(model)


def _adapt(api: Any, model: object, context: object, path: str) -> bool:
    """Set the adapter, if llama.cpp takes it."""
    adapter = api.llama_adapter_lora_init(model, path.encode())
    if not adapter:
        return False
    set_adapters = api.llama_cpp._lib.llama_set_adapters_lora
    set_adapters.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    handles = (ctypes.c_void_p * 1)(ctypes.cast(adapter, ctypes.c_void_p).value)
    return bool(set_adapters(context, handles, 1, (ctypes.c_float * 1)(1.0)) == 0)


def _batch(api: Any, tokens: Sequence[int], n_seqs: int) -> Any:
    """The same tokens for each sequence, the last one's last logits wanted."""
    batch = api.llama_batch_init(len(tokens) * n_seqs, 0, 1)
    for i, (sequence, (position, token)) in enumerate(product(range(n_seqs), enumerate(tokens))):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = token, position, 1, sequence
        batch.logits[i] = i == len(tokens) * n_seqs - 1
    batch.n_tokens = len(tokens) * n_seqs
    return batch


def _encodes_tokens(api: Any, model: object) -> bool:
    """Is it a model of an encoder and a decoder? Draft models have an encoder too, of their target's features."""
    name = ctypes.create_string_buffer(16)
    api.llama_model_meta_val_str(model, b"general.architecture", name, len(name))
    return name.value == b"t5"


def _leaf(address: int) -> str:
    tensor = GgmlTensor.from_address(address)
    name = str(tensor.name.decode())
    for theirs, ours in RENAMED_CACHES.items():
        name = name.replace(theirs, ours)
    if tensor.flags & FLAG_INPUT:
        return "input"
    return "leaf" if name.startswith("leaf_") or not name else name


if __name__ == "__main__":
    main(int(sys.argv[1]), Params.from_json(json.loads(sys.argv[2])), json.loads(sys.argv[3]), sys.argv[4:])
