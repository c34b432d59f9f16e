"""Can llama.cpp read this grammar without harm? Some that are short take all memory, or a thousand years.

Its parser has no bounds for what a grammar becomes, and it runs in the process that all answers come from. So a grammar
is read here first, for its size and for how it may begin; what is no GBNF beyond that is llama.cpp's to say.

Source: llama.cpp 0c1e570 src/llama-grammar.cpp, llama_grammar_parser::parse_sequence (what rules and repetitions
become), llama_grammar_detect_left_recursion, llama_grammar_advance_stack.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

ROOT: Final = "root"
MOST_DEPTH: Final = 500  # of parentheses, and of rules that begin with one another: the parser calls itself
MOST_REPEATS: Final = 2000  # llama.cpp's; a greater end of a range is none there
MOST_ELEMENTS: Final = 1_000_000  # characters and references, repetitions written out
MOST_WAYS: Final = 5000  # to go on at any place: each is compared with all others
MOST_STEPS: Final = 1_000_000  # of the search for rules that begin with themselves
_WORD: Final = re.compile(
    r"""(?P<blank>[ \t\r\n]++|\#[^\r\n]*+)
    |(?P<rule>[A-Za-z0-9-]++)(?=(?:[ \t]|\#[^\r\n]*+[\r\n]|[\r\n])*+::=)
    |(?P<name>[A-Za-z0-9-]++)|(?P<equals>::=)
    |(?P<literal>"(?:\\.|[^"\\])*+")|(?P<set>\[(?:\\.|[^\]\\])*+\])|(?P<token>!?<[^>]*+>)|(?P<any>\.)
    |(?P<open>\()|(?P<close>\))|(?P<alternative>\|)
    |(?P<repeat>[*+?]|\{[ \t]*+(?P<low>\d{1,18})[ \t]*+(?P<range>,[ \t]*+(?P<high>\d{1,18})?[ \t]*+)?\})""",
    re.VERBOSE | re.DOTALL,
)
_CHARACTER: Final = re.compile(r"\\.|[^\\]", re.DOTALL)
_SIGNS: Final = {"*": (0, None), "+": (1, None), "?": (0, 1)}


class GrammarError(ValueError):
    """The grammar is not taken, and why."""


def count_fault(low: int, high: int | None) -> str:
    """What is wrong with a repetition from `low` to `high` times (None: without end); empty where nothing is."""
    if low > MOST_REPEATS:
        return f"more than {MOST_REPEATS:,} times"
    return f"at least {low} and at most {high}" if high is not None and high < low else ""


@dataclass(slots=True)
class _Item:
    """What is repeated from `low` to `high` times (None: without end): a rule, or characters."""

    rule: int | None
    n_elements: int
    low: int = 1
    high: int | None = 1

    @property
    def is_repeated(self) -> bool:
        return (self.low, self.high) != (1, 1)


@dataclass(slots=True)
class _Rule:
    """Alternatives, each a sequence."""

    name: str
    alternatives: list[list[_Item]] = field(default_factory=list)


def check_grammar(text: str) -> None:
    """Raise GrammarError for a grammar that would harm the process that reads it."""
    rules = _Reader(text).rules
    nullable = _nullable(rules)
    direct = [any(not any(item.n_elements for item in each) for each in rule.alternatives) for rule in rules]
    edges = [list(_leading(rule, lambda i: direct[i])) for rule in rules]
    order = _postorder(rules, edges, refuse_circles=True)
    n_steps, depth = [1] * len(rules), [1] * len(rules)
    for i in order:
        n_steps[i] += sum(n_steps[j] * times for j, times in edges[i])
        depth[i] += max((depth[j] for j, _ in edges[i]), default=0)
        if depth[i] > MOST_DEPTH or n_steps[i] > MOST_STEPS:
            raise GrammarError(f"rule {rules[i].name} begins with a rule that begins with a rule, too often")
    edges = [list(_leading(rule, lambda i: nullable[i])) for rule in rules]
    n_ways = [0] * len(rules)
    for i in _postorder(rules, edges, refuse_circles=False):
        n_ways[i] = sum(n_ways[j] * times for j, times in edges[i]) + _terminals(rules[i], nullable)
        if n_ways[i] > MOST_WAYS:
            raise GrammarError(f"rule {rules[i].name} may begin in {n_ways[i]:,} ways, at most {MOST_WAYS:,} are taken")


def prefixed(text: str, prefix: str) -> str:
    """The grammar with this in front of the names of its rules, so that it may stand beside another.

    Raises:
        GrammarError: it is none.
    """
    found, at = list[str](), 0
    while at < len(text):
        word = _WORD.match(text, at)
        if word is None:
            raise GrammarError(f"no GBNF at character {at}: {text[at : at + 32]!r}")
        found.append(f"{prefix}{word.group()}" if word.lastgroup in ("rule", "name") else word.group())
        at = word.end()
    return "".join(found)


class _Reader:
    """Reads the rules; groups are rules of their own."""

    def __init__(self, text: str) -> None:
        self.rules: list[_Rule] = []
        self._by_name: dict[str, int] = {}
        self._defined: set[int] = set()
        self._open: list[_Rule] = []  # the rule, and the groups that are open in it
        self._n_elements = 0
        at = 0
        while at < len(text):
            word = _WORD.match(text, at)
            if word is None:
                raise GrammarError(f"no GBNF at character {at}: {text[at : at + 32]!r}")
            try:
                self._take(word)
            except GrammarError as error:
                raise GrammarError(f"{error} (character {at})") from None
            at = word.end()
        if len(self._open) > 1:
            raise GrammarError(f"{len(self._open) - 1} groups are not closed")
        for rule, i in self._by_name.items():
            if i not in self._defined:
                raise GrammarError(f"rule {rule!r} is named and not there")
        if self._by_name.get(ROOT) not in self._defined:
            raise GrammarError(f"there is no rule {ROOT!r}, with which the answer begins")

    def _take(self, word: re.Match[str]) -> None:
        kind = word.lastgroup if word.lastgroup not in ("low", "high", "range") else "repeat"
        text = word.group()
        if kind == "rule":
            if len(self._open) > 1:
                raise GrammarError("a rule begins where a group is not closed")
            i = self._named(text)
            self._defined.add(i)
            self.rules[i].alternatives = [[]]
            self._open = [self.rules[i]]
            return
        if kind in ("blank", "equals"):
            return
        if not self._open:
            raise GrammarError("expected the name of a rule, then ::=")
        if kind == "name":
            self._add(_Item(self._named(text), 1))
        elif kind in ("literal", "set"):
            self._add(_Item(None, len(_CHARACTER.findall(text)) - 2))
        elif kind in ("token", "any"):
            self._add(_Item(None, 1))
        elif kind == "alternative":
            self._open[-1].alternatives.append([])
        elif kind == "open":
            if len(self._open) > MOST_DEPTH:
                raise GrammarError(f"more than {MOST_DEPTH} groups within one another")
            group = _Rule(self._open[0].name, [[]])
            self._add(_Item(len(self.rules), 1))
            self.rules.append(group)
            self._open.append(group)
        elif kind == "close":
            if len(self._open) < 2:
                raise GrammarError("a group is closed that was not opened")
            self._open.pop()
        else:
            self._repeat(text, word)

    def _named(self, name: str) -> int:
        if name not in self._by_name:
            self._by_name[name] = len(self.rules)
            self.rules.append(_Rule(name))
        return self._by_name[name]

    def _add(self, item: _Item) -> None:
        self._open[-1].alternatives[-1].append(item)
        self._count(item.n_elements)

    def _count(self, n_elements: int) -> None:
        self._n_elements += n_elements
        if self._n_elements > MOST_ELEMENTS:
            raise GrammarError(f"more than {MOST_ELEMENTS:,} elements, with repetitions written out")

    def _repeat(self, text: str, word: re.Match[str]) -> None:
        items = self._open[-1].alternatives[-1]
        if not items or not items[-1].n_elements:
            raise GrammarError(f"there is nothing in front of {text!r} that could be repeated")
        low, high = _SIGNS.get(text) or (int(word["low"]), int(word["low"]))
        if word["range"] is not None:
            high = int(word["high"]) if word["high"] else None
        if fault := count_fault(low, high):
            raise GrammarError(f"{text!r} asks for {fault}")
        high = None if high is None or high > MOST_REPEATS else high
        last = items[-1]
        if last.is_repeated:  # a repetition of a repetition
            self.rules.append(_Rule(self._open[0].name, [[last]]))
            last = items[-1] = _Item(len(self.rules) - 1, last.n_elements * max(last.low, 1) + 1)
        last.low, last.high = low, high
        n_optional = 1 if high is None else high - low
        self._count(last.n_elements * max(low - 1, 0) + n_optional * (last.n_elements + 3))


def _nullable(rules: list[_Rule]) -> list[bool]:
    """Which rules may be nothing at all."""
    found = [False] * len(rules)
    users: list[list[int]] = [[] for _ in rules]
    for i, rule in enumerate(rules):
        for item in (item for each in rule.alternatives for item in each):
            if item.rule is not None:
                users[item.rule].append(i)
    todo = list(range(len(rules)))
    while todo:
        i = todo.pop()
        if not found[i] and any(all(_may_be_empty(item, found) for item in each) for each in rules[i].alternatives):
            found[i] = True
            todo += users[i]
    return found


def _may_be_empty(item: _Item, nullable: list[bool]) -> bool:
    return not item.low or not item.n_elements or (item.rule is not None and nullable[item.rule])


def _leading(rule: _Rule, may_be_empty: Callable[[int], bool]) -> Iterator[tuple[int, int]]:
    """The rules that it may begin with, and how often each is tried at that place."""
    for each in rule.alternatives:
        for item in each:
            is_empty = item.rule is not None and may_be_empty(item.rule)
            if item.rule is not None:
                n_most = MOST_REPEATS if item.high is None else item.high
                yield item.rule, max(item.low, n_most, 1) if is_empty and item.high is not None else 1
            if item.n_elements and item.low and not is_empty:
                break


def _terminals(rule: _Rule, nullable: list[bool]) -> int:
    """In how many of its ways to begin it begins with a character."""
    n = 0
    for each in rule.alternatives:
        for item in each:
            n += item.rule is None and bool(item.n_elements)
            if not _may_be_empty(item, nullable):
                break
    return n


def _postorder(rules: list[_Rule], edges: list[list[tuple[int, int]]], *, refuse_circles: bool) -> list[int]:
    """All rules, each behind those that it may begin with."""
    done, under_way, order = [False] * len(rules), [False] * len(rules), []
    for start in range(len(rules)):
        if done[start]:
            continue
        under_way[start] = True
        todo = [(start, iter(edges[start]))]
        while todo:
            i, rest = todo[-1]
            j = next((j for j, _ in rest if not done[j]), None)
            if j is None:
                todo.pop()
                under_way[i], done[i] = False, True
                order.append(i)
            elif not under_way[j]:
                under_way[j] = True
                todo.append((j, iter(edges[j])))
            elif refuse_circles:
                raise GrammarError(f"rule {rules[j].name} begins with itself, without end")
    return order
