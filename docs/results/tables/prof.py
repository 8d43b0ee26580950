"""Tables of written rewards, and of learners from offline data (docs/results/prof): normalised score x 100."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
from marks import fixed
from shared import by_seed, listed, markdown, read, short, told

from robopref.embodied.statistics import Spread, difference, hangs_on, iqm, iqm_along, over_seeds, verdict

SETS = {
    "hopper-medium-replay": "hopper medium-replay",
    "hopper-medium-expert": "medium-expert",
    "halfcheetah-medium-replay": "halfcheetah medium-replay",
    "halfcheetah-medium-expert": "medium-expert",
}
DOOR = "door-human"
REWARDS = {
    "bc": "BC",
    "bc10": "10 % BC",
    "iql": "IQL, true reward",
    "uds": "IQL, UDS",
    "otr": "IQL, OTR",
    "seabo": "IQL, SEABO",
    "prof": "**IQL, PROF**",
    "prof_both": "IQL, PROF, pairs of both kinds",
    "prof_data": "IQL, PROF, pairs with the data",
    "grammar": "IQL, grammar (no language model)",
    "td3bc": "TD3+BC, true reward",
    "td3bc_otr": "TD3+BC, OTR",
    "td3bc_seabo": "TD3+BC, SEABO",
    "td3bc_prof": "**TD3+BC, PROF**",
}
LONG = {
    "iql": "true reward",
    "otr": "OTR",
    "seabo": "SEABO",
    "prof": "PROF",
    "prof_survival": "**PROF, survival 4 (ours)**",
}
CONTROL = {
    "iql": "true reward",
    "otr": "OTR",
    "otr_survival": "OTR, survival 4 (ours)",
    "seabo": "SEABO",
    "seabo_survival": "SEABO, survival 4 (ours)",
    "prof": "PROF",
    "prof_survival": "**PROF, survival 4 (ours)**",
}
HOPPER = ("hopper-medium-replay", "hopper-medium-expert")
COMPARED = {  # differences that a table of verdicts has
    "scores": (
        ("prof", "seabo"), ("prof", "otr"), ("prof", "uds"), ("prof", "bc10"), ("uds", "iql"),
        ("td3bc_prof", "td3bc_seabo"), ("td3bc_prof", "td3bc_otr"),
    ),
    "long": (("prof_survival", "seabo"), ("prof_survival", "otr"), ("prof", "seabo"), ("prof", "otr")),
    "control": (
        ("otr_survival", "otr"), ("seabo_survival", "seabo"), ("prof_survival", "prof"),
        ("prof_survival", "seabo_survival"), ("prof_survival", "otr_survival"),
    ),
}  # fmt: skip
SURVIVAL = {"prof": "0", "prof_half": ".5", "prof_one": "1", "prof_two": "2", "prof_four": "4", "iql": "true", "seabo": "SEABO"}
RANKINGS = {  # one variant a row; two, parted by a semicolon
    "default": "pairs with noise (default)",
    "data": "pairs with the data (ours)",
    "both": "both kinds (ours)",
    "actions": "noise on actions alone",
    "delta_1": "delta 1",
    "quarter": "alphas a quarter",
    "fourfold": "alphas fourfold",
    "H_1": "H 1",
    "H_all": "whole episodes",
    "smooth": "smooth noise",
    "experts_5": "five experts",
}


@cache
def rows_of(file: str) -> pd.DataFrame:
    """A CSV of scores.  Halfcheetah's episodes never end, so with survival its policies are those without."""
    table = read(f"prof/{file}.csv")
    if file != "long":
        return table
    never = table["data"].str.startswith("halfcheetah") & (table["variant"] == "prof")
    return pd.concat([table, table[never].assign(variant="prof_survival")])


@cache
def scores(file: str, variant: str, *data: str) -> np.ndarray:
    """(S seeds, D data sets); ValueError where one lacks."""
    table = rows_of(file)
    found = [by_seed(table[(table["variant"] == variant) & (table["data"] == name)], "score") for name in data or SETS]
    if not all(len(column) == len(found[0]) > 0 for column in found):
        raise ValueError(f"{file}: {variant} is not there with all seeds on all of {', '.join(data or SETS)}")
    return np.stack(found, 1)


def mean_of(values: np.ndarray) -> Spread:
    """Mean over (S, D) and its spread."""
    return over_seeds(values, np.mean)


