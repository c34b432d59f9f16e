"""Tensor tables: the small models as they are, with one tensor changed, and the tables themselves."""

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest

from ggufphys.gguf import GGMLType, open_gguf
from ggufphys.gguf.writer import TensorSpec
from ggufphys.loads import Refusal, check_loads
from ggufphys.loads.hparams import read_values
from ggufphys.loads.outline import expression
from ggufphys.loads.table import architectures
from ggufphys.loads.tensor_names import names_of
from ggufphys.loads.tensor_table import Branch, Each, Let, Line, Row, rows_of
from ggufphys.loads.tensors import check_tensors
from tests.load_changes import Draft
from tests.load_models import own_drafts
from tests.load_oracle import LoadOracle
from tests.tensor_changes import changes

MODELS: Mapping[str, Draft] = {draft.name: draft for draft in own_drafts()}


def refusals(draft: Draft, path: Path) -> tuple[Refusal, ...]:
    """What is said of a model's tensors."""
    draft.write(path)
    with open_gguf(path) as gguf:
        values, _ = read_values(gguf, gguf.architecture)
        return tuple(check_tensors(gguf, values))


def without(draft: Draft, name: str) -> Draft:
    """The model without one of its tensors."""
    return replace(draft, tensors=tuple(t for t in draft.tensors if t.name != name))


def with_tensor(draft: Draft, tensor: TensorSpec) -> Draft:
    """The model with a tensor more, or another in its place."""
    return replace(draft, tensors=(*(t for t in draft.tensors if t.name != tensor.name), tensor))


def test_every_small_model_has_its_tensors(tmp_path: Path) -> None:
    """Of every recorded model, all of which llama.cpp loads, nothing is refused."""
    assert {name: found for name, draft in MODELS.items() if (found := refusals(draft, tmp_path / "m.gguf"))} == {}


def test_every_architecture_has_rows() -> None:
    """Each architecture whose keys are known has a section of tensors, or no loader."""
    assert {arch for arch in architectures() if not rows_of(arch)} == {"clip", "gptj"} & set(architectures())


@pytest.mark.parametrize(
    ("model", "name", "what", "expected"),
    [
        ("llama", "blk.1.attn_norm.weight", "missing", "256"),
        ("llama", "token_embd.weight", "missing", "256 x 300"),
        ("mamba2", "blk.0.ssm_a", "missing", "1 x "),
    ],
)
def test_a_missing_tensor_is_named(tmp_path: Path, model: str, name: str, what: str, expected: str) -> None:
    """A tensor that must be there is named with the shape that it would have had."""
    (refusal,) = refusals(without(MODELS[model], name), tmp_path / "m.gguf")
    assert what in refusal.what
    assert refusal.where == name
    assert refusal.expected.startswith(expected)


def test_output_and_biases_may_be_missing(tmp_path: Path) -> None:
    """A model without its output matrix takes the embedding, one with a bias that its architecture knows loads it."""
    llama = MODELS["llama"]
    assert refusals(without(llama, "output.weight"), tmp_path / "m.gguf") == ()
    bias = TensorSpec("blk.0.attn_output.bias", (256,), GGMLType.F32)
    assert refusals(with_tensor(llama, bias), tmp_path / "m.gguf") == ()


def test_a_wrong_shape_says_both(tmp_path: Path) -> None:
    """A tensor of another shape is refused with the shape found and the one that hyperparameters give."""
    norm = TensorSpec("blk.0.attn_norm.weight", (128,), GGMLType.F32)
    (refusal,) = refusals(with_tensor(MODELS["llama"], norm), tmp_path / "m.gguf")
    assert (refusal.where, refusal.found, refusal.expected) == ("blk.0.attn_norm.weight", "128", "256")


def test_tensors_left_over_are_named(tmp_path: Path) -> None:
    """Where llama.cpp finds a wrong number of tensors, those that it does not know are named."""
    extra = TensorSpec("blk.0.nonesuch.weight", (256,), GGMLType.F32)
    (refusal,) = refusals(with_tensor(MODELS["llama"], extra), tmp_path / "m.gguf")
    assert refusal.where == extra.name
    assert "does not load" in refusal.what


