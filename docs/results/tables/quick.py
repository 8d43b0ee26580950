"""Tables of the pipeline's runs: what VLP's labels agree with, and what policies make of them."""

from __future__ import annotations

import pandas as pd
import vlp
from shared import listed, markdown, read, told, where

from robopref.embodied.statistics import INTERVAL, Spread

MEASURES = {
    "clear_balanced_accuracy": "balanced accuracy without near-ties",
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "auc": "AUC",
    "kendall_tau": "Kendall tau",
    "episodes_ivp_accuracy": "IVP",
    "episodes_itp_accuracy": "ITP (whole episodes)",
}
LABELLERS = {"vlp": "VLP", **{name: vlp.LABELLERS[name] for name in ("hand-displacement", "motion-share")}}
KNOWN = {"cluster_accuracy": vlp.LABELLERS["better-cluster"], "constant_accuracy": vlp.LABELLERS["constant"]}  # accuracies alone


def labels(folder: str = "quick") -> str:
    """A row a labeller, the measures of all seeds in each cell."""
    table = read(f"{folder}/labels.csv").sort_values("seed", kind="stable")

    def cell(rows: pd.DataFrame, key: str) -> str:
        return "-" if rows[key].isna().any() else listed(rows[key], 3)

    found = {name: table[table["labeller"] == key] for key, name in LABELLERS.items()}
    rows = [[name, *(cell(there, key) for key in MEASURES)] for name, there in found.items()]
    for key, name in KNOWN.items():
        rows.append([name, *(cell(found["VLP"], key) if measure == "accuracy" else "-" for measure in MEASURES)])
    return markdown(["", *MEASURES.values()], rows)


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
    return float(where("quick/labels.csv", seed=seed, labeller="vlp")[measure].iloc[0])
