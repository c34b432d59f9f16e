"""What becomes of one model that is run in different ways: where its layers lie, what context it gets, which graphs?"""

from collections.abc import Hashable, Sequence
from functools import partial
from typing import Final

from ggufphys.arch import ArchRule, read_hparams, row_in, rule_for
from ggufphys.arch.older import causal_in
from ggufphys.builds.moves import Rule, rules_of
from ggufphys.context import ContextParams, resolve
from ggufphys.errors import UnsupportedError
from ggufphys.frozen import dataclass, replace
from ggufphys.gguf import GGMLType, GGUFFile
from ggufphys.graph.allocating.layout import Layouts
from ggufphys.graph.devices.backends import backend_of
from ggufphys.graph.devices.backends.backend import everything
from ggufphys.graph.devices.placed import Placed, placing, what_places
from ggufphys.graph.devices.placement import Row, loaded_rows, place_layers, place_weights
from ggufphys.hparams.hparams import HParams
from ggufphys.machine import host
from ggufphys.params import ContextType, Params

TRIED: Final = 2  # tokens that llama-server decodes before anything else
REMEMBERED: Final = 64  # contexts: more than a search asks about again


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """One way of running a model."""

    gguf: GGUFFile
    context: ContextParams
    placed: Placed
    layouts: Layouts