def test_scales_belong_to_weights_that_are_there(tmp_path: Path) -> None:
    """A factor of a weight is loaded, one of a weight that the layer lacks is left over."""
    llama = MODELS["llama"]
    assert refusals(with_tensor(llama, TensorSpec("blk.0.ffn_up.scale", (1,), GGMLType.F32)), tmp_path / "m") == ()
    odd = TensorSpec("blk.0.ssm_in.scale", (1,), GGMLType.F32)
    assert [r.where for r in refusals(with_tensor(llama, odd), tmp_path / "m")] == [odd.name]


def test_gates_of_other_kinds_have_no_scales(tmp_path: Path) -> None:
    """minimax-01 keeps its gate where llama.cpp looks for no factors: one beside it is left over."""
    odd = TensorSpec("blk.1.attn_gate.scale", (1,), GGMLType.F32)
    draft = MODELS["minimax-01/default"]
    assert any(t.name == "blk.1.attn_gate.weight" for t in draft.tensors)
    assert [r.where for r in refusals(with_tensor(draft, odd), tmp_path / "m.gguf")] == [odd.name]


def test_factors_of_rotations_are_f32(tmp_path: Path) -> None:
    """Frequency factors of another type end llama.cpp while it loads, whether or not the graph reads them."""
    factors = TensorSpec("rope_freqs.weight", (32,), GGMLType.F16)
    (refusal,) = refusals(with_tensor(MODELS["llama"], factors), tmp_path / "m.gguf")
    assert (refusal.found, refusal.expected, refusal.ends_process) == ("F16", "F32", True)


def test_a_removed_tensor_is_the_reason(tmp_path: Path) -> None:
    """Where a model is refused for want of one tensor, the reason is about it: its name, or what it stood for."""
    rng, n_refused, drafts = random.Random(9), 0, list(MODELS.values())[::4]
    for draft in drafts:
        tensor = rng.choice(draft.tensors)
        base = tensor.name.removesuffix(".weight")
        for refusal in refusals(without(draft, tensor.name), tmp_path / "m.gguf"):
            assert refusal.where.startswith(base) or base.endswith(FUSED), (draft.name, tensor.name, refusal)
            n_refused += 1
    assert n_refused > len(drafts) / 2


FUSED = ("attn_qkv", "gate_up_exps")  # without them their parts are wanted


def test_expressions_name_what_is_known(tmp_path: Path) -> None:
    """No expression of the tables names a hyperparameter that nothing sets: it would be 0 without a word."""
    keys = (resources.files("ggufphys.loads") / "hparams.txt").read_text(encoding="utf-8")
    read = {name for pair in re.findall(r"^ *(\w+) = |^ *\S+ \S+ (\w+)$", keys, re.MULTILINE) for name in pair}
    MODELS["llama"].write(tmp_path / "m.gguf")
    with open_gguf(tmp_path / "m.gguf") as gguf:
        given = set(names_of(gguf, read_values(gguf, "llama")[0], str, set(), load_mtp=False))
    for arch in architectures():
        codes: list[str] = []
        own = {"arch", "i", *_gather(rows_of(arch) or (), codes)}
        named = {name for code in codes for name in expression(code)[0].co_names}
        assert named <= read | own | given, arch


def _gather(lines: Sequence[Line], codes: list[str]) -> Iterator[str]:
    """The names that lines set; their expressions are added to `codes`."""
    for line in lines:
        if isinstance(line, Row):
            codes += [code for code in (line.shape, line.flags) if code]
        elif isinstance(line, Branch):
            codes.append(line.condition)
            yield from _gather((*line.then, *line.otherwise), codes)
        elif isinstance(line, Each):
            codes += [line.first, line.end]
            yield from _gather(line.rows, codes)
        else:
            codes.append(line.value)
            if isinstance(line, Let):
                yield line.name


SHARE = 1 / 30


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_llama_cpp_says_the_same(tmp_path: Path, part: int) -> None:
    """One in thirty, some 6,500, of all changes of one tensor: llama.cpp's verdict is ours, but for 0.5 %."""
    rng, path, n, wrong = random.Random(part), tmp_path / "m.gguf", 0, []
    with LoadOracle() as oracle:
        for draft in list(MODELS.values())[part::8]:
            for change in changes(draft):
                if rng.random() < SHARE:
                    change.draft.write(path)
                    with open_gguf(path) as gguf:
                        ours = check_loads(gguf)
                    answer, n = oracle.ask(path), n + 1
                    if answer.accepted == bool(ours):
                        wrong.append((draft.name, change.kind, change.what, answer.outcome, answer.says))
    assert len(wrong) <= 0.005 * n, (n, wrong)
