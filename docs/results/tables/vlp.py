"""Tables of VLPs and baselines on tasks that were left out of training."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
from marks import fixed
from shared import markdown, read, short, told

from robopref.embodied.statistics import over_seeds
from robopref.embodied.tasks import KINDS
from robopref.preference.targets import PUBLISHED

SHOWN = {  # columns that a table has -> their heads; segments first, as the order of whole episodes is cheap
    "clear_balanced_accuracy": "segments without near-ties, balanced",
    "balanced_accuracy": "segments, balanced",
    "over_cluster": "over the cluster bit",
    "cluster_balanced_accuracy": "by the cluster bit, balanced",
    "kendall_tau": "tau",
    "ivp_accuracy": "IVP",
    "itp_accuracy": "ITP",
    "ilp_loss": "ILP loss",
    "medium_over_random": "medium/random",
}
FRONT = ("clear_balanced_accuracy", "balanced_accuracy", "over_cluster", "ivp_accuracy")  # README's
SHOWN_WHOLE = ("factored-words", "factored-varied", "factored-shared", "factored-levels")
TASKWISE = ("itp_accuracy", "ivp_accuracy", "balanced_accuracy")
HEADLINE = ("itp_accuracy", "ivp_accuracy", "ilp_loss")
LABELLERS = {  # names in the tables -> what README calls them, in its order
    "factored": "factored VLP",
    "factored-words": "factored VLP, word vectors",
    "factored-shared": "factored VLP, word vectors, synonyms in training",
    "factored-levels": "factored VLP, the paper's levels alone",
    "cross": "our reconstruction of the paper's model (one network, small backbone)",
    "contrastive (cosine)": "small contrastive model of frames, cosine",
    "contrastive clips": "small contrastive model of clips",
    "goal-image": "distance to a picture of the finished task (a reference: it is shown the goal)",
    "hand-displacement": "how far the hand is from where it began",
    "motion-share": "share of the motion in the first half",
    "better-cluster": "the better cluster's bit",
    "constant": "a constant",
    "scripted": "true reward a step",
}


@cache
def table_of(split: str) -> pd.DataFrame:
    """vlp_paper or vlp_ml45: a row a model, seed, task and wording.

    without_pixels.csv has labellers that were measured later, on the same clips and pairs (a test compares the rows that both
    have).  So it also knows how well the cluster bit labels the pairs that everyone labelled.
    """
    table, later = read(f"{split}/table.csv"), read(f"{split}/without_pixels.csv")
    cluster = later.drop_duplicates("task").set_index("task")["cluster_accuracy"]
    whole = pd.concat([table, later.loc[~later["model"].isin(table["model"]), list(table)]], ignore_index=True)
    return whole.assign(over_cluster=whole["accuracy"] - whole["task"].map(cluster))


def ablated(model: str) -> bool:
    """Whether it stands in the tables of ablations alone."""
    return model.startswith(("cross-", "factored-")) and model not in SHOWN_WHOLE


def number(value: float) -> str:
    """Three decimals; a dash for what is not there."""
    return "-" if pd.isna(value) else fixed(value, 3)


def ranged(split: str, model: str, column: str, wording: str = "seen") -> str:
    """Mean over tasks and seeds and the range over seeds, whose means over tasks are the unit: one seed's VLP meets all tasks."""
    seeds = by_seed(split, model, wording)[column].to_numpy(np.float64)
    if np.isnan(seeds).any() or number(seeds.min()) == number(seeds.max()):  # nothing, or who learns nothing
        return number(seeds.mean())
    return told(over_seeds(seeds, np.mean), 3)


def shown(table: pd.DataFrame) -> list[str]:
    """The columns that a table has and whose numbers are printed."""
    return [name for name in SHOWN if name in table and table[name].notna().any()]


