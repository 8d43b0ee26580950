"""`robopref bench NAME`: speed and memory against a named peer, both sides in the same run on this machine.

Prints a table and, as its last line, one JSON object.
"""

from __future__ import annotations

import importlib
import json
from typing import Annotated, Literal

import tyro


def main(argv: list[str]) -> None:
    """Command line of `robopref bench`."""
    tyro.cli(bench, args=argv, prog="robopref bench", description=__doc__)


def bench(name: Annotated[Literal["render", "collect", "annotate", "vlp"], tyro.conf.Positional]) -> None:
    """Run the benchmark called `name`; its module is imported by name, because each pulls in its own peers."""
    measured = importlib.import_module(f"robopref.policies.benchmarks.{name}").run()
    print(json.dumps(measured))
