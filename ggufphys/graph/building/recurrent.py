"""The states of recurrent layers: which one belongs to which sequence, how they are read, and how written back.

A layer keeps two rows for each sequence: R, the last inputs of its convolution, and S, the state of its recurrence;
few keep a third, P, the last inputs of another convolution. With rollback there are `n_rs_seq` older rows of each, in
stretches of `n_seq_max`.

Legend: N n_seqs, T tokens of a sequence. Source: llama.cpp 0c1e570 src/llama-graph.cpp, build_rs, build_rs_inp;
src/llama-memory-recurrent.cpp; src/models/delta-net-base.cpp, build_conv_state.
"""

from collections.abc import Callable, Iterable
from typing import Literal

from ggufphys.graph import ops
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.ir import Tensor
from ggufphys.graph.ops import F32, I32

Part = Literal["r", "s", "p"]

ReadStates = Callable[[Tensor, Tensor], Tensor]
"""What reads the sequences' rows: called with all rows (n_embd, n_rows) and the numbers of the rows (N,)."""


class Recurrent:
    """The inputs that all recurrent layers share, and the nodes that read and write a layer's rows."""

    def __init__(self, b: Builder) -> None:
        self.b = b
        self.n_seqs = b.batch.n_seqs
        self.n_seq_tokens = b.batch.n_tokens // self.n_seqs
        states = b.batch.states
        # llama.cpp reserves for all sequences there may be; a batch that runs needs no more rows than it has sequences.
        n_rows = states.n_rows or (b.context.n_seq_max if b.batch.n_kv is None else self.n_seqs)
        self.first, self.zero = states.first, states.zero
        self.s_copy = ops.new_input(I32, n_rows, name="s_copy")
        self.s_copy_main = ops.view(self.s_copy, (self.n_seqs,))
        self.n_extra = n_rows - self.n_seqs
        self._views: dict[int, Tensor] = {}

    def rows(self, part: Part, il: int) -> Tensor:
        """R, S or P of a layer: (n_embd, n_rows)."""
        state = self.b.recurrent(il)
        assert state is not None, f"layer {il} is not recurrent"
        n_rows = self.b.context.n_seq_max * (1 + self.b.context.n_rs_seq)
        width = {"r": state.n_embd_r, "s": state.n_embd_s, "p": state.n_embd_p}[part]
        return ops.weight(F32, width, n_rows, params=(part, il))

    def read(self, rows: Tensor, get_rows: ReadStates | None = None) -> Tensor:
        """The sequences' rows (n_embd, N), or what `get_rows` makes of them.

        On the way the row of new sequences is cleared, and rows that belong to no sequence of the batch are moved.
        """
        graph, width = self.b.graph, rows.ne[0]
        states = ops.reshape(rows, width, rows.ne[1])
        zero = self.zero
        cleared = ops.view(states, (0,)) if zero is None else ops.view(states, (width,), offset=zero * states.nb[1])
        graph.expand(ops.scale_inplace(cleared, 0.0))
        if "states_gathered_once" in self.b.context.rules:
            result, moved = self._gathered(states, get_rows)
        else:
            result = graph.expand((get_rows or ops.get_rows)(states, self.s_copy_main))
            moved = ops.get_rows(states, self._numbers(self.n_seqs))
        behind = ops.strided(rows, (width, moved.ne[1]), (rows.nb[1],), (self.first + self.n_seqs) * rows.nb[1])
        graph.expand(ops.cpy(moved, behind))
        return result

    def _gathered(self, states: Tensor, get_rows: ReadStates | None) -> tuple[Tensor, Tensor]:
        """All rows in one go, then views: what the sequences read, and the rows that are moved.

        What reads rows by itself leaves its first sequence out, so that one sequence alone has nothing copied.

        Source: llama.cpp b11434 src/llama-graph.cpp, build_rs, build_rs_inp_impl (s_copy_tail).
        """
        first = 0 if get_rows is None else 1
        gathered = ops.get_rows(states, self._numbers(first))
        row_bytes = gathered.nb[1]
        if get_rows is None:
            result = ops.strided(gathered, (states.ne[0], self.n_seqs), (row_bytes,))
        else:
            result = get_rows(states, self.s_copy_main)
        self.b.graph.expand(result)
        offset = (self.n_seqs - first) * row_bytes
        return result, ops.strided(gathered, (states.ne[0], self.n_extra), (row_bytes,), offset)

    def _numbers(self, first: int) -> Tensor:
        """The numbers of the rows from the `first` on."""
        if first and first not in self._views:  # one view for all layers
            n = self.s_copy.ne[0] - first
            self._views[first] = ops.view(self.s_copy, (n,), offset=first * self.s_copy.nb[0])
        return self._views[first] if first else self.s_copy

    # -- convolutions

    def slots(self) -> range:
        """The rows of a sequence that a batch writes, the latest first: one, or as many as can be rolled back."""
        return range(min(self.n_seq_tokens, 1 + self.b.context.n_rs_seq))

    def conv_input(
        self, x: Tensor, il: int, slots: Iterable[int] | None = None,
        *, centred: bool = False, part: Part = "r", dense: bool = False,
    ) -> Tensor:  # fmt: skip
        """What a layer's convolution reads: the last inputs, then X (channels, T, N): (d_conv - 1 + T, channels, N).

        The last inputs of the next batch are stored; those of `slots` tokens ago too. A `centred` convolution looks
        forward as far as back: zeros stand for what follows the batch. What is stored is copied first if `dense`.
        """
        rows = self.rows(part, il)
        channels = x.ne[0]
        n_last = rows.ne[0] // channels
        last = ops.reshape(self.read(rows), n_last, channels, self.n_seqs)
        half = n_last // 2
        if centred:
            last = ops.cont(ops.strided(last, (half, *last.ne[1:3]), last.nb[1:3], (n_last - half) * last.nb[0]))
        x = ops.concat(last, ops.transpose(x), 0)
        if centred:
            x = ops.pad(x, x.ne[0] + half, *x.ne[1:])
        self.store_conv(x, rows, self.slots() if slots is None else slots, dense=dense)
        return x

    def store_conv(self, x: Tensor, rows: Tensor, slots: Iterable[int], *, dense: bool = False) -> None:
        """Write the last columns of X (columns, channels, N) into rows, and those of `slots` tokens ago."""
        n_last = rows.ne[0] // x.ne[1]
        for slot in slots:
            first = max(x.ne[0] - n_last - slot, 0)
            last = ops.strided(x, (n_last, x.ne[1], self.n_seqs), (x.nb[1], x.nb[2]), first * x.nb[0])
            self.b.graph.expand(ops.cpy(ops.cont(last) if dense else last, self.slot(rows, slot)))

    def slot(self, rows: Tensor, slot: int) -> Tensor:
        """The sequences' rows as they were `slot` tokens ago."""
        return ops.strided(rows, (rows.ne[0], self.n_seqs), (rows.nb[1],), self.offset(rows, slot))

    def offset(self, rows: Tensor, slot: int = 0) -> int:
        """Bytes in front of the sequences' rows as they were `slot` tokens ago."""
        return (slot * self.b.context.n_seq_max + self.first) * rows.nb[1]

    # -- states

    def store_states(self, result: Tensor, offset: int, il: int) -> None:
        """Write the states that a scan left `offset` bytes into its result, the latest first."""
        rows = self.rows("s", il)
        n_slots, row_bytes = len(self.slots()), rows.nb[1]
        left = ops.strided(result, (rows.ne[0], self.n_seqs, n_slots), (row_bytes, row_bytes * self.n_seqs), offset)
        strides = (row_bytes, row_bytes * self.b.context.n_seq_max)
        kept = ops.strided(rows, (rows.ne[0], self.n_seqs, n_slots), strides, self.offset(rows))
        self.b.graph.expand(ops.cpy(left, kept))