def lines(file: str, names: dict[str, str], *data: str) -> list[list[str]]:
    """A row a variant that is there: IQM over seeds of each data set, then IQM and mean over the four of locomotion."""
    table, rows = rows_of(file), []
    for variant, says in names.items():
        here = table[table["variant"] == variant]
        if here.empty:
            continue
        cells = [fixed(iqm(by_seed(part, "score")), 1) if len(part := here[here["data"] == name]) else "" for name in data]
        values = scores(file, variant)
        rows.append([says, *cells, told(over_seeds(values)), told(mean_of(values))])
    return rows


def table(file: str) -> str:
    """scores.csv or long.csv: every reward on every set, and the aggregates over the four of locomotion, door-human apart."""
    data = [*SETS, DOOR] if file == "scores" else [*SETS]
    names = REWARDS if file == "scores" else LONG
    places = [SETS.get(name, f"{name} (in no aggregate)") for name in data]
    return markdown(["", *places, "IQM of the four, 95 % interval", "mean of the four"], lines(file, names, *data))


def summary() -> str:
    """README's table: rewards for IQL after 120,000 steps, and for both learners after 30,000; four sets of locomotion."""
    rows = []
    for name, says in {**LONG, "uds": "UDS: zero but for the expert's", "bc10": REWARDS["bc10"]}.items():
        if name not in LONG:
            values = scores("scores", name)
            rows.append([says, "", "", told(over_seeds(values)), told(mean_of(values)), "", ""])
            continue
        tables = [scores("long", name)]
        if not name.endswith("_survival"):
            tables += [scores("scores", name), scores("scores", "td3bc" if name == "iql" else f"td3bc_{name}")]
        cells = [told(spread) for values in tables for spread in (over_seeds(values), mean_of(values))]
        rows.append([says, *cells, *[""] * (6 - len(cells))])
    head = ["reward", "IQL, 64 wide, 120,000 steps: IQM", "mean", "IQL, 256 wide, 30,000 steps: IQM", "mean"]
    head += ["TD3+BC, 256 wide, 30,000 steps: IQM", "mean"]
    return markdown(head, rows)


def verdicts(file: str) -> str:
    """Differences of IQMs and of means over the data sets of a file, what they say, and what turns their sign."""
    names = {"scores": REWARDS, "long": LONG, "control": CONTROL}[file]
    data = HOPPER if file == "control" else [*SETS]
    return markdown(["", "IQM", "", "mean", ""], [compared(file, names, *pair, *data) for pair in COMPARED[file]])


def compared(file: str, names: dict[str, str], ours: str, other: str, *data: str) -> list[str]:
    """A row: the difference of IQMs and of means over data sets, what each says, and what turns its sign."""
    mine, theirs = (scores(file, name, *data) for name in (ours, other))
    cells = []
    for statistic in (iqm_along, np.mean):
        found = difference(mine, theirs, statistic)
        turning = " or ".join(data[number].replace("-", " ", 1) for number in hangs_on(mine, theirs, statistic))
        cells += [told(found, sign=True), verdict(found) + (f"; leaving out {turning} turns its sign" if turning else "")]
    return [f"{names[ours].replace('*', '')} less {names[other].replace('*', '')}", *cells]


def control() -> str:
    """control.csv: every reward with and without a bonus for survival, IQM and mean over seeds, of hopper's sets."""
    places = [*((name,) for name in HOPPER), HOPPER]
    rows = [
        [says, *(told(of(scores("control", name, *data))) for data in places for of in (over_seeds, mean_of))]
        for name, says in CONTROL.items()
    ]
    head = [f"{place}, {word}" for place in ("medium-replay", "medium-expert", "both") for word in ("IQM", "mean")]
    return markdown(["", *head], rows)


def aggregate(file: str, variant: str, statistic: str = "mean", *data: str) -> Spread:
    """For marks: mean or IQM of a variant over data sets, by default the four of locomotion, and its interval."""
    values = scores(file, variant, *data)
    return mean_of(values) if statistic == "mean" else over_seeds(values)


def above(variant: str, other: str, file: str = "long", statistic: str = "mean", *data: str) -> Spread:
    """For marks: mean or IQM of a variant less that of another, and its interval."""
    chosen = np.mean if statistic == "mean" else iqm_along
    return difference(scores(file, variant, *data), scores(file, other, *data), chosen)


def at(file: str, variant: str, data: str, statistic: str = "iqm") -> float:
    """For marks: one cell."""
    values = scores(file, variant, data)
    return iqm(values) if statistic == "iqm" else float(values.mean())


def seeds(file: str, variant: str, data: str) -> list[float]:
    """For marks: all seeds of one cell."""
    return list(scores(file, variant, data)[:, 0])


