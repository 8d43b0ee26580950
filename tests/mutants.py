"""`make mutants`: would the tests notice if the core were wrong?  mutmut changes it, a line at a time, and counts.

mutmut wants a package to lie where its name says, so a copy with the folders under `robopref/` is made in `.mutants/`, and mutmut
is installed beside it, since it is no dependency.  What is changed, and which tests look, stands under [tool.mutmut] in
pyproject.toml.  Of each module at most `--sample` changes are tried, drawn by `--seed` among those of operators, numbers and
truth values; a second call tries what survived, and what has no result yet.  scores.csv and survivors.csv go to `--out`.
"""

from __future__ import annotations

import argparse
import ast
import csv
import difflib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
WORK = ROOT / ".mutants"
TOOL, COPY = WORK / "tool", WORK / "copy"
VERSION = "3.8.1"  # its .meta files are read here
FOLDERS = ("configs", "embodied", "datasets", "preference", "policies")
KILLED = (1, 3)  # what mutmut's worker returns: a test failed, or pytest did
TIMED_OUT = (36, 24, 152, 255, -24, -9)
SURVIVED = (0, 5, 33)  # 5 and 33: no test runs that function
PARTS = {
    "embodied/control.py": (
        "*ControlEnvǁ*step_*",
        "*ControlEnvǁforces*",
        "*ControlEnvǁreset*",
        "*DMCEnvǁ*step*",
        "*AdroitEnvǁstep*",
    ),
    "policies/online.py": ("*ǁdecide*", "*ǁexplore*", "*x_judge*", "*x_live*", "*x_start_*"),
    "policies/onpolicy.py": ("*x_gae*", "*ǁscaled*", "*ǁshown*", "*Momentsǁ*", "*x_of_*", "*ǁiterate*"),
    "preference/vlp.py": ("*x_vlp_loss*", "*x_order_loss*", "*ǁscore_features*"),
}
"""Of these modules only the functions whose names look so: the rest is files and settings."""

TOKEN = re.compile(r"""'[^']*'|"[^"]*"|\w+|//|\*\*|<<|>>|[-<>=!+*/%&|^]=|[^\w\s]""")
Change = tuple[str, ...]  # what is taken away, what is added


class Mutant(NamedTuple):
    """A changed function."""

    code: int | None  # of its tests, None: not tried yet
    change: Change


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=16, help="changes of a module, 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--modules", nargs="*", default=["*"], help="for example policies/iql.py")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/mutation")
    asked = parser.parse_args()
    with open(ROOT / "pyproject.toml", "rb") as file:
        settings = tomllib.load(file)["tool"]["mutmut"]
    modules = [path.removeprefix("robopref/") for path in settings["only_mutate"]]
    prepare()
    mutmut("run", "--max-children", "1", "robopref.nothing")  # makes the mutants, and notes which test runs which function
    results = {module: sample(module, asked.sample, asked.seed) for module in modules}
    wanted = [
        name
        for module, found in results.items()
        if any(fnmatch(module, pattern) for pattern in asked.modules)
        for name, one in found.items()
        if one.code is None or one.code in SURVIVED
    ]
    if wanted:
        mutmut("run", "--max-children", "1", *wanted)
    results = {module: sample(module, asked.sample, asked.seed) for module in modules}
    tried = {module: found for module, found in results.items() if any(one.code is not None for one in found.values())}
    if not tried:
        sys.exit("no result: a test fails without any change, or could not be collected; see above")
    write(tried, asked.out)


def prepare() -> None:
    """mutmut, and a copy of the working tree as it wants it."""
    if not TOOL.exists():
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--target", TOOL, f"mutmut=={VERSION}"], check=True)
    skip = shutil.ignore_patterns("__pycache__")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, COPY / "robopref" / folder, ignore=skip, dirs_exist_ok=True)
    for folder in ("tests", "docs"):
        shutil.copytree(ROOT / folder, COPY / folder, ignore=skip, dirs_exist_ok=True)
    for name in ("pyproject.toml", "README.md", "constraints.txt", "Makefile"):
        shutil.copy(ROOT / name, COPY)


def mutmut(*arguments: str) -> None:
    """One call of it; what it returns says nothing that its files do not."""
    environment = os.environ | {"PYTHONPATH": str(TOOL), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "mutmut", *arguments], cwd=COPY, env=environment, check=False)


def sample(module: str, most: int, seed: int) -> dict[str, Mutant]:
    """Some mutants of a module by name."""
    file = COPY / "mutants/robopref" / module
    codes: dict[str, int | None] = json.loads(file.with_name(f"{file.name}.meta").read_text())["exit_code_by_key"]
    changes = changes_in(file)
    found = {name: Mutant(code, changes[name.rpartition(".")[2]]) for name, code in codes.items()}
    parts = PARTS.get(module, ("*",))
    names = sorted(name for name, one in found.items() if any(fnmatch(name, part) for part in parts) and is_of_values(one.change))
    if 0 < most < len(names):
        names = sorted(random.Random(f"{seed} {module}").sample(names, most))
    return {name: found[name] for name in names}


def changes_in(file: Path) -> dict[str, Change]:
    """Of every mutant in a file that mutmut wrote, by function, the lines that it takes away and adds."""
    functions: dict[str, list[str]] = {}
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef):
            name, node.name = node.name, "f"
            functions[name] = ast.unparse(node).splitlines()
    changes = {}
    for name, lines in functions.items():
        of, mutmut, number = name.rpartition("__mutmut_")
        if mutmut and number.isdigit():
            diff = [line for line in difflib.unified_diff(functions[f"{of}__mutmut_orig"], lines, n=0, lineterm="")][2:]
            changes[name] = tuple(" ".join(line[1:].strip() for line in diff if line[0] == sign) for sign in "-+")
    return changes


def is_of_values(change: Change) -> bool:
    """Whether an operator, a number, a comparison or a truth value is another one.

    The others put None or another name somewhere, or leave an argument out, and nearly all of them end in an exception: they
    would tell that a line is run, and not that anybody looks at what comes of it.
    """
    before, after = (Counter(TOKEN.findall(part)) for part in change)
    gone, new = before - after, after - before
    return bool(new or gone == Counter(["not"])) and not any(token == "None" or token[0] in "'\"" for token in new)


def write(results: dict[str, dict[str, Mutant]], out: Path) -> None:
    """Both tables."""
    out.mkdir(parents=True, exist_ok=True)
    rows, survivors = [], []
    for module, found in results.items():
        codes = [one.code for one in found.values()]
        killed, late = (sum(code in kind for code in codes) for kind in (KILLED, TIMED_OUT))
        lost = {name: one.change for name, one in found.items() if one.code in SURVIVED}
        tried = killed + late + len(lost)
        row = {"module": module, "tried": tried, "killed": killed, "timed_out": late, "survived": len(lost)}
        rows.append(row | {"score": f"{(killed + late) / max(1, tried):.3f}"})
        survivors += [{"mutant": name, "before": before, "after": after} for name, (before, after) in lost.items()]
    whole: dict[str, str | int] = {
        name: sum(int(row[name]) for row in rows) for name in ("tried", "killed", "timed_out", "survived")
    }
    rows.append({"module": "all"} | whole | {"score": f"{1 - int(whole['survived']) / max(1, int(whole['tried'])):.3f}"})
    for name, table in (("scores.csv", rows), ("survivors.csv", survivors)):
        with open(out / name, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(table[0]) if table else ["mutant", "before", "after"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(table)
    for row in rows:
        print(", ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
