"""Centre and spread of every table: which unit a spread is over, and when two things are told apart.

Comes after all runs; goes to the summaries of the studies, to the report and to docs/results.  The rules, chosen before:

* The centre is the interquartile mean (Agarwal et al. 2021), with the mean beside it.
* Below FEW seeds there is a range and no interval: of three seeds a bootstrap's ends are the lowest and the highest anyway, and
  hold the truth in .74 of the cases (simulated: tests/test_statistics.py).
* From FEW on a percentile bootstrap whose tails are widened as Student's t is (Hesterberg 2015, expanded percentiles).  With five
  normal seeds it holds their mean in .92 of the cases, where the plain percentiles do in .85 and BCa in .85.
* Tasks scatter differently: the degrees of freedom are those of Welch and Satterthwaite, where a task that scatters most counts
  most.  Of four tasks and five seeds, one task with 20 times the deviation of the others, the mean's interval holds the truth in
  .92 of the cases; with 4 (5 - 1) degrees of freedom it does in .87.
* What a difference or ratio is taken against was measured on seeds, too: these are drawn as well.  Both sides have the same
  statistic, so that a thing over itself is 1.
* Two things are not told apart while the spread of their difference holds 0, or of their ratio 1.

Axes: S seeds (runs that differ in their seed alone, independent), T tasks (worlds, data sets; always the same ones), G goals
(starts that every member meets), R bootstrap replicates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm, t

from robopref.configs.errors import RoboprefError
from robopref.configs.progress import counted

FEW = 5  # seeds, below which there is no interval
LEVEL = 0.95
RESAMPLES = 10_000  # the ends of five seeds are at 1 in 1,000
RANGE, INTERVAL = "range", "95 % interval"
NOT_APART = "not told apart"

Statistic = Callable[..., np.ndarray]
"""(x, axis) -> a number for every row, as np.mean."""


def iqm_along(x: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Interquartile mean along an axis, by default of all numbers: see `iqm`."""
    ordered = np.sort(np.asarray(x, np.float64), axis=axis)
    middle = np.moveaxis(ordered, axis or 0, 0)
    cut = len(middle) // 4
    return np.asarray(middle[cut : len(middle) - cut].mean(0))


def iqm(x: np.ndarray) -> float:
    """Interquartile mean of all numbers in x: their mean without the lowest and the highest quarter.

    Up to three numbers nothing is cut.  Meant for success rates, one a member; of single outcomes, 0 or 1, it would make 0.8
    a 1.
    """
    return float(iqm_along(x))


@dataclass(frozen=True)
class Spread:
    """A number of a table and what it could have been."""

    centre: float
    low: float
    high: float
    kind: str
    """RANGE or INTERVAL."""
    units: int
    """Seeds (goals, for success) that it is over; of two sides, of the smaller."""

    def text(self, digits: int = 1, sign: str = "") -> str:
        """`4.4 [-4.2, 12.3]`; sign="+" for differences."""
        return f"{self.centre:{sign},.{digits}f} {self.ends(digits, sign)}"

    def ends(self, digits: int = 1, sign: str = "") -> str:
        """`[-4.2, 12.3]`."""
        low, high = (f"{number:{sign},.{digits}f}" for number in (self.low, self.high))
        return f"[{low}, {high}]"

    def said(self, digits: int = 1, sign: str = "") -> str:
        """`range [-4.2, 12.3]` or `95 % interval [-4.2, 12.3]`; of one seed there is neither."""
        return f"{self.kind} {self.ends(digits, sign)}" if self.units > 1 else "one, no spread"


def verdict(spread: Spread, null: float = 0.0, unit: str = "seeds") -> str:
    """`above`, `below` or `not told apart`, by whether the spread of a difference (null 0) or ratio (null 1) holds null.

    Of few units: `above on all seeds`, where unit is the word for them.  That is less than an interval says.  Of one task three
    runs lie above three others by chance once in 20, and apart either way once in 10 (of two tasks alike: once in 50); three
    paired differences are all positive by chance once in 8, and of one sign once in 4.
    """
    low, high = (null if math.isclose(end, null, rel_tol=1e-9, abs_tol=1e-12) else end for end in (spread.low, spread.high))
    where = "above" if low > null else "below" if high < null else ""  # a ratio of the same to the same is rounded
    if not where:
        return NOT_APART
    return where if spread.kind == INTERVAL else f"{where} on all {unit}"


def over_seeds(values: np.ndarray, statistic: Statistic = iqm_along) -> Spread:
    """One thing's statistic over all runs (S,) or (S, T).  The unit is the seed; tasks are fixed.

    Assumes that runs are independent, also those of one seed number in several tasks: seeds are drawn anew in every task.
    Range: every task at its lowest seed to every task at its highest.  Degrees of freedom: see `welch`.
    """
    (x,) = in_order(values)
    centre, seeds = float(statistic(x.ravel())), len(x)
    if seeds < FEW:
        return Spread(centre, all_at(x.min(0), seeds, statistic), all_at(x.max(0), seeds, statistic), RANGE, seeds)
    drawn = statistic(draw(x, np.random.default_rng(0)).reshape(RESAMPLES, -1), axis=1)
    return between(centre, drawn, seeds, welch((x.var(0, ddof=1) / seeds, seeds)))


