"""`robopref bench NAME`: speed and memory against a named peer, both sides in the same run on this machine.

Prints a table and, as its last line, one JSON object.
"""

from __future__ import annotations

import importlib
import json
from typing import Annotated, Literal

import tyro

BENCHMARKS = ("render", "collect", "annotate", "vlp")


def main(argv: list[str]) -> None:
    """Command line of `robopref bench`."""
    name = tyro.cli(
        Annotated[Literal[BENCHMARKS], tyro.conf.Positional, tyro.conf.arg(name="name")],  # type: ignore[valid-type]
        args=argv,
        prog="robopref bench",
        description=__doc__,
    )
    # Imported by name, because each pulls in its own peers.
    measured = importlib.import_module(f"robopref.policies.benchmarks.{name}").run()
    print(json.dumps(measured))
