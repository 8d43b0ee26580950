"""What the tables share: reading a CSV, and how a number or an interval is printed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np
import pandas as pd
from marks import RESULTS, Estimate, fixed
from scipy.stats import trim_mean

from robopref.embodied.statistics import RESAMPLES, iqm


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


def told(found: Estimate, decimals: int = 1, comma: bool = False, sign: bool = False) -> str:
    """37.0 [30.9, 41.6]."""
    centre, low, high = (fixed(value, decimals, comma, sign) for value in (found.centre, found.low, found.high))
    return f"{centre} [{low}, {high}]"


def listed(values: Iterable[float], decimals: int = 0, comma: bool = False) -> str:
    """1.0, 0.2, 1.0."""
    return ", ".join(fixed(value, decimals, comma) for value in values)


def by_seed(rows: pd.DataFrame, column: str, order: str = "seed") -> np.ndarray:
    """A column, one number a seed, in the order of the seeds."""
    return rows.sort_values(order)[column].to_numpy(np.float64)


FEW = 5  # seeds, from which on an interval is one; with fewer it is their range


def spread_of(values: np.ndarray) -> Estimate:
    """IQM of one number a seed, (S,), and its 95 % interval; the range of fewer than five seeds."""
    if len(values) < FEW:
        return Estimate(iqm(values), float(values.min()), float(values.max()))
    return iqm_of(values[:, None])


def replicates(values: np.ndarray, seed: int) -> np.ndarray:
    """(R, S, T) from (S seeds, T tasks): seeds drawn anew in every task."""
    rng, (seeds, tasks) = np.random.default_rng(seed), values.shape
    return values[rng.integers(seeds, size=(RESAMPLES, seeds, tasks)), np.arange(tasks)]


def middle(values: np.ndarray) -> np.ndarray:
    """IQM of each replicate."""
    return np.asarray(trim_mean(values.reshape(len(values), -1), 0.25, axis=1))


def iqm_of(values: np.ndarray) -> Estimate:
    """IQM of all (S seeds, T tasks) and its 95 % interval."""
    return Estimate(iqm(values), *ends(middle(replicates(values, 0))))


def mean_of(values: np.ndarray) -> Estimate:
    """The same of the mean."""
    return Estimate(float(values.mean()), *ends(replicates(values, 0).mean((1, 2))))


def less(values: np.ndarray, others: np.ndarray) -> Estimate:
    """IQM of (S seeds, T tasks) less that of others, and its 95 % interval."""
    return Estimate(iqm(values) - iqm(others), *ends(middle(replicates(values, 0)) - middle(replicates(others, 1))))


def less_mean(values: np.ndarray, others: np.ndarray) -> Estimate:
    """The same of the mean."""
    drawn = replicates(values, 0).mean((1, 2)) - replicates(others, 1).mean((1, 2))
    return Estimate(float(values.mean() - others.mean()), *ends(drawn))


def ends(drawn: np.ndarray) -> tuple[float, float]:
    """Where 95 % of the replicates lie."""
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(low), float(high)