def wordings(split: str) -> str:
    """Every labeller and wording: means over tasks and seeds, and ranges over seeds; ablations have tables of their own."""
    table = table_of(split)
    names, rows = shown(table), []
    for model in (model for model in dict.fromkeys(table["model"]) if not ablated(model)):
        there = set(table.loc[table["model"] == model, "wording"])
        found = {word: [ranged(split, model, key, word) for key in names] for word in KINDS if word in there}
        if len({tuple(cells) for cells in found.values()}) == 1:  # who does not hear an instruction
            found = {"seen": found["seen"]}
        rows += [[model, wording, *cells] for wording, cells in found.items()]
    return markdown(["labeller", "wording", *(SHOWN[name] for name in names)], rows)


def tasks(split: str) -> str:
    """Seen wording, a column a task: ITP / IVP / balanced accuracy of segments, means over seeds."""
    table = table_of(split)
    table = table[table["wording"] == "seen"]
    means = table.groupby(["model", "task"], sort=False)[list(TASKWISE)].mean()
    names = sorted(table["task"].unique())
    rows = [
        [model, *(" / ".join(number(means.loc[(model, task), key]) for key in TASKWISE) for task in names)]
        for model in dict.fromkeys(table["model"])
        if not ablated(model)
    ]
    return markdown(["labeller", *names], rows)


@cache
def by_seed(split: str, model: str, wording: str = "seen") -> pd.DataFrame:
    """Means over tasks, a row a seed."""
    table = table_of(split)
    rows = table[(table["model"] == model) & (table["wording"] == wording)]
    if rows.empty:
        raise ValueError(f"{split} has no {model} with wording {wording}")
    return rows.groupby("seed")[[name for name in rows if pd.api.types.is_numeric_dtype(rows[name]) and name != "seed"]].mean()


def ablations(*models: str) -> str:
    """Seen wording of the paper's split: means over tasks and seeds, in brackets the deviation over seeds."""
    names, rows = shown(table_of("vlp_paper")), []
    for model in models:
        seeds = by_seed("vlp_paper", model)
        rows.append([f"`{model}`", *(f"{number(seeds[key].mean())} ({number(seeds[key].std())})" for key in names)])
    return markdown(["VLP", *(SHOWN[name] for name in names)], rows)


def members() -> str:
    """Seen wording of the paper's split: a VLP of one member, and of four (in bold)."""
    rows = [["paper, pretrained CLIP", *(short(PUBLISHED["seen"][key], 3) for key in HEADLINE)]]
    for model in ("factored", "factored-words"):
        one = read("vlp_paper/table_one_member.csv")
        one = one[(one["model"] == model) & (one["wording"] == "seen")]
        cells = [f"{short(one[key].mean(), 3)}; **{short(by_seed('vlp_paper', model)[key].mean(), 3)}**" for key in HEADLINE]
        rows.append([f"`{model}` with one member; **four members**", *cells])
    return markdown(["seen wording", "ITP", "IVP", "ILP loss"], rows)


def headline(split: str = "vlp_paper") -> str:
    """Seen wording, means and ranges over seeds, beside the paper's numbers (of other data, and for ML45 of other tasks)."""
    table = table_of(split)
    names = [name for name in FRONT if name in shown(table)]
    own = "" if split == "vlp_paper" else ", on its own five tasks"
    rows = [[f"paper, with a pretrained CLIP{own}", *(number(PUBLISHED["seen"].get(name, np.nan)) for name in names)]]
    there = set(table["model"])
    for model, says in LABELLERS.items():
        if model in there:
            rows.append([says, *(ranged(split, model, name) for name in names)])
    return markdown(["", *(SHOWN[name] for name in names)], rows)


def held_out() -> str:
    """IVP of the factored VLPs and of the paper under every wording."""
    models = ("factored", "factored-words", "factored-shared")
    rows = [
        [wording, *(ranged("vlp_paper", model, "ivp_accuracy", wording) for model in models), number(published("ivp", wording))]
        for wording in KINDS
    ]
    return markdown(["IVP by wording", *(LABELLERS[model] for model in models), "paper"], rows)


