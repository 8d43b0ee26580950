"""`make mutants`: would the tests notice if the core were wrong?  mutmut changes it, a line at a time, and counts.

mutmut wants a package to lie where its name says, so a copy with the folders under `robopref/` is made in `.mutants/`, and mutmut
is installed beside it, since it is no dependency.  What is changed, and which tests look, stands under [tool.mutmut] in
pyproject.toml.  Of each module at most `--sample` changes are tried, drawn by `--seed`; a second call tries what has no result
yet, `--again` what survived.  Writes scores.csv and survivors.csv to `--out`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=40, help="changes of a module, 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--modules", nargs="*", default=["*"], help="for example policies/iql.py")
    parser.add_argument("--again", action="store_true", help="try what survived, not what has no result yet")
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
        for name, code in found.items()
        if (code in SURVIVED if asked.again else code is None)
    ]
    if wanted:
        mutmut("run", "--max-children", "1", *wanted)
    results = {module: sample(module, asked.sample, asked.seed) for module in modules}
    write(results, asked.out)


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


def sample(module: str, most: int, seed: int) -> dict[str, int | None]:
    """Some mutants of a module by name, with the exit code of their tests; None: not tried yet."""
    found: dict[str, int | None] = json.loads((COPY / f"mutants/robopref/{module}.meta").read_text())["exit_code_by_key"]
    names = sorted(name for name in found if any(fnmatch(name, pattern) for pattern in PARTS.get(module, ("*",))))
    if 0 < most < len(names):
        names = sorted(random.Random(f"{seed} {module}").sample(names, most))
    return {name: found[name] for name in names}


def write(results: dict[str, dict[str, int | None]], out: Path) -> None:
    """Both tables."""
    out.mkdir(parents=True, exist_ok=True)
    rows, survivors = [], []
    for module, found in results.items():
        codes = list(found.values())
        killed, late = (sum(code in kind for code in codes) for kind in (KILLED, TIMED_OUT))
        lost = [name for name, code in found.items() if code in SURVIVED]
        tried = killed + late + len(lost)
        row = {"module": module, "tried": tried, "killed": killed, "timed_out": late, "survived": len(lost)}
        rows.append(row | {"score": f"{(killed + late) / tried:.3f}" if tried else ""})
        survivors += [{"mutant": name, "change": change(name)} for name in lost]
    for name, table in (("scores.csv", rows), ("survivors.csv", survivors)):
        with open(out / name, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(table[0]) if table else ["mutant", "change"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(table)
    for row in rows:
        print(", ".join(f"{name} {value}" for name, value in row.items()))
    tried, lost = (sum(int(row[name]) for row in rows) for name in ("tried", "survived"))
    print(f"{tried - lost} of {tried} noticed: {(tried - lost) / max(1, tried):.3f}")


def change(name: str) -> str:
    """The lines that a mutant takes away and adds."""
    environment = os.environ | {"PYTHONPATH": str(TOOL)}
    told = subprocess.run(
        [sys.executable, "-m", "mutmut", "show", name], cwd=COPY, env=environment, capture_output=True, text=True
    )
    lines = [line for line in told.stdout.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    return "  ".join(f"{line[0]} {line[1:].strip()}" for line in lines)


if __name__ == "__main__":
    main()
