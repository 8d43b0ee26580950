"""Settings of `robopref bench`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True)
class BenchConfig:
    """Which benchmark, and where its numbers go."""

    name: Annotated[
        Literal["render", "collect", "annotate", "vlp", "downstream", "cir", "gtr", "iql", "prof"], tyro.conf.Positional
    ]
    csv: Path | None = None
    """A table (benchmark, measure, value, machine, code) in which the rows of this benchmark are replaced."""
