"""`robopref bench NAME`: speed and memory against a named peer, both sides in the same run on this machine.

Prints a table and, as its last line, one JSON object; with `--csv` the same numbers go into a table of all benchmarks.
"""

from __future__ import annotations

import importlib
import json
import os
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from robopref.configs.bench import BenchConfig
from robopref.configs.errors import RoboprefError
from robopref.configs.files import atomic_file
from robopref.configs.rows import read_csv
from robopref.configs.run import code_version, processor

COLUMNS = ["benchmark", "measure", "value", "machine", "code"]


def main(config: BenchConfig) -> None:
    """`robopref bench`; the benchmark's module is imported by name, because each pulls in its own peers."""
    name, csv = config.name, config.csv
    before = pd.DataFrame() if csv is None else read_rows(csv)  # a wrong file is told before minutes are spent
    measured = importlib.import_module(f"robopref.policies.benchmarks.{name}").run()
    if csv is not None:
        # A measure of several sizes becomes a row a size.
        rows = pd.json_normalize(measured).T.rename_axis("measure").set_axis(["value"], axis=1).reset_index()
        rows.insert(0, "benchmark", name)
        rows = rows.assign(machine=machine(), code=code())
        with atomic_file(csv) as temp:
            pd.concat([before[before["benchmark"] != name], rows]).to_csv(temp, index=False, lineterminator="\n")
    print(json.dumps(measured))


def machine() -> str:
    """What a ratio depends on beside the code: processor, cores, and the instructions that torch multiplies matrices with."""
    import torch

    from robopref.policies.mixed import has_bfloat16

    bfloat16 = "with" if has_bfloat16(torch.device("cpu")) else "without"
    return f"{processor()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()} {bfloat16} bfloat16"


def code() -> str:
    """Commit of the checkout, with a + where files were changed, or the version of an installed package."""
    found = code_version()
    return version("robopref") if found is None else found["commit"][:7] + "+" * found["dirty"]


def read_rows(path: Path) -> pd.DataFrame:
    """The table at `path`, empty when there is none; RoboprefError when it is another kind of table."""
    if not path.exists():
        return pd.DataFrame(columns=COLUMNS)
    table = read_csv(path, dtype=str, keep_default_na=False)
    if missing := [name for name in COLUMNS if name not in table]:
        raise RoboprefError(f"{path}: no table of `robopref bench` (no column {missing[0]}); name another file")
    return table[COLUMNS]