MOTION = ("clear_balanced_accuracy", "balanced_accuracy", "accuracy", "itp_accuracy")


def motion() -> str:
    """Labellers that see neither pixels nor words on train tasks: means over tasks, and the lowest and highest task."""
    table, rows = read("baselines/motion.csv"), []
    table = table[table["wording"] == "seen"]
    for model in dict.fromkeys(table["model"]):
        cells = []
        for key in MOTION:
            found = table.loc[table["model"] == model, key]
            ends = f" [{number(found.min())}, {number(found.max())}]" if number(found.min()) != number(found.max()) else ""
            cells.append(f"{number(found.mean())}{ends}")
        rows.append([f"`{model}`", *cells])
    return markdown(["labeller", *(SHOWN.get(key, "segments, accuracy") for key in MOTION)], rows)


SHORT = {  # for marks
    "itp": "itp_accuracy",
    "ivp": "ivp_accuracy",
    "ilp": "ilp_loss",
    "segments": "balanced_accuracy",
    "over_cluster": "over_cluster",
}


def value(measure: str, model: str, wording: str = "seen", split: str = "vlp_paper") -> float:
    """For marks: mean over tasks and seeds."""
    return float(by_seed(split, model, wording)[SHORT[measure]].mean())


def spread(measure: str, model: str, wording: str = "seen", split: str = "vlp_paper") -> float:
    """For marks: deviation over seeds of the mean over tasks."""
    return float(by_seed(split, model, wording)[SHORT[measure]].std())


def apart(measure: str, model: str, other: str, wording: str = "seen", split: str = "vlp_paper") -> float:
    """For marks: how far two labellers are apart."""
    return abs(value(measure, model, wording, split) - value(measure, other, wording, split))


def missed_by(measure: str, model: str, *wordings: str) -> list[float] | float:
    """For marks: by how much a labeller misses what is published; of several wordings, least and most."""
    found = [PUBLISHED[wording][SHORT[measure]] - value(measure, model, wording) for wording in wordings or ("seen",)]
    return [min(found), max(found)] if len(found) > 1 else found[0]


def lost(measure: str, model: str, *wordings: str) -> list[float]:
    """For marks: how much less a labeller has under other wordings than under seen ones, least and most."""
    found = [value(measure, model) - value(measure, model, wording) for wording in wordings]
    return [min(found), max(found)]


def on(task: str, measure: str, model: str, split: str = "vlp_paper") -> float:
    """For marks: one task, seen wording, mean over seeds."""
    table = table_of(split)
    return float(table[(table["model"] == model) & (table["task"] == task) & (table["wording"] == "seen")][measure].mean())


def constant_label(split: str = "vlp_paper") -> float:
    """For marks: the accuracy of a constant label of segments."""
    return float(by_seed(split, "factored")["constant_accuracy"].mean())


def published(measure: str, wording: str = "seen") -> float:
    """For marks: the paper's number."""
    return PUBLISHED[wording][SHORT[measure]]


UNUSUAL = {
    "left-out": "each train task, had it been left out",
    "test": "test tasks, which no statistics are taken of",
    "own-camera": "three train tasks, drawn anew",
    "changed": "the same pictures, changed",
    "other-camera": "the same episodes from other cameras",
    "film": "films of people, real robots and another simulator",
}


def unusual() -> str:
    """How unusual groups of clips are: the least and the most of every kind."""
    table, rows = read("unusual/distances.csv"), []
    for group, said in UNUSUAL.items():
        for what, found in table[table["group"] == group].groupby(
            "what" if group in ("changed", "other-camera") else "group", sort=False
        ):
            shown = f"{said}: {what}" if group in ("changed", "other-camera") else said
            ends = [
                f"{value:.2f}" if value < 10 else f"{value:.0f}"
                for value in (found["median"].median(), found["least"].min(), found["most"].max())
            ]
            rows.append([shown, str(found["clips"].sum()), *ends])
    return markdown(["", "clips", "median", "least", "most"], rows)