def difference(theirs: np.ndarray, own: np.ndarray, statistic: Statistic = iqm_along, paired: bool = False) -> Spread:
    """The statistic of `theirs` (S, T) less that of `own` (S', T).  The unit is the seed; tasks are fixed, and the same.

    Not paired: both sides' seeds are drawn, each for itself.  So for agents that share a seed's number and the starts of an
    evaluation, and nothing of what they met while they learnt.  paired: row s of both has the same data or pairs, and is drawn
    together.  Range: the lowest of theirs less the highest of own, and the other way round; if paired of the rows' differences.
    Degrees of freedom: see `welch`.
    """
    if np.shape(theirs)[1:] != np.shape(own)[1:] or (paired and len(theirs) != len(own)):
        what = f"{np.shape(theirs)} and {np.shape(own)}"
        raise ValueError(f"a difference needs the same tasks, and the same seeds if they are paired: {what}")
    x, y = in_order(theirs, own, paired=paired)
    centre, seeds = float(statistic(x.ravel()) - statistic(y.ravel())), min(len(x), len(y))
    if seeds < FEW:
        if paired:
            less = statistic(x, axis=1) - statistic(y, axis=1)
            return Spread(centre, float(less.min()), float(less.max()), RANGE, seeds)
        low = all_at(x.min(0), len(x), statistic) - all_at(y.max(0), len(y), statistic)
        high = all_at(x.max(0), len(x), statistic) - all_at(y.min(0), len(y), statistic)
        return Spread(centre, low, high, RANGE, seeds)
    first, second = (np.random.default_rng(seed) for seed in ((0, 0) if paired else (0, 1)))
    drawn = [statistic(draw(side, rng).reshape(RESAMPLES, -1), axis=1) for side, rng in ((x, first), (y, second))]
    sides = [x - y] if paired else [x, y]
    return between(centre, drawn[0] - drawn[1], seeds, welch(*((side.var(0, ddof=1) / len(side), len(side)) for side in sides)))


def ratio(values: np.ndarray, base: np.ndarray, statistic: Statistic = iqm_along) -> Spread:
    """The statistic of values (S, T) over that of `base` (S', T), tasks in units of the base's mean.  The unit is the seed.

    Both are divided by the base's mean of each task, so that tasks with large returns do not count more; then the statistic of
    one is divided by the same statistic of the other, so that the base over itself is 1 (np.mean: mean quotient of the means).
    The denominator is of few seeds, too, so the base's seeds are drawn with the values': with a denominator that stands still a
    nominal 95 % holds the truth in .81 to .89 (simulated).  Not paired; tasks are fixed.  RoboprefError where a number of the
    base is not positive.
    Range: every task at its lowest over the base's highest, and the other way round.  Degrees of freedom: see `welch`.
    """
    x, y = in_order(values, base)
    if not (y > 0).all():
        raise RoboprefError(f"a ratio over a return of {y.min():.3g} means nothing: compare by differences, or with another base")
    scale, seeds = y.mean(0), min(len(x), len(y))
    centre = float(statistic((x / scale).ravel()) / statistic((y / scale).ravel()))
    if seeds < FEW:
        low, high = (all_at(end, len(x), statistic) for end in (x.min(0) / y.max(0), x.max(0) / y.min(0)))
        return Spread(centre, low, high, RANGE, seeds)
    above, under = (draw(side, np.random.default_rng(seed)) for seed, side in enumerate((x, y)))
    scales = under.mean(1, keepdims=True)
    drawn = [statistic((side / scales).reshape(RESAMPLES, -1), axis=1) for side in (above, under)]
    scatter = [(x / scale).var(0, ddof=1) / len(x), (y * x.mean(0) / scale**2).var(0, ddof=1) / len(y)]
    return between(centre, drawn[0] / drawn[1], seeds, welch((scatter[0], len(x)), (scatter[1], len(y))))


