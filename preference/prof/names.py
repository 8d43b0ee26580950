"""Names of rewards that are given as files: for rows of a table and files of a folder, so all different on every file system."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

LONGEST = 120  # bytes: file systems allow 255, and what is written aside has more in its name


def names_of(paths: Sequence[Path], taken: Iterable[str] = ()) -> list[str]:
    """A name for each file: its own, with folders in front as far as it shares that with others, else with a number behind.

    taken: names that none may have.  Names that differ by case or by composition of letters alone count as the same.
    """
    parts = [(*(part for part in path.absolute().parts[1:-1] if part != ".."), path.stem) for path in paths]
    alike = defaultdict(list)
    for number, words in enumerate(parts):
        alike[same(tame(words[-1:]))].append(number)
    names = [tame(words[-1:]) for words in parts]
    for numbers in alike.values():
        for depth in range(1, max(len(parts[number]) for number in numbers) + 1):
            longer = {number: tame(parts[number][-depth:]) for number in numbers}
            if len({same(name) for name in longer.values()}) == len(numbers):
                for number, name in longer.items():
                    names[number] = name
                break
    return numbered(names, taken)


def numbered(names: Sequence[str], taken: Iterable[str]) -> list[str]:
    """The same, with -2, -3, ... behind those that were there before or are taken."""
    used, result = {same(name) for name in taken}, []
    for name in names:
        result.append(free(name, used))
        used.add(same(result[-1]))
    return result


def free(name: str, used: Collection[str]) -> str:
    """`name`, or with the first number behind that makes it another than those used, in the form of `same`."""
    found, number = name, 1
    while same(found) in used:
        number += 1
        found = f"{name}-{number}"
    return found


def same(name: str) -> str:
    """What names have in common that some file system takes for the same."""
    return unicodedata.normalize("NFKC", name).casefold()


def tame(words: Sequence[str]) -> str:
    """One name of these parts of a path: without what a terminal, a table or a file system takes for something else."""
    name = "-".join(words)
    name = "".join(c if c.isprintable() and c not in '<>:"/\\|?*' else "_" for c in name)
    whole = name.strip(". ") or "_"
    return whole.encode("utf-8", "replace")[:LONGEST].decode("utf-8", "ignore")
