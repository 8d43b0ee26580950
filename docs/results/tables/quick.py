"""Tables of the pipeline's runs: what VLP's labels agree with, and what policies make of them."""

from __future__ import annotations

from marks import fixed
from shared import markdown, read, told, where

from robopref.embodied.statistics import INTERVAL, Spread

MEASURES = {
    "accuracy": "accuracy",
    "constant_accuracy": "constant label",
    "balanced_accuracy": "balanced accuracy",
    "auc": "AUC",
    "kendall_tau": "Kendall tau",
    "episodes_itp_accuracy": "whole episodes: ITP",
    "episodes_ivp_accuracy": "IVP",
}


def labels(folder: str = "quick") -> str:
    """A row a seed."""
    rows = read(f"{folder}/labels.csv").sort_values("seed").to_dict("records")
    return markdown(["seed", *MEASURES.values()], [[str(row["seed"]), *(fixed(row[key], 3) for key in MEASURES)] for row in rows])


def success(folder: str = "quick") -> str:
    """A row a policy, a column a seed: interquartile mean and interval."""
    table = read(f"{folder}/success.csv")
    seeds = sorted(table["seed"].unique())
    rows = []
    for policy in dict.fromkeys(table["policy"]):
        cells = {row["seed"]: row for row in table[table["policy"] == policy].to_dict("records")}
        found = [Spread(*(cells[seed][key] for key in ("iqm", "low", "high")), INTERVAL, cells[seed]["n"]) for seed in seeds]
        rows.append([policy, *(told(cell, 2) for cell in found)])
    return markdown(["policy", *(f"seed {seed}" for seed in seeds)], rows)


def label(seed: str, measure: str) -> float:
    """One measure of the labels of a seed."""
    return float(where("quick/labels.csv", seed=seed)[measure].iloc[0])
