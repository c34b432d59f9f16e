"""How large is the compute buffer of each device?

It is as large as the largest graph that llama.cpp reserves for: a full prompt batch, a decode step.

Source: llama.cpp 0c1e570 src/llama-context.cpp, sched_reserve; ggml/src/ggml-alloc.c, ggml_gallocr_reserve_n.
"""

from collections.abc import Mapping

from ggufphys.context import ContextParams
from ggufphys.frozen import dataclass
from ggufphys.graph.allocating.layout import Layouts
from ggufphys.graph.batch import Batch, lone_prompt, reserved_batches
from ggufphys.graph.devices.placed import Placed
from ggufphys.params import HOST


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of the compute buffer of each device that computes, the host's first.

    Where the host has all, `batch` is the one that takes them.
    """

    nbytes: Mapping[str, int]
    batch: Batch | None = None


def buffer_sizes(layouts: Layouts, context: ContextParams, placed: Placed) -> Sizes:
    """The compute buffers of a model that lies like this."""
    if placed.uses_devices:
        from ggufphys.graph.devices.divided import divided_sizes  # what no run on the host needs

        return Sizes(divided_sizes(layouts, context, placed))
    return host_size(layouts, context, no_alloc=placed.params.no_alloc)


def host_size(layouts: Layouts, context: ContextParams, *, no_alloc: bool = False) -> Sizes:
    """The compute buffers of a model that lies on the host alone; with `no_alloc` of a full prompt alone."""
    prompt, decode = reserved_batches(context)
    sizes = {prompt: layouts.layout(context, prompt).allocation.buffer_bytes}
    if not no_alloc:
        if decode.n_seqs not in layouts.decode_counts and layouts.at_most(context, decode) > sizes[prompt]:
            layouts.decode_counts.add(decode.n_seqs)
        if decode.n_seqs in layouts.decode_counts:
            sizes[decode] = layouts.layout(context, decode).allocation.buffer_bytes
        if layouts.lone_prompt and context.n_seq_max > 1:
            alone = lone_prompt(context)
            sizes[alone] = layouts.layout(context, alone).allocation.buffer_bytes
    batch = max(sizes, key=lambda b: sizes[b])
    return Sizes({HOST: sizes[batch]}, batch)
