"""Tables of VLPs and baselines on tasks that were left out of training."""

from __future__ import annotations

import pandas as pd
from marks import fixed
from shared import markdown, read, short

from robopref.embodied.tasks import KINDS
from robopref.preference.targets import NO_LOGITS, PUBLISHED

SHOWN = {
    "itp_accuracy": "ITP",
    "ivp_accuracy": "IVP",
    "ilp_loss": "ILP loss",
    "medium_over_random": "medium/random",
    "accuracy": "segments, accuracy",
    "balanced_accuracy": "balanced",
    "kendall_tau": "tau",
}
ABLATION = {key: head for key, head in SHOWN.items() if key != "accuracy"} | {"balanced_accuracy": "segments, balanced"}
SHOWN_WHOLE = ("factored-words", "factored-varied", "factored-shared", "factored-levels")
TASKWISE = ("itp_accuracy", "ivp_accuracy", "balanced_accuracy")
HEADLINE = ("itp_accuracy", "ivp_accuracy", "ilp_loss")
LABELLERS = {  # names in the tables -> what README calls them, in its order
    "factored": "factored VLP",
    "factored-words": "the same, with word vectors that know synonyms",
    "factored-shared": "and synonyms in training",
    "cross": "the paper's model on the same features",
    "scripted": "true reward a step",
}


def table_of(split: str) -> pd.DataFrame:
    """vlp_paper or vlp_ml45: a row a model, seed, task and wording."""
    return read(f"{split}/table.csv")


def ablated(model: str) -> bool:
    """Whether it stands in the tables of ablations alone."""
    return model.startswith(("cross-", "factored-")) and model not in SHOWN_WHOLE


def number(value: float) -> str:
    """Three decimals; a dash for what is not there."""
    return "-" if pd.isna(value) else fixed(value, 3)


def wordings(split: str) -> str:
    """Means over tasks and seeds of every labeller and wording; ablations have tables of their own."""
    means = table_of(split).groupby(["model", "wording"], sort=False)[list(SHOWN)].mean()
    models = [model for model in dict.fromkeys(means.index.get_level_values("model")) if not ablated(model)]
    rows = []
    for model in models:
        found = {wording: means.loc[(model, wording)] for wording in KINDS if (model, wording) in means.index}
        if len({tuple(row.fillna(-1)) for row in found.values()}) == 1:  # who does not hear an instruction
            found = {"seen": found["seen"]}
        rows += [[model, wording, *(number(row[key]) for key in SHOWN)] for wording, row in found.items()]
    return markdown(["labeller", "wording", *SHOWN.values()], rows)


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


def by_seed(split: str, model: str, wording: str = "seen") -> pd.DataFrame:
    """Means over tasks, a row a seed."""
    table = table_of(split)
    rows = table[(table["model"] == model) & (table["wording"] == wording)]
    if rows.empty:
        raise ValueError(f"{split} has no {model} with wording {wording}")
    return rows.groupby("seed")[[name for name in rows if pd.api.types.is_numeric_dtype(rows[name]) and name != "seed"]].mean()


def ablations(*models: str) -> str:
    """Seen wording of the paper's split: means over tasks and seeds, in brackets the deviation over seeds."""
    rows = []
    for model in models:
        seeds = by_seed("vlp_paper", model)
        rows.append([f"`{model}`", *(f"{fixed(seeds[key].mean(), 3)} ({fixed(seeds[key].std(), 3)})" for key in ABLATION)])
    return markdown(["VLP", *ABLATION.values()], rows)


def members() -> str:
    """Seen wording of the paper's split: a VLP of one member, and of four (in bold)."""
    rows = [["paper, pretrained CLIP", *(short(PUBLISHED["seen"][key], 3) for key in HEADLINE)]]
    for model in ("factored", "factored-words"):
        one = read("vlp_paper/table_one_member.csv")
        one = one[(one["model"] == model) & (one["wording"] == "seen")]
        cells = [f"{short(one[key].mean(), 3)}; **{short(value('vlp_paper', model, key), 3)}**" for key in HEADLINE]
        rows.append([f"`{model}` with one member; **four members**", *cells])
    return markdown(["seen wording", "ITP", "IVP", "ILP loss"], rows)


def headline(split: str = "vlp_paper") -> str:
    """Seen wording beside the paper's numbers, with verdicts as printed."""
    table, rows = table_of(split), []
    kinds = table.drop_duplicates("model").set_index("model")["kind"]
    own = "" if split == "vlp_paper" else ", on its own five tasks"
    rows.append([f"paper, with a pretrained CLIP{own}", *(number(PUBLISHED["seen"][key]) for key in HEADLINE)])
    for model, says in LABELLERS.items():
        if model not in kinds.index:
            continue
        means, cells = by_seed(split, model).mean(), []
        for key in HEADLINE:
            loss = key == "ilp_loss"
            value, target = round(float(means[key]), 3), PUBLISHED["seen"][key]
            reached = value <= target if loss else value >= target
            reached |= split != "vlp_paper" or kinds[model] == "scripted"  # no verdict: other tasks than the paper's, no model
            told = f"{number(value)}{'' if reached else ' (missed)'}"
            cells.append("-" if loss and kinds[model] in NO_LOGITS else told)
        rows.append([says, *cells])
    return markdown(["", "ITP", "IVP", "ILP loss"], rows)


def held_out() -> str:
    """README's table of wordings: ITP and IVP of the paper, of the factored VLP, and with word vectors and synonyms."""
    rows = []
    for wording in KINDS:
        cells = [number(PUBLISHED[wording][key]) for key in HEADLINE[:2]]
        for model in ("factored", "factored-shared"):
            found = [round(value("vlp_paper", model, key, wording), 3) for key in HEADLINE[:2]]
            cells += [
                f"{number(one)}{'' if one >= PUBLISHED[wording][key] else ' (missed)'}"
                for one, key in zip(found, HEADLINE[:2], strict=True)
            ]
        rows.append([wording, *cells])
    head = ["wording", "paper: ITP", "IVP", "factored VLP: ITP", "IVP", "with word vectors and synonyms: ITP", "IVP"]
    return markdown(head, rows)


def value(split: str, model: str, measure: str, wording: str = "seen") -> float:
    """Mean over tasks and seeds."""
    return float(by_seed(split, model, wording)[measure].mean())


def spread(split: str, model: str, measure: str, wording: str = "seen") -> float:
    """Deviation over seeds of the mean over tasks."""
    return float(by_seed(split, model, wording)[measure].std())


def differs(split: str, model: str, other: str, measure: str, wording: str = "seen") -> float:
    """How far two labellers are apart."""
    return abs(value(split, model, measure, wording) - value(split, other, measure, wording))


def short_of(split: str, model: str, measure: str, wording: str = "seen") -> float:
    """How far it is from what is published."""
    return abs(value(split, model, measure, wording) - PUBLISHED[wording][measure])


def published(measure: str, wording: str = "seen") -> float:
    """The paper's number."""
    return PUBLISHED[wording][measure]
