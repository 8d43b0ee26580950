"""Tables by which settings were chosen on train tasks (docs/results/policies, leave_out, abstention)."""

from __future__ import annotations

import pandas as pd
from shared import markdown, read, short

STUDY = {  # file and variant -> what it is called
    "study bc": "cloning",
    "study piql-8k": "P-IQL, 8,000 steps",
    "study cpl-a.01-w.3": "CPL of `scale=quick`",
    "ipl ipl": "IPL, penalty 3, temperature 0.3333 (the paper's)",
    "ipl ipl-t.1": "IPL, penalty 3, temperature 0.1",
    "ipl ipl-t.03": "IPL, penalty 3, temperature 0.03 (`scale=quick`)",
    "ipl ipl-p.3-t.1": "IPL, penalty 0.3, temperature 0.1",
    "ipl cpl-kl-a.02-w.3": "CPL-KL, alpha 0.02, bias 0.75, cloning weight 0.3",
    "ipl dpo-a.02-w.3": "DPO, alpha 0.02, cloning weight 0.3",
}
LARGE = {
    "cpl bc": "cloning, `scale=quick` (`cpl.csv`)",
    "cpl all": "CPL, `scale=quick` (`cpl.csv`)",
    "large bc-large": "`bc-large`: cloning, 512 wide, 4,000 steps, dropout .25",
    "large large-quick": "`large-quick`: CPL, 512 wide, 10,000 steps, alpha .01, cloning beside it",
    "large large-a.03": "`large-a.03`: the same, alpha .03",
    "large large-paper": "`large-paper`: the paper's settings, a fiftieth of its schedule",
}
SOME = ("handle-press", "plate-slide", "window-close")
LEAVE_OUT = {
    "quick": "`quick`: the demo's VLP",
    "factored": "`factored`",
    "factored-1600": "`factored-1600`: its backbone trained twice as long",
}
MEASURES = {
    "balanced_accuracy": "segments, balanced",
    "kendall_tau": "tau",
    "ivp_accuracy": "IVP",
    "itp_accuracy": "ITP",
    "ilp_loss": "ILP loss",
}


def rows_of(file: str, variant: str, seed: int | None = None) -> pd.DataFrame:
    """Rows of a study of policies."""
    table = read(f"policies/{file}.csv")
    rows = table[table["variant"] == variant]
    return rows if seed is None else rows[rows["seed"] == seed]


def success(file: str, variant: str, seed: str = "0", task: str = "") -> float:
    """For marks: mean over tasks, or one of them."""
    rows = rows_of(file, variant, int(seed))
    return float((rows[rows["task"] == task] if task else rows)["iqm"].mean())


def study() -> str:
    """Success averaged over the six tasks, a number a data seed."""
    rows = []
    for name, says in STUDY.items():
        means = rows_of(*name.split()).groupby("seed")["iqm"].mean()
        rows.append([says, ", ".join(short(value) for value in means)])
    return markdown(["setting", "success"], rows)


def large() -> str:
    """Networks of the paper's size: six tasks, and the three that all settings have."""
    rows = []
    for name, says in LARGE.items():
        part = rows_of(*name.split(), 0)
        some = part[part["task"].isin(SOME)]
        rows.append([says, short(part["iqm"].mean(), 3) if len(part) == 6 else "-", short(some["iqm"].mean(), 3)])
    return markdown(["setting, 100 pairs, seed 0", "six tasks", ", ".join(SOME)], rows)


ABSTENTION = {  # runs of abstention/runs.csv -> what they are called
    "one": "one VLP, all labels",
    "all": "four VLPs, all labels",
    "one conf .3": "one VLP, the 30 % of least confidence left out",
    "all conf 0.3": "four VLPs, the same",
    "all dis 0.3": "four VLPs, the 30 % of most disagreement left out",
}


def abstention() -> str:
    """Labels with and without the least sure 30 %: means over eleven tasks, two seeds of data and, of one VLP, the four."""
    table = read("abstention/runs.csv").groupby("run")[["accuracy", "left_accuracy", "constant_accuracy"]].mean()
    rows = [[says, *("-" if pd.isna(value) else short(value, 3) for value in table.loc[run])] for run, says in ABSTENTION.items()]
    return markdown(["labels", "accuracy", "of the pairs left out", "a constant's"], rows)


def left_out() -> str:
    """The factored VLP at the demo's sizes: means over eleven tasks and two seeds."""
    means = read("leave_out/factored.csv").groupby("variant")[list(MEASURES)].mean()
    rows = [[says, *(short(means.loc[variant, key], 3) for key in MEASURES)] for variant, says in LEAVE_OUT.items()]
    return markdown(["setting", *MEASURES.values()], rows)
