"""Patterns as std::regex reads them: a table of what it said, and the real one where a compiler is there."""

import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ggufphys import Params
from ggufphys.gguf import GGMLType
from ggufphys.graph.devices.placement import EXPERTS
from ggufphys.patterns.ecmascript import searcher
from ggufphys.patterns.posix_names import CHARACTERS
from ggufphys.plan.quantize import QuantizeOptions

NAMES = (
    "blk.0.ffn_up_exps.weight", "blk.12.attn_q.weight", "output.weight", "A", "a", "b", "-", "aab", "9", "_x ", "[]a]",
    "é", "x1}", "token_embd.weight", "blk.3.ffn_gate_inp.weight", "ab\rc",
)  # fmt: skip

# What libstdc++ 12's std::regex answers for "abc1" and for "A".
FOUND = {
    "[[:digit:]]": "10", "[[:DIGIT:]]": "10", r"\A": "01", r"\p": "00", r"\_": "00", "a**": "11", "a++": "10",
    "[]a]": "00", "[^]": "11", "[]": "00", "(?=a)": "10", "(?!a)b": "10", "(?:b)": "10", "": "11", "|": "11",
    r"(a)\1": "00", r"\x41": "01", r"\u0041": "01", r"\cA": "01", r"\c1": "10", r"[\d]": "10", r"[\b]": "00",
    "[[.a.]]": "10", "[[=a=]]": "11", "[:digit:]": "00", "}": "00", "]": "00", "[--a]": "11", "[a-b-c]": "10",
    "a{1,9999}": "10",
    r"\a": "10", "x{0}": "11", "a{1}{2}": "00", r"\b": "11", r"\B": "10", "[[:w:]]": "11", "[[.hyphen.]]": "00",
    "[[.a.]-c]": "10", "^a": "10", "c1$": "10", r"c1\Z": "00", r"\k<a>": "00", "a^": "00", "[^[:alpha:]_]": "10",
}  # fmt: skip
REFUSED = (
    "(?i)a", "(?P<x>a)", "(?<=a)b", "(?<!a)b", "(?#x)", "(?<a>b)", "a{,2}", "{2}", "a{2", "a{2,1}", "x{ 1}", r"\1",
    r"(a)\2", r"(a\1)", "[a-\\d]", r"[\w-z]", "[z-a]", "[[:foo:]]", "[[.ab.]]", "[[:digit:]-z]", "[a-[:digit:]]", ")",
    "(", "*a", "^*", "$*", r"\b*", "(?=a)*", "a{99994}", r"[\1]", r"[\B]", "[a", "[^a", "[[:digit:]", "\\", r"\x4",
    r"\u00", "(?", "a|*", "(*a)",
)  # fmt: skip


@pytest.mark.parametrize(("pattern", "found"), FOUND.items())
def test_found(pattern: str, found: str) -> None:
    """What std::regex finds is found, and nothing else."""
    assert "".join("01"[searcher(pattern)(name)] for name in ("abc1", "A")) == found


@pytest.mark.parametrize("pattern", REFUSED)
def test_refused(pattern: str) -> None:
    """What std::regex refuses is refused, with the place."""
    with pytest.raises(ValueError, match=r"not a regular expression that std::regex \(ECMAScript\) takes: .*character"):
        searcher(pattern)


def test_hostile() -> None:
    """Deep nesting and repetitions of repetitions end in a sentence, not in an exhausted stack or hours."""
    for pattern in ("(" * 5000 + ")" * 5000, "((a{900}){900}){900}", "a{99999999999}", "[" * 3000, "\\" * 3001):
        with pytest.raises(ValueError, match="not a regular expression"):
            searcher(pattern)


def test_where_it_counts() -> None:
    """--override-tensor and --tensor-type are read so; llama.cpp's own pattern for experts means what ours does."""
    with pytest.raises(ValueError, match=r"override_tensor: '\(\?i\)exps' is not a regular expression"):
        Params(override_tensor=(("(?i)exps", "CPU"),))
    with pytest.raises(ValueError, match="--tensor-type: .* is not a regular expression"):
        QuantizeOptions(tensor_types=((r"a{,2}", GGMLType.Q8_0),))
    options = QuantizeOptions(tensor_types=((r"blk\.[[:digit:]]+\.ffn", GGMLType.Q8_0),))
    assert [options.named_type(name) for name in NAMES[:2]] == [GGMLType.Q8_0, None]
    theirs = searcher(r"blk\.(0|3|12)\.ffn_(up|down|gate|gate_up)_(ch|)exps")
    assert [theirs(name) for name in NAMES] == [re.search(EXPERTS, name) is not None for name in NAMES]


PROGRAM = r"""
#include <iostream>
#include <regex>
#include <string>
#ifndef __GLIBCXX__
#error another standard library
#endif
// A pattern and names a line, all separated by \x01.
int main() {
    for (std::string line; std::getline(std::cin, line);) {
        size_t i = line.find('\1');
        try {
            const std::regex pattern(line.substr(0, i));
            std::string found;
            while (i != std::string::npos) {
                const size_t j = line.find('\1', i + 1);
                const std::string name = line.substr(i + 1, j == std::string::npos ? j : j - i - 1);
                found += std::regex_search(name, pattern) ? '1' : '0';
                i = j;
            }
            std::cout << found << "\n";
        } catch (const std::regex_error &) {
            std::cout << "refused\n";
        }
    }
}
"""
PIECES = r"""
a b 0 1 . * + ? | ^ $ ( ) [ ] { } - , : = ! \ _ (?: (?= (?! [[:digit:]] [[:alpha:] [: [^ \d \w \b \B \1 \x61 \u0062 \.
{2} {1,2} {,2} {1,} [[.a.]] [[=a=]] [a-z] [0-9] blk ffn exps \D \S \A \c (?i) [\d- [.hyphen.] é B \0 [\b] (a) 2
"""


@pytest.mark.slow
def test_the_real_one(tmp_path: Path) -> None:
    """Twenty thousand random patterns, and every named character, are to us what they are to libstdc++'s std::regex."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ here")
    (tmp_path / "search.cpp").write_text(PROGRAM)
    program = tmp_path / "search"
    made = subprocess.run([compiler, "-O1", "-o", program, tmp_path / "search.cpp"], capture_output=True, check=False)
    if b"another standard library" in made.stderr:
        pytest.skip("g++ is not GNU's here")
    assert made.returncode == 0, made.stderr
    draw = random.Random(9)
    patterns = [*FOUND, *REFUSED, *(f"[[.{name}.]]" for name in CHARACTERS)]
    while len(patterns) < 20_000:
        pattern = "".join(draw.choices([*PIECES.split(), " "], k=draw.randint(1, 8)))
        if sum(map(pattern.count, ("*", "+", "{1,}"))) < 3:  # more of them can take both of us for ever
            patterns.append(pattern)
    lines = "".join("\1".join((pattern, *NAMES)) + "\n" for pattern in patterns)
    done = subprocess.run([program], input=lines.encode(), capture_output=True, check=True, timeout=300)

    differing = [
        (pattern, real, ours)
        for pattern, real in zip(patterns, done.stdout.decode().splitlines(), strict=True)
        if real != (ours := _ours(pattern))
    ]
    assert not differing


def _ours(pattern: str) -> str:
    try:
        found = searcher(pattern)
    except ValueError:
        return "refused"
    return "".join("01"[found(name)] for name in NAMES)
