"""Numbers in README.md, docs/*.md and docs/results/*/README.md that a test reads: what a mark looks like, and what it must say.

Two pages stay out.  docs/lab.md is a log, whose numbers are those of its days.  Of docs/tasks.md tests/test_tasks.py holds each
task's sentence, opposite and rule; no test reads its other numbers.

How to mark a number
* A table is generated between two comments; ARGUMENTS are words for the function MODULE.FUNCTION of this folder:

      <!-- table quick.labels -->
      | ... |
      <!-- /table -->

* A number in a sentence has a comment behind it that names where it comes from: `was 0.81<!--= quick.label 0 auc --> of ...`.
  The text decides on decimals, signs and thousands; a centre may have its ends with it, `37.0 [30.9, 41.6]<!--= ... -->`, and
  several numbers share a comment where the function returns several.  cells.py has functions for any cell of any CSV.
* What has no CSV, such as a time that was noted by hand, has `<!--noted-->` behind it (`<!--noted 3-->`: the last three), or a
  comment `noted` before and `/noted` behind a paragraph; tests/test_numbers.py counts them, and the count may not grow.
* Settings and sizes need no mark where KINDS knows them ("50-step segments", "seed 0", "95 % interval").  One that it does not
  know: `<!--set-->` behind it, counted likewise.  What is `code` is not read, so formulae and values of settings may be that.

`make numbers` writes all tables and marked numbers anew from the CSVs; the test compares them.
"""

from __future__ import annotations

import importlib
import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from robopref.embodied.statistics import Spread

RESULTS = Path(__file__).parents[1]
ROOT = RESULTS.parents[1]
TABLE = re.compile(r"(?P<open><!-- table (?P<call>[^>]*?) -->\n)(?P<body>.*?)(?P<close><!-- /table -->)", re.DOTALL)
MARK = re.compile(r"<!--= (?P<call>[^>]*?) ?-->")
NOTED = re.compile(r"<!-- noted -->.*?<!-- /noted -->", re.DOTALL)
BEHIND = re.compile(r"<!--(?P<kind>noted|set)(?: (?P<count>\d+))?-->")
NUMBER = re.compile(
    r"(?<![\w.])(?<!\w[+-])(?<!\w,)"  # not within a word, another number, or behind a hyphen
    r"(?:(?<![\w)\]])[+-])?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?:(?<=\d)|(?=\.\d))(?:\.\d+)?(?:e[+-]?\d+)?"
    r"(?!(?!(?:x|k|M|ms|s|h|min|MB|GB|fps)\b)\w|\.\d)"  # 2.7x and 17s are numbers, 2nd and 46d4335 are not
)
FAR = 14  # characters between a number and its mark: a bracket, a sign, a unit

UNITS = (
    "px|pixels?|steps?|segments?|seeds?|frames?|goals?|episodes?|tasks?|decisions|orders|pairs|cores?|threads?|VLPs?|members?|questions|"
    "answers|labels|policies|candidates|rewards|worlds|wordings|sets|updates|layers|clips|envs|environments|transitions|agents|actions|"
    "runs|bins|phases|switches|dimensions|features|words|tokens|programs|evaluations|demonstrations|rounds|iterations|values|networks"
)
WHOLE = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
KINDS = {  # of numbers that nobody measured, and what they look like
    "date": r"\b\d{4}-\d\d-\d\d(?: and \d\d?\b)?",
    "commit": r"\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{7}\b|(?:\b(?:[Cc]ommits?|at|and)|,) \d{7}\b",
    "version": r"\b\d+\.\d+\.\d+(?:\+cu\d+)?\b|\b(?:Python|torch|Debian|JAX) \d[\d.]*\b",
    "level of an interval": r"\b95 % (?:bootstrap )?intervals?",
    "count or size": rf"(?<![\w.]){WHOLE}(?:(?:, | and | to |, and | or ){WHOLE})*[-\s](?:[\w-]+\s)??(?:{UNITS})\b"
    r"(?! (?:a|per) (?:second|minute|hour)\b)",  # a rate was measured
    "product of counts": r"(?<![\w.])\d[\d,]* x (?=\d)",
    "which seed": r"\b[Ss]eeds? \d+(?:(?:, | and | to )\d+)*",
    "place in a paper": r"\barXiv \d{4}\.\d{5}\b|\bEq\. \d(?:-\d)?|\bDefinition \d",
    "year of a paper": r"\b(?:al\.|ICML|ICLR|NeurIPS|ECCV|NAACL|Nature) (?:19|20)\d\d\b",
    "layers": r"\[\d+(?:, ?\d+)*\](?:x\d)?",
    "setting": r"\b(?:[Ss]igma|alpha|beta|delta|kappa|lambda_\d|clip|penalty|temperature|survival|dropout"
    r"|[Ww]idth|batch|H|K =|T =) (?:of )?[.\d]+",
}
NO_MEASURE = re.compile("|".join(f"(?:{form})" for form in KINDS.values()))
HIDDEN = re.compile(  # what is no prose: code, code in a line, comments, targets of links, headings
    r"(?:(?<=\n\n)|\A)(?: {4}[^\n]*(?:\n|\Z))+|^#[^\n]*$|^```.*?^```|``.+?``|`[^`\n]+(?:\n[^`\n]+)?`|<!--.*?-->|\]\([^)]*\)|https?://\S+",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Problem:
    """One error: its file, its line and what is wrong."""

    path: Path
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}: {self.what}"


