"""Tables of policies that learn from labels (docs/results/downstream): success in %."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
from marks import fixed
from shared import listed, markdown, read, told

from robopref.embodied.statistics import Spread, difference, over_seeds, verdict
from robopref.policies.downstream import TARGETS

POLICIES = ("bc", "piql", "ipl", "cpl", "cpl_kl", "dpo")
LABELLERS = ("none", "scripted", "vlp", "contrastive")
NAMES = {"bc": "cloning", "piql": "P-IQL", "ipl": "IPL", "cpl": "CPL"}
SCRIPTED_TARGETS = {"piql": 62.9, "ipl": 55.2, "cpl": 78.0}  # the paper's success from scripted labels, table 1
WHICH = {"downstream": "all", "abstain": "30 % left out"}
KINDS = {"downstream": "hard", "soft": "probabilities", "abstain": "hard, 30 % left out"}
ALL, PARTLY = "downstream", "abstain"


@cache
def rows_of(file: str, policy: str, labeller: str, seed: int | None = None) -> pd.DataFrame:
    """Rows of one policy from one labeller's labels, of one data seed or of all; success in %."""
    table = read(f"downstream/{file}.csv")
    chosen = table[(table["policy"] == policy) & (table["labeller"] == labeller)]
    if seed is not None:
        chosen = chosen[chosen["seed"] == seed]
    return chosen.assign(success=100 * chosen["success"])


def by_task(file: str, policy: str, labeller: str, seed: int | None = None) -> list[str]:
    """Means over seeds of each task, then of all; nothing where there is no row."""
    means = rows_of(file, policy, labeller, seed).groupby("task")["success"].mean()
    return [] if means.empty else [*(fixed(value, 1) for value in means), fixed(means.mean(), 1)]


def tasks(file: str) -> list[str]:
    """Task names, as columns."""
    return sorted(read(f"downstream/{file}.csv")["task"].unique())


def first(file: str = ALL) -> str:
    """Data seed 0: means over five policy seeds."""
    rows = [
        [policy, labeller, *cells]
        for policy in POLICIES
        for labeller in LABELLERS
        if (cells := by_task(file, policy, labeller, 0))
    ]
    return markdown(["policy", "labels", *tasks(file), "mean"], rows)


def kinds() -> str:
    """Data seed 0: hard labels, probabilities, and the least sure left out."""
    rows = [
        [policy, labeller, says, *by_task(file, policy, labeller, 0)]
        for policy in ("piql", "ipl", "cpl")
        for labeller in ("scripted", "vlp")
        for file, says in KINDS.items()
    ]
    return markdown(["policy", "labels of", "which", *tasks(ALL), "mean"], rows)


def three() -> str:
    """Three data seeds: means of all, and of each data seed."""
    rows = []
    for policy in ("bc", "piql", "ipl", "cpl"):
        for labeller in ("none",) if policy == "bc" else ("scripted", "vlp"):
            for file, says in WHICH.items():
                if cells := by_task(file, policy, labeller):
                    seeds = listed(of_data_seeds(file, policy, labeller), 1)
                    rows.append([policy, labeller, "-" if policy == "bc" else says, *cells[:-1], seeds, cells[-1]])
    return markdown(["policy", "labels", "which", *tasks(ALL), "data seeds 0, 1, 2", "mean"], rows)


def of_data_seeds(file: str, policy: str, labeller: str) -> list[float]:
    """Success of each data seed, mean over tasks and policy seeds."""
    return list(rows_of(file, policy, labeller).groupby("seed")["success"].mean())


def success(file: str, policy: str, labeller: str, seed: str = "") -> Spread:
    """Mean over data sets, which are the unit, and their range; or the mean of one."""
    values = np.array(of_data_seeds(file, policy, labeller))
    return over_seeds(values[[int(seed)]] if seed else values, np.mean)


