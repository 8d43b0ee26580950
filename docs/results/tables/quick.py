"""Tables of the pipeline's runs: what VLP's labels agree with, and what policies make of them."""

from __future__ import annotations

import pandas as pd
from marks import fixed
from shared import markdown, read, told, where

from robopref.embodied.statistics import INTERVAL, Spread

MEASURES = {  # columns that a table has -> their heads
    "clear_balanced_accuracy": "balanced accuracy without near-ties",
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "constant_accuracy": "a constant's",
    "cluster_accuracy": "the cluster bit's",
    "over_cluster": "over the cluster bit",
    "cluster_balanced_accuracy": "by the cluster bit, balanced",
    "auc": "AUC",
    "kendall_tau": "Kendall tau",
    "episodes_ivp_accuracy": "IVP",
    "episodes_itp_accuracy": "ITP (whole episodes)",
}


def labels(folder: str = "quick") -> str:
    """A row a seed and labeller."""
    table = read(f"{folder}/labels.csv")
    there = [key for key in MEASURES if key in table]
    who = [key for key in ("labeller",) if key in table]
    table = table.sort_values("seed", kind="stable")
    if who:  # VLP first
        table = table.sort_values("labeller", key=lambda names: names != "vlp", kind="stable")
    rows = [
        [str(row["seed"]), *(row[key] for key in who), *("-" if pd.isna(row[key]) else fixed(row[key], 3) for key in there)]
        for row in table.to_dict("records")
    ]
    return markdown(["seed", *who, *(MEASURES[key] for key in there)], rows)


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
    """One measure of VLP's labels of a seed."""
    rows = where("quick/labels.csv", seed=seed)
    return float((rows[rows["labeller"] == "vlp"] if "labeller" in rows else rows)[measure].iloc[0])
