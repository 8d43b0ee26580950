"""What the tables share: reading a CSV, and how a number or an interval is printed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np
import pandas as pd
from marks import RESULTS, fixed

from robopref.embodied.statistics import Spread


@cache
def read(name: str) -> pd.DataFrame:
    """A CSV of docs/results; column `variant` and the like stay words, as does a labeller called none."""
    words = {"variant": str, "settings": str, "world": str, "model": str}
    return pd.read_csv(RESULTS / name, dtype=words, keep_default_na=False, na_values=[""])


def where(name: str, **values: object) -> pd.DataFrame:
    """The rows of a CSV whose columns have these values; ValueError when there is none."""
    table = read(name)
    for column, value in values.items():
        table = table[table[column].astype(str) == str(value)]
    if table.empty:
        raise ValueError(f"{name} has no row with {values}")
    return table


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return re.sub(r"\|  (?=\|)", "| ", text).replace(" --- ", "---")


def short(value: float, decimals: int = 2) -> str:
    """A number between -1 and 1 without its zero: .83."""
    text = fixed(value, decimals)
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text


def told(found: Spread, decimals: int = 1, comma: bool = False, sign: bool = False) -> str:
    """37.0 [30.9, 41.6]."""
    centre, low, high = (fixed(value, decimals, comma, sign) for value in (found.centre, found.low, found.high))
    return f"{centre} [{low}, {high}]"


def listed(values: Iterable[float], decimals: int = 0, comma: bool = False) -> str:
    """1.0, 0.2, 1.0."""
    return ", ".join(fixed(value, decimals, comma) for value in values)


def by_seed(rows: pd.DataFrame, column: str, order: str = "seed") -> np.ndarray:
    """A column, one number a seed, in the order of the seeds."""
    return rows.sort_values(order)[column].to_numpy(np.float64)
