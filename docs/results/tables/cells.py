"""Any cell of any CSV of docs/results, for marks: FILE COLUMN and the rows as COLUMN=VALUE, VALUE,VALUE or COLUMN>VALUE."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from shared import read


def chosen(name: str, conditions: tuple[str, ...]) -> pd.DataFrame:
    """The rows that meet all conditions; ValueError when there is none."""
    table = read(name)
    for condition in conditions:
        column, sign, value = condition.partition("=")
        if not sign:
            raise ValueError(f"{condition}: write COLUMN=VALUE")
        table = table[table[column].astype(str).isin(value.split(","))]
    if table.empty:
        raise ValueError(f"{name} has no such row")
    return table


def cell(name: str, column: str, *conditions: str) -> float:
    """The one value there is; ValueError when there are several rows."""
    rows = chosen(name, conditions)
    if len(rows) > 1:
        raise ValueError(f"{name} has {len(rows)} such rows")
    return float(rows[column].iloc[0])


def each(name: str, column: str, *conditions: str) -> list[float]:
    """All values, in the order of the file."""
    return [float(value) for value in chosen(name, conditions)[column]]


def mean(name: str, column: str, *conditions: str) -> float:
    """The mean over rows."""
    return float(chosen(name, conditions)[column].mean())


def least(name: str, column: str, *conditions: str) -> float:
    """The smallest value."""
    return float(chosen(name, conditions)[column].min())


def most(name: str, column: str, *conditions: str) -> float:
    """The largest value."""
    return float(chosen(name, conditions)[column].max())


def ends(name: str, column: str, *conditions: str) -> list[float]:
    """The smallest and the largest value."""
    return [least(name, column, *conditions), most(name, column, *conditions)]


def minutes(name: str, *conditions: str) -> list[float]:
    """Column `seconds`, in minutes: of the quickest and of the slowest run."""
    return [value / 60 for value in ends(name, "seconds", *conditions)]


def minute(name: str, *conditions: str) -> float:
    """Minutes of the slowest run alone."""
    return most(name, "seconds", *conditions) / 60


def deviation(name: str, column: str, *conditions: str) -> float:
    """The sample deviation over seeds of the means over everything else."""
    return float(chosen(name, conditions).groupby("seed")[column].mean().std())


def middle(name: str, column: str, *conditions: str) -> float:
    """The median."""
    return float(np.median(chosen(name, conditions)[column]))


def percent(name: str, column: str, *conditions: str) -> float:
    """100 times the mean over rows."""
    return 100 * mean(name, column, *conditions)


def likely(name: str, of: str, tried: str, *conditions: str) -> list[float]:
    """The 95 % interval (Wilson's) of a share of counts in two columns."""
    successes, trials = (int(cell(name, column, *conditions)) for column in (of, tried))
    found = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    return [float(found.low), float(found.high)]