class Runs:
    """One model and its graphs, which all ways of running it share.

    Raises:
        UnsupportedError: the file is no model, or its architecture has no rule yet.
        GGUFError: a key that the prediction needs is missing or malformed.
        ValueError: a draft model whose weights do not go with its `target`'s.
    """

    def __init__(
        self, gguf: GGUFFile, target: GGUFFile | None = None, *, guessed: tuple[ArchRule, HParams] | None = None
    ) -> None:
        """`guessed` are a row and hyperparameters to take for those of an architecture that has none."""
        require_model(gguf)
        self.gguf = gguf
        self.rule = rule_for(gguf.architecture) if guessed is None else guessed[0]
        borrowed = {} if target is None else self.rule.borrows(gguf, target)
        if not borrowed and (why_not := self.rule.alone(gguf)):
            raise UnsupportedError(f"{gguf.path}: {why_not}")
        self.h = read_hparams(gguf) if guessed is None else guessed[1]
        read = (
            None
            if target is None
            else self.rule.reads(self.h, rule_for(target.architecture).layers(read_hparams(target)))
        )
        self.reads_target = read is not None
        self._borrowed, self._read = borrowed, read
        self._rules: dict[frozenset[Rule], ArchRule] = {}
        self._layouts: dict[tuple[ContextType, frozenset[Rule]], Layouts] = {}
        self._placed: dict[Hashable, Placed] = {}
        self._loaded_rows: dict[tuple[bool, frozenset[Rule]], Sequence[Row]] = {}
        self._contexts: dict[Params, ContextParams] = {}

    def run(self, params: Params) -> Run:
        """Where all lies, what context results, and the graphs of contexts of its type.

        Raises:
            ValueError: llama.cpp would refuse the combination, or abort.
        """
        context, placed = self.context(params), self.placed(params)
        return Run(gguf=self.gguf, context=context, placed=placed, layouts=self.layouts_of(params))

    def layouts_of(self, params: Params) -> Layouts:
        """The graphs of contexts of the type that is asked for.

        Raises:
            ValueError: llama.cpp has no such type of context for this model.
        """
        key = params.ctx_type, rules_of(params.llama_build)
        layouts = self._layouts.get(key)
        if layouts is None:
            row = self.rule_in(params)
            layouts = self._layouts[key] = (
                Layouts(self.gguf, self.h, row, borrowed=self._borrowed, read=self._read)
                if params.ctx_type == "default"
                else Layouts(self.gguf, self.h, row, ctx_type=params.ctx_type)
            )
        return layouts

    @property
    def layouts(self) -> Layouts:
        """The graphs of ordinary contexts in the pinned llama.cpp."""
        return self.layouts_of(Params())

    def rule_in(self, params: Params) -> ArchRule:
        """The architecture's row as the build of llama.cpp has it."""
        rules = rules_of(params.llama_build)
        row = self._rules.get(rules)
        if row is None:
            row = self._rules[rules] = row_in(self.rule, rules)
        return row

    def context(self, params: Params) -> ContextParams:
        """What llama.cpp makes of the parameters for this model; where weights lie may turn flash attention off.

        Raises:
            ValueError: llama.cpp would refuse the combination, or abort.
        """
        known = self._contexts.get(params)
        if known is not None:
            return known
        context = self._context(params)
        if params.devices and self.h.hc_mult:
            context = self._unfused(params, context)
        if why_not := self.rule_in(params).aborts(context, self.h):
            raise ValueError(why_not)
        if params.run_as == "server" and context.n_batch < TRIED and not context.n_rs_seq:
            self._require_batch(params)
        if len(self._contexts) == REMEMBERED:
            self._contexts.clear()
        self._contexts[params] = context
        return context

    def _require_batch(self, params: Params) -> None:
        """Refuse a batch of one token: with a cache, llama-server decodes two before anything else, and aborts.

        Source: llama.cpp 0c1e570 common/common.cpp, common_context_can_seq_rm, common_batch::get_sub_batch.
        """
        if any(self.rule_in(params).layers(self.h)):
            raise ValueError(
                f"n_batch is 1 (n_batch, or n_ctx if that is less), expected at least {TRIED}: llama-server decodes "
                f"{TRIED} tokens at once to see what its cache can forget, and aborts otherwise"
            )

    def _context(self, params: Params) -> ContextParams:
        h, row = self.h, self.rule_in(params)
        resolved = partial(
            resolve, n_ctx_train=h.n_ctx_train, causal_attn=causal_in(h, rules_of(params.llama_build)),
            flash_attn_possible=row.flash_attn, rollback_possible=row.rollback,
            has_encoder=row.has_encoder, pooling_type=h.pooling_type,
        )  # fmt: skip
        context = resolved(params)
        layouts = self.layouts_of(params)
        # A quantized V decides for flash attention before llama.cpp looks where it would run.
        asked = params.flash_attn == "auto" and context.type_v in (GGMLType.F32, GGMLType.F16, GGMLType.BF16)
        undecided = asked and context.flash_attn and bool(params.devices)
        # Attention runs between its layer's cache and weights, unless nodes of another layer come in between.
        lacking = any(backend_of(device).supports is not everything for device in params.devices)
        apart = bool(params.override_tensor) or not params.offload_kqv or layouts.has_states
        if not (undecided and (apart or lacking)):
            return context
        placed = self.placed(params)
        if not placed.uses_devices:
            return context
        from ggufphys.graph.devices.fused import keeps_flash_attn  # here and below: what no run on the host needs

        if keeps_flash_attn(layouts, context, placed, apart=apart):
            return context
        without = resolved(replace(params, flash_attn="off"))
        return replace(without, v_trans=context.v_trans)

    def _unfused(self, params: Params, context: ContextParams) -> ContextParams:
        placed = self.placed(params)
        if not placed.uses_devices:
            return context
        from ggufphys.graph.devices.fused import unfused_ops

        unfused = unfused_ops(self.layouts_of(params), context, placed)
        return replace(context, unfused=unfused) if unfused else context

    def placed(self, params: Params) -> Placed:
        """Where layers and weights lie when run like this."""
        key = what_places(params)
        placed = self._placed.get(key)
        if placed is None:
            placement = place_layers(params, self.h.n_layer_all)
            loaded = params.load_mtp, rules_of(params.llama_build)
            if loaded not in self._loaded_rows:
                self._loaded_rows[loaded] = loaded_rows(self.gguf, params)
            rows = self._loaded_rows[loaded]
            weights = place_weights(self.gguf, params, placement, host.cpu_features(), rows)
            placed = self._placed[key] = Placed(params=placing(params), placement=placement, weights=weights)
        return placed


def require_model(gguf: GGUFFile) -> None:
    """Refuse files that llama.cpp cannot run by themselves.

    Raises:
        UnsupportedError: naming what the file is.
    """
    if gguf.kind != "model":
        raise UnsupportedError(f"{gguf.path}: a GGUF of kind {gguf.kind!r}, not a model that can be run by itself")