def differs(file: str, policy: str, labeller: str, other_file: str, other: str, other_policy: str = "") -> Spread:
    """How much more one labeller (or policy) is worth than another, on the same data sets."""
    pair = ((file, policy, labeller), (other_file, other_policy or policy, other))
    first, second = (np.array(of_data_seeds(*cell)) for cell in pair)
    return difference(first, second, np.mean, paired=True)


def gained(file: str, policy: str, labeller: str, other_file: str = ALL) -> float:
    """For marks: how far two kinds of labels are apart on data set 0."""
    return abs(success(file, policy, labeller, "0").centre - success(other_file, policy, labeller, "0").centre)


def accuracy(file: str, labeller: str, column: str = "accuracy", seed: str = "") -> float:
    """For marks: mean of a measure of the labels over tasks and data seeds."""
    table = read(f"downstream/{file}.csv")
    table = table[table["labeller"] == labeller]
    if seed:
        table = table[table["seed"] == int(seed)]
    return float(table.drop_duplicates(["task", "seed"])[column].mean())


def cluster_bit() -> float:
    """For marks: accuracy of knowing only the better cluster, mean over tasks and three sets of data.

    Set 0's stands in soft.csv, of the same pairs: downstream.csv had no such column when it was begun.
    """
    sets = [accuracy("soft", "vlp", "cluster_accuracy", "0"), *(accuracy(ALL, "vlp", "cluster_accuracy", seed) for seed in "12")]
    return float(np.mean(sets))


def published(policy: str) -> float:
    """Success from VLP's labels in the paper."""
    return TARGETS[policy]


def paper_gains() -> list[float]:
    """For marks: what VLP's labels are worth over scripted ones in the paper, with P-IQL, IPL and CPL."""
    return [TARGETS[policy] - SCRIPTED_TARGETS[policy] for policy in ("piql", "ipl", "cpl")]


def paper_agreement() -> float:
    """For marks: the paper's agreement of VLP's labels with scripted ones."""
    return 0.974


def verdicts(*files: str) -> str:
    """Success from VLP's labels less the paper's number, the true return's labels and cloning, over three data sets."""
    rows = []
    for file in files:
        for policy in ("piql", "ipl", "cpl"):
            own = success(file, policy, "vlp")
            true, cloned = (differs(file, policy, "vlp", *other) for other in ((file, "scripted"), (ALL, "none", "bc")))
            rows.append([NAMES[policy], WHICH[file], told(own), paper(own, TARGETS[policy]), *map(judged, (true, cloned))])
    return markdown(["policy", "labels", "from VLP's", "less the paper's", "less the true return's", "less cloning"], rows)


def paper(own: Spread, target: float) -> str:
    """How far the mean is from the paper's number, and whether that lies inside the range over sets of data."""
    less = own.centre - target
    where = f"{'above' if less > 0 else 'below'} on all sets"
    return f"{fixed(less, 1, sign=True)}: {'inside the range' if own.low <= target <= own.high else where}"


def judged(found: Spread) -> str:
    """A difference, its range, and what it says; the unit is the set of data."""
    return f"{told(found, sign=True)}: {verdict(found, unit='sets')}"


def largest_range() -> float:
    """For marks: how far data sets are apart at most, for the same labeller and policy."""
    found = [success(ALL, policy, labeller) for policy in ("piql", "ipl", "cpl") for labeller in ("scripted", "vlp")]
    return max(spread.high - spread.low for spread in found)


def short() -> str:
    """README's table: means and ranges over data seeds."""
    rows = []
    for policy in ("piql", "ipl", "cpl"):
        cells = [told(success(file, policy, labeller)) for file in WHICH for labeller in ("vlp", "scripted")]
        rows.append([NAMES[policy], *cells, fixed(TARGETS[policy], 1), fixed(SCRIPTED_TARGETS[policy], 1)])
    rows.append([NAMES["bc"], told(success(ALL, "bc", "none")), "", "", "", "", ""])
    head = ["", "VLP's labels", "true return's", "VLP's, 30 % left out", "true return's, 30 % left out"]
    head += ["the paper: VLP's labels", "the paper: scripted labels"]
    return markdown(head, rows)