def best_seeds(file: str, variant: str, data: str, count: str) -> list[float]:
    """For marks: the largest so many seeds of one cell, rising."""
    return sorted(scores(file, variant, data)[:, 0])[-int(count) :]


def first_seeds(file: str, variant: str, data: str) -> list[float]:
    """For marks: seeds 0 and 1 of one cell."""
    return seeds(file, variant, data)[:2]


def survival() -> str:
    """survival.csv: how large the bonus is, IQM over three seeds, and the mean of both sets."""
    table = rows_of("survival")

    def cell(variant: str, *data: str) -> str:
        found = [by_seed(table[(table["variant"] == variant) & (table["data"] == name)], "score") for name in data]
        return fixed(float(np.mean([iqm(values) for values in found])), 1) if all(map(len, found)) else ""

    sets = ("walker2d-medium-expert", "walker2d-medium-replay")
    rows = [[name.replace("-", " ", 1), *(cell(variant, name) for variant in SURVIVAL)] for name in sets]
    return markdown(["survival", *SURVIVAL.values()], [*rows, ["mean", *(cell(variant, *sets) for variant in SURVIVAL)]])


def survival_worth() -> Spread:
    """What a bonus of 4 has over none, mean of both sets."""
    sets = ("walker2d-medium-expert", "walker2d-medium-replay")
    return difference(scores("survival", "prof_four", *sets), scores("survival", "prof", *sets), np.mean)


def td3bc() -> str:
    """survival-td3bc.csv: IQM and mean over seeds and their intervals."""
    names = {"td3bc": "true reward", "td3bc_otr": "OTR", "td3bc_seabo": "SEABO", "td3bc_prof": "PROF"}
    names |= {"td3bc_prof_survival": "PROF, survival 4"}
    rows = [
        [f"{data.replace('-', ' ', 1)}, {word}", *(told(of(scores("survival-td3bc", variant, data))) for variant in names)]
        for data in reversed(HOPPER)
        for word, of in (("IQM", over_seeds), ("mean", mean_of))
    ]
    return markdown(["", *names.values()], rows)


def ranking(place: str, variant: str, file: str = "candidates") -> pd.Series:
    """One row of a table of rankings."""
    table = read(f"prof/{place}/{file}-rankings.csv").set_index("variant")
    return table.loc[variant]


def agreement(place: str, variant: str, column: str = "with_agreement", file: str = "candidates") -> float:
    """For marks: one number of it."""
    return float(ranking(place, variant, file)[column])


def rankings() -> str:
    """candidates-rankings.csv: how dominance goes with agreement and with score, and what is chosen from less."""
    rows = []
    for variant, says in RANKINGS.items():
        cells = []
        for place in SETS:
            row = ranking(place, variant)
            both = f"{short(row['with_agreement'])}, {short(row['with_score'])}"
            cells.append("none (one rank)" if row["distinct"] == 1 else both)
        rows.append([says, *cells])
    for says, variants in (
        ("policy of the first of K = 1 (random pick), 2, 4, 8", ("K_1", "K_2", "K_4", "K_8")),
        ("after T = 0, 1, 2 rounds", ("T_0", "T_1", "T_2")),
    ):
        rows.append([says, *(listed(ranking(place, name)["first_score"] for name in variants) for place in SETS)])
    return markdown(["", *SETS.values()], rows)


def chosen(variant: str) -> float:
    """For marks: the score of what is chosen, mean over the four sets."""
    return float(np.mean([agreement(place, variant, "first_score") for place in SETS]))


def pairs() -> str:
    """walker2d and door: which pairs the ranking should compare; dominance with agreement, and agreement of the first."""
    places = {"walker2d-medium-replay": "walker2d medium-replay", "walker2d-medium-expert": "medium-expert", "door": DOOR}
    rows = []
    for variant, says in (("default", "noise (default)"), ("data", "data"), ("both", "both")):
        found = [ranking(place, variant, "agreement")[["with_agreement", "first_agreement"]].to_numpy(float) for place in places]
        rows.append([says, *("; ".join(short(value) for value in cell) for cell in (*found, np.mean(found, 0)))])
    return markdown(["", *places.values(), "mean"], rows)


def rounds(place: str) -> list[float]:
    """For marks: what is chosen after no round, and after one."""
    return [agreement(place, name, "first_score") for name in ("T_0", "T_1")]


def levels(kind: str) -> list[float]:
    """For marks: D4RL's score of hopper's, halfcheetah's and walker2d's set of a kind."""
    table = read("prof/sets.csv")
    return list(table[table["set"] == kind].set_index("env")["d4rl_score"][["hopper", "halfcheetah", "walker2d"]])
