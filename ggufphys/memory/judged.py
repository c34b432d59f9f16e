"""Runs of a file that llama.cpp loads: what is predicted of any other is predicted by force alone."""

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager

from ggufphys.arch import ArchRule, rule_for
from ggufphys.arch.graph_nodes import BY_SEQUENCE
from ggufphys.arch.older import taken_as
from ggufphys.builds.moves import rules_of
from ggufphys.builds.proven import require_known
from ggufphys.gguf import GGUFFile
from ggufphys.graph.allocating.traced import collection_paused
from ggufphys.graph.devices.runs import Runs, require_model
from ggufphys.hparams.hparams import HParams
from ggufphys.loads.check import not_like_this, reasons
from ggufphys.loads.graphs import graph_failures, how_it_runs
from ggufphys.loads.refusal import Refusal, refused
from ggufphys.loads.unexpected import told
from ggufphys.params import Params


class JudgedRuns(Runs):
    """One file that is run in different ways, each as far as llama.cpp makes a context of it.

    `refusals` say why llama.cpp would not load the file, which is then run with `force` alone.

    Raises:
        RefusedError: llama.cpp would not load the file; it holds the reasons.
    """

    def __init__(
        self,
        gguf: GGUFFile,
        target: GGUFFile | None = None,
        *,
        force: bool = False,
        guessed: tuple[ArchRule, HParams] | None = None,
    ) -> None:
        """`guessed`: what is taken for the row and hyperparameters of an architecture that has none (`arch.guess`).

        Whether llama.cpp would load such a file is not asked, and all figures are estimates.
        """
        require_model(gguf)
        gguf.require_sizes(gguf.tensors)
        is_guess = guessed is not None
        lacks_target = not is_guess and target is None and rule_for(gguf.architecture).alone(gguf)  # told below
        self.force = force
        self.is_guess = is_guess
        self.refusals: tuple[Refusal, ...] = ()
        self.gguf = gguf
        self._alone = target is None
        self._verdicts: dict[bool, tuple[Refusal, ...]] = {}  # with the prediction head's tensors, and without
        if lacks_target or is_guess:
            self._verdicts = {False: (), True: ()}
        elif self._verdict(False) and self._verdict(True):  # else parameters decide, and each way of running tells
            self._refuse(self._verdict(False), gguf)
        self._graph_verdicts: dict[Hashable, tuple[Refusal, ...]] = {}
        with told(gguf, lambda: self.refusals):
            super().__init__(gguf, target, guessed=guessed)

    @contextmanager
    def judged(self, params: Params) -> Iterator[Params]:
        """The parameters as llama.cpp takes them for this model, if it makes a context with them.

        Faults while the block runs are told as such.

        Raises:
            UnsupportedError: the build does not know the architecture.
            RefusedError: llama.cpp would not load the file.
            ValueError: it would, with other parameters.
        """
        if not self.is_guess:
            require_known(self.h.arch, params.llama_build)
        params = taken_as(self.h, params, rules_of(params.llama_build))
        with told(self.gguf, lambda: self.refusals), collection_paused():
            found = self._file_verdict(params)
            otherwise = "" if self.force or not found else self._otherwise(params, found)
            if otherwise:
                raise not_like_this(self.gguf, found, otherwise)
            self._refuse(found, self.gguf)
            yield params

    def _verdict(self, load_mtp: bool) -> tuple[Refusal, ...]:
        if load_mtp not in self._verdicts:
            self._verdicts[load_mtp] = reasons(self.gguf, alone=self._alone, load_mtp=load_mtp)
        return self._verdicts[load_mtp]

    def _file_verdict(self, params: Params) -> tuple[Refusal, ...]:
        return self._verdict(params.load_mtp) or self._graph_verdict(params)

    def _otherwise(self, params: Params, found: Sequence[Refusal]) -> str:
        """In which other way llama.cpp makes a context of the file; empty where it does in none."""
        if all(refusal.in_context for refusal in found):
            return how_it_runs(params, self._file_verdict)
        head = params.load_mtp and not self._verdict(load_mtp=False)
        return "without its prediction head (load_mtp)" if head else ""

    def _graph_verdict(self, params: Params) -> tuple[Refusal, ...]:
        """Once for each build and kind of attention: the graph of another batch has the same weights."""
        context = self.context(params)
        one = context.n_seq_max == 1
        # Blocks that do not divide the cells end llama.cpp where they are made of these.
        n_cells = context.n_ctx_seq if self.h.indexer_head_size and "blocks_of_cells" in context.rules else 0
        attends = context.flash_attn, context.v_trans, context.kv_unified or one, one
        pools = context.embeddings, context.pooling
        n_nodes = (context.n_seq_max, context.n_ubatch) if self.h.arch in BY_SEQUENCE else ()
        kind = (params.load_mtp, context.ctx_type, *attends, *pools, context.rules, n_cells, n_nodes)
        if kind not in self._graph_verdicts:
            failures = graph_failures(self.layouts_of(params), context, on_host=not params.devices)
            self._graph_verdicts[kind] = tuple(failures)
        return self._graph_verdicts[kind]

    def _refuse(self, refusals: tuple[Refusal, ...], gguf: GGUFFile) -> None:
        self.refusals = refusals
        if refusals and not self.force:
            raise refused(gguf, refusals)
