"""Which build does llama.cpp say that it is? In each of the forms in which its programs, libraries and logs say it.

Source: llama.cpp 0c1e570 common/build-info.cpp.in, llama_print_build_info, llama_build_info; common/common.cpp,
common_params_print_info; tools/llama-bench/llama-bench.cpp, markdown_printer; tools/cli/cli-context.cpp, banner;
tools/server/server-task.cpp, system_fingerprint.
"""

import re
from typing import Final

from ggufphys.builds.records import RECORDED

NO_NUMBERS: Final = (0, 1)  # what packages print that were not built in llama.cpp's repository
_NUMBER: Final = r"b?(?P<number>\d{1,6}|unknown)"
_COMMIT: Final = r"(?P<commit>[0-9a-f]{7,40}|unknown)"
_PACKAGED: Final = r"(?P<commit>[^\s()\"',]{1,60})"  # whatever a package has for the commit
_LINES: Final = (
    rf"version:? \S+ \(build:? {_NUMBER}, commit:? {_PACKAGED}\)",  # --version, since programs have versions
    rf"build: {_COMMIT} \({_NUMBER}\)",  # the last line of llama-bench
    rf"(?:version|build)\s*[:=]? *{_NUMBER} \({_PACKAGED}\)",  # --version before, and the first line of logs
    rf"build(?:_info)?\s*[:=] *b{_NUMBER}-{_COMMIT}",  # llama-cli's banner, older servers' first line
)
_FORMS: Final = (
    *(re.compile(rf"(?:^|[^\w\"'])(?:{line})(?!\w)") for line in _LINES),  # behind a quote it is somebody's text
    re.compile(rf'"(?:system_fingerprint|build_info)": ?"{_NUMBER}-{_COMMIT}"'),  # answers that a verbose server logs
    re.compile(rf'"build_commit": ?"{_COMMIT}", ?"build_number": ?{_NUMBER}\b'),  # llama-bench -o jsonl
    re.compile(rf"\bllama-cpp/{_NUMBER}-{_COMMIT}"),  # its User-Agent
)


def build_said(text: str) -> str:
    """The build that a line or a program's answer names, as "11312 (0c1e570)"; empty where it names none."""
    if " - kv " in text:  # what a file says of itself
        return ""
    match = next((match for form in _FORMS if (match := form.search(text))), None)
    return "" if match is None else f"{match['number']} ({match['commit']})"


def build_of_commit(commit: str) -> int | None:
    """The recorded build of a commit, None for others: commits have no order."""
    return next((n for n, known in RECORDED.items() if commit and _same(commit, known)), None)


def build_of(said: str) -> int | None:
    """The build's number, of what `build_said` gives; None where that says nothing ("unknown", 0 and 1).

    A number before all records may have been counted in a clone without history: a recorded commit goes before it.
    """
    text, _, commit = said.partition(" ")
    number = int(text) if text.isdigit() else 0
    if number < min(RECORDED) and (build := build_of_commit(commit.strip("()"))) is not None:
        return build
    return None if number in NO_NUMBERS else number


def _same(a: str, b: str) -> bool:
    n = min(len(a), len(b))
    return n >= 7 and a[:n] == b[:n]