def over_goals(outcomes: np.ndarray, share: bool = True) -> Spread:
    """IQM of the members' means over goals, outcomes (S members, G goals); from FEW members on they are drawn, too.

    Every member meets the same goals, so a replicate draws goals once for all of them: a hard goal is hard for all.  Below FEW
    members the interval is about these members on other goals of the kind, and says nothing about other training seeds.  Where
    members are drawn, too, what an episode has of its own counts for both (Owen 2007), so plain percentiles are wide enough.
    share: outcomes are 0 or 1; if all of them agree, the ends are those that G such goals leave open (Clopper and Pearson).
    """
    x = np.asarray(outcomes, np.float64)
    members, goals = x.shape
    centre = iqm(x.mean(1))
    rng = np.random.default_rng(0)
    if goals < FEW:
        return Spread(centre, float(x.mean(0).min()), float(x.mean(0).max()), RANGE, goals)
    if share and (x == x[0, 0]).all():
        open_end = ((1 - LEVEL) / 2) ** (1 / goals)
        low, high = (open_end, 1.0) if x[0, 0] else (0.0, 1 - open_end)
        return Spread(centre, low, high, INTERVAL, goals)
    met = rng.integers(goals, size=(RESAMPLES, goals))
    means = np.stack([row[met].mean(1) for row in x], axis=1)
    if members < FEW:
        return between(centre, iqm_along(means, axis=1), goals, goals - 1)
    means = np.take_along_axis(means, rng.integers(members, size=(RESAMPLES, members)), axis=1)
    low, high = np.quantile(iqm_along(means, axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Spread(centre, float(low), float(high), INTERVAL, min(members, goals))


def summarise(outcomes: pd.DataFrame, measure: str = "success") -> dict[str, dict[str, float]]:
    """{policy: {iqm, low, high, mean, n, members, goals}} from rows policy, member, goal, success; n: episodes.

    low, high: of `over_goals`.  measure: the column that counts; `ret` where there is no success.
    """
    summary = {}
    for policy, rows in outcomes.groupby("policy", sort=False):
        x = rows.pivot(index="member", columns="goal", values=measure).to_numpy(np.float64)
        found = over_goals(x, share=measure == "success")
        members, goals = x.shape
        ends = {"iqm": found.centre, "low": found.low, "high": found.high, "mean": float(x.mean())}
        summary[str(policy)] = ends | {"n": x.size, "members": members, "goals": goals}
    return summary


def over_what(members: int, goals: int) -> str:
    """The unit of a row of `summarise`, in words."""
    drawn = "goals" if members < FEW else "goals and seeds"
    return f"{RANGE if goals < FEW else INTERVAL} over {drawn}; {counted(goals, 'goal')} x {counted(members, 'seed')}"


def grid(rows: pd.DataFrame, value: str, seed: str = "seed", task: str = "env") -> np.ndarray | None:
    """(S, T) of a table of one thing's runs, a row a seed and task; None where a run lacks."""
    table = rows.pivot_table(index=seed, columns=task, values=value, sort=True).to_numpy(np.float64)
    return None if table.size == 0 or np.isnan(table).any() else table


def hangs_on(theirs: np.ndarray, own: np.ndarray, statistic: Statistic = iqm_along) -> list[int]:
    """Tasks, by number, without which the difference of the statistics, (S, T) and (S', T), has the other sign."""

    def less(tasks: list[int]) -> float:
        return float(statistic(theirs[:, tasks].ravel()) - statistic(own[:, tasks].ravel()))

    every = list(range(theirs.shape[1]))
    others = {task: [other for other in every if other != task] for task in every}
    return [task for task, kept in others.items() if kept and less(kept) * less(every) < 0]


def all_at(runs: np.ndarray, seeds: int, statistic: Statistic) -> float:
    """The statistic if all of S seeds had been these runs, one a task (T,): what is cut at each end depends on how many."""
    return float(statistic(np.tile(runs, seeds)))


def in_order(*sides: np.ndarray, paired: bool = False) -> list[np.ndarray]:
    """(S,) or (S, T) of each side -> (S, T), seeds and tasks sorted by their numbers: a spread does not depend on their order."""
    tables = [np.asarray(side, np.float64).reshape(len(side), -1) for side in sides]
    if not paired:
        tables = [np.sort(table, axis=0) for table in tables]
    order = np.lexsort(np.vstack(tables))
    return [table[:, order] for table in tables]


def draw(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Replicates (R, S, T) of runs (S, T): S of S seeds with replacement, anew in every task."""
    seeds, tasks = x.shape
    return x[rng.integers(seeds, size=(RESAMPLES, seeds, tasks)), np.arange(tasks)]


def welch(*sides: tuple[np.ndarray, int]) -> float:
    """Degrees of freedom of a sum over tasks and sides that scatter differently (Welch 1947, Satterthwaite 1946).

    sides: of each the variances of its tasks' means (T,), and how many seeds they are over.  T (S - 1) where all tasks are alike,
    S - 1 where one task has all the variance.  Exact to that order for means; of an IQM it is an approximation, which counts a
    task fully even where its runs are mostly cut.
    """
    total = sum(float(variances.sum()) for variances, _ in sides)
    fourth = sum(float((variances**2).sum()) / (seeds - 1) for variances, seeds in sides)
    if total == 0 or fourth == 0:  # nothing scatters: the interval is a point, whatever stands here
        return float(sum(len(variances) * (seeds - 1) for variances, seeds in sides))
    return total**2 / fourth


def between(centre: float, drawn: np.ndarray, units: int, freedom: float) -> Spread:
    """The interval of replicates (R,), at percentiles that make up for how few units there are.

    A bootstrap of S has (S - 1) / S of the variance, and normal tails where Student's t belongs: so sqrt(S / (S - 1)) times the
    quantile of t stands for the normal quantile.  freedom: degrees of freedom, of several tasks and sides those of `welch`.
    """
    tail = norm.cdf(-np.sqrt(units / (units - 1)) * t.ppf((1 + LEVEL) / 2, freedom))
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Spread(centre, float(low), float(high), INTERVAL, units)
