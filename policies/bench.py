"""`robopref bench NAME`: speed and memory against a named peer, both sides in the same run on this machine.

Prints a table and, as its last line, one JSON object; with `--csv` the same numbers go into a table of all benchmarks.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
import tyro

from robopref.configs.files import atomic_file


def main(argv: list[str]) -> None:
    """Command line of `robopref bench`."""
    tyro.cli(bench, args=argv, prog="robopref bench", description=__doc__)


def bench(
    name: Annotated[Literal["render", "collect", "annotate", "vlp"], tyro.conf.Positional], csv: Path | None = None
) -> None:
    """Run the benchmark called `name`; its module is imported by name, because each pulls in its own peers.

    csv: a file (benchmark, measure, value) in which the rows of this benchmark are replaced.
    """
    measured = importlib.import_module(f"robopref.policies.benchmarks.{name}").run()
    if csv is not None:
        write_rows(csv, name, measured)
    print(json.dumps(measured))


def write_rows(path: Path, name: str, measured: dict[str, float | dict[str, float]]) -> None:
    """Put what benchmark `name` measured into the table at `path`; a measure of several sizes becomes a row a size."""
    rows = pd.json_normalize(measured).T.rename_axis("measure").set_axis(["value"], axis=1).reset_index()
    rows.insert(0, "benchmark", name)
    others = pd.read_csv(path, dtype={"value": str}) if path.exists() else rows[:0]
    table = pd.concat([others[others["benchmark"] != name], rows])
    with atomic_file(path) as temp:
        table.to_csv(temp, index=False, lineterminator="\n")
