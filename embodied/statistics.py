"""Centre and spread of every table."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import trim_mean

RESAMPLES = 2000  # bootstrap replicates; the 95 % ends then move by about a hundredth between seeds


def iqm(x: np.ndarray) -> float:
    """Interquartile mean of all numbers in x: their mean without the lowest and the highest quarter.

    Up to three numbers nothing is cut.  Meant for success rates, one a member; of single outcomes, 0 or 1, it would make 0.8
    a 1.
    """
    return float(trim_mean(np.asarray(x, np.float64).ravel(), 0.25))


def bootstrap_interval(x: np.ndarray, rng: np.random.Generator, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of `iqm` of the members' success rates, for outcomes x (S, G).

    Stratified by member: each replicate draws S members, and for each G of its own goals, both with replacement, so that the
    interval holds the spread between training seeds and between goals.
    """
    members, goals = x.shape
    rows = rng.integers(members, size=(RESAMPLES, members))
    columns = rng.integers(goals, size=(RESAMPLES, members, goals))
    rates = x[rows[:, :, None], columns].mean(-1)
    low, high = np.quantile(trim_mean(rates, 0.25, axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def summarise(outcomes: pd.DataFrame, seed: int = 0, measure: str = "success") -> dict[str, dict[str, float]]:
    """{policy: {iqm, low, high, mean, n}} from rows policy, member, goal, success; n: episodes; low, high: 95 % interval.

    measure: the column that counts; `ret` where there is no success.
    """
    summary = {}
    for policy, rows in outcomes.groupby("policy", sort=False):
        x = rows.pivot(index="member", columns="goal", values=measure).to_numpy(np.float64)
        low, high = bootstrap_interval(x, np.random.default_rng(seed))
        summary[str(policy)] = {"iqm": iqm(x.mean(1)), "low": low, "high": high, "mean": float(x.mean()), "n": x.size}
    return summary