def files() -> list[Path]:
    """The Markdown files whose numbers are held: all but the log and the page of tasks."""
    pages = [path for path in sorted((ROOT / "docs").glob("*.md")) if path.stem not in ("lab", "tasks")]
    return [ROOT / "README.md", *pages, *sorted(RESULTS.glob("**/README.md"))]


@cache
def call(words: str) -> object:
    """Call `MODULE.FUNCTION ARGUMENTS` and return its result; ValueError that names the words when it cannot be called."""
    name, *arguments = shlex.split(words)
    module, _, function = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module or "cells"), function)(*arguments)
    except Exception as error:  # of any kind: the words are a sentence's, and its author wants to know which
        raise ValueError(f"{words}: {type(error).__name__}: {error}") from error


def fixed(value: float, decimals: int, comma: bool = False, sign: bool = False) -> str:
    """So many decimals, halves away from zero: the order of a sum must not decide on the last digit."""
    told = f"{value + math.copysign(1e-9 * max(1.0, abs(value)), value):{'+' if sign else ''}{',' if comma else ''}.{decimals}f}"
    return told.replace("-", "") if not re.search("[1-9]", told) else told


def like(value: float, text: str) -> str:
    """The value with the decimals, sign and thousands of the printed text."""
    told = fixed(value, len(text.partition(".")[2]), comma="," in text, sign=text.startswith("+"))
    if text.lstrip("+-").startswith("."):
        told = re.sub(r"^([+-]?)0\.", r"\1.", told)
    return told


def printed(text: str, mark: re.Match[str], numbers: list[re.Match[str]]) -> tuple[list[re.Match[str]], list[float]]:
    """The numbers of the text that a mark stands for, and what they should be; ValueError when they are too few, or too far off.

    numbers: all that stand in its prose.
    """
    value = call(mark["call"])
    begin = text.rfind("\n\n", 0, mark.start())
    found = [number for number in numbers if begin < number.start() < mark.start()]
    if isinstance(value, Spread):
        whole = len(found) >= 3 and text[found[-1].end()] == "]"
        values = [value.centre, value.low, value.high] if whole else [value.centre]
    elif isinstance(value, Sequence):
        values = [float(one) for one in value]
    else:
        values = [float(value)]  # type: ignore[arg-type]
    if len(found) < len(values) or mark.start() - found[-1].end() > FAR:
        raise ValueError(f"<!--= {mark['call']} --> stands for {len(values)} numbers; put it right behind the last")
    return found[-len(values) :], values


def blank(text: str, keep_noted: bool = False) -> str:
    """The text with everything that is no prose replaced by spaces, at the same places."""

    def spaces(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", match[0])

    if not keep_noted:
        text = NOTED.sub(spaces, text)
    return HIDDEN.sub(spaces, TABLE.sub(spaces, text))


def loose(text: str, held: set[int]) -> list[re.Match[str]]:
    """Numbers that nothing vouches for: in no generated table, without a mark, and of no kind of KINDS.

    held: where marked numbers begin.
    """
    prose = blank(text)
    numbers = list(NUMBER.finditer(prose))
    vouched = held | {position for match in NO_MEASURE.finditer(prose) for position in range(*match.span())}
    for mark in BEHIND.finditer(text):
        before = [number.start() for number in numbers if number.end() <= mark.start()]
        vouched |= set(before[-int(mark["count"] or 1) :])
    return [number for number in numbers if number.start() not in vouched]


def counted(text: str, kind: str) -> int:
    """How many numbers of a file are vouched for by hand: as `noted`, or as `set`."""
    blocks = [len(list(NUMBER.finditer(blank(match[0], keep_noted=True)))) for match in NOTED.finditer(text)]
    inline = sum(int(mark["count"] or 1) for mark in BEHIND.finditer(text) if mark["kind"] == kind)
    return inline + (sum(blocks) if kind == "noted" else 0)


def problems(path: Path, text: str) -> list[Problem]:
    """Tables and numbers of a file that are not what the CSVs say, and numbers without a mark."""
    found: list[Problem] = []

    def add(position: int, what: str) -> None:
        found.append(Problem(path, text.count("\n", 0, position) + 1, what))

    for table in TABLE.finditer(text):
        try:
            told = str(call(table["call"]))
        except ValueError as error:
            add(table.start(), str(error))
            continue
        if table["body"] != told:
            add(table.start(), f"table {table['call']} is not what its CSVs say; run `make numbers`")
    numbers, held = list(NUMBER.finditer(blank(text))), set()
    for mark in MARK.finditer(text):
        try:
            there, values = printed(text, mark, numbers)
        except ValueError as error:
            add(mark.start(), str(error))
            held |= {number.start() for number in numbers if number.end() <= mark.start() <= number.end() + FAR}
            continue
        held |= {number.start() for number in there}
        for number, value in zip(there, values, strict=True):
            if number[0] != like(value, number[0]):
                add(number.start(), f"{number[0]} should be {like(value, number[0])} by {mark['call']}")
    for number in loose(text, held):
        add(number.start(), f"{number[0]} has no mark (docs/results/tables/marks.py says how to)")
    return found


def rewritten(text: str) -> str:
    """The text with its tables and marked numbers as the CSVs have them; ValueError where one cannot be made."""
    text = TABLE.sub(lambda table: table["open"] + str(call(table["call"])) + table["close"], text)
    changes, numbers = [], list(NUMBER.finditer(blank(text)))
    for mark in MARK.finditer(text):
        for number, value in zip(*printed(text, mark, numbers), strict=True):
            changes.append((number.span(), like(value, number[0])))
    for (start, end), told in sorted(changes, reverse=True):
        text = text[:start] + told + text[end:]
    return text
