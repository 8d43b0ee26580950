"""Tables of agents that learn while they act (docs/results/online)."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
from marks import fixed
from shared import by_seed, listed, markdown, read, told

from robopref.embodied.statistics import Spread, Statistic, difference, iqm_along, over_seeds, verdict

EVALUATIONS = (5000, 10000, 15000, 20000, 25000)
PARTS = (  # of the ablation, in the order of its command
    "full",
    "no_tanh",
    "no_kappa",
    "own_norms",
    "no_norm",
    "no_skip",
    "minimum",
    "one_update",
    "fresh",
    "plain_critics",
    "standardised",
    "half_entropy",
    "cool",
    "cool_fresh",
)
AGENTS = {  # variants -> what README calls them
    "cir": "CIR",
    "sb3": "Stable-Baselines3's SAC",
    "sb3_two": "the same, two gradient steps, CIR's width",
}
AUTHORS = {  # CIR's authors' own logs, ten seeds: environment, frames -> mean and deviation of the return [their repository]
    ("dmc/walker-walk", 50_000): (927, 35),
    ("dmc/cartpole-swingup", 50_000): (754, 149),
    ("dmc/cheetah-run", 50_000): (250, 85),
    ("dmc/cheetah-run", 100_000): (417, 120),
    ("dmc/pendulum-swingup", 50_000): (440, 363),
    ("dmc/pendulum-swingup", 100_000): (822, 38),
}


@cache
def rows_of(file: str, env: str, variant: str) -> pd.DataFrame:
    """Rows of a variant in an environment, possibly none."""
    table = read(f"online/{file}.csv")
    return table[(table["env"] == env) & (table["variant"] == variant)]


def at(file: str, env: str, variant: str, frame: int, column: str = "return") -> np.ndarray:
    """A number a seed at a frame."""
    rows = rows_of(file, env, variant)
    return by_seed(rows[rows["frame"] == frame], column)


def curve(file: str, env: str, variant: str) -> np.ndarray:
    """Mean return of all evaluations, a number a seed."""
    return rows_of(file, env, variant).groupby("seed")["return"].mean().to_numpy(np.float64)


def seeds(file: str, env: str, variant: str, frame: str, column: str = "return") -> list[float]:
    """For marks: a number a seed at a frame."""
    return list(at(file, env, variant, int(frame), column))


def end(file: str, env: str, variant: str, frame: str) -> Spread:
    """For marks: centre and spread of the return at a frame."""
    return over_seeds(at(file, env, variant, int(frame)))


def over_curve(file: str, env: str, variant: str) -> Spread:
    """For marks: centre and spread of the mean return of all evaluations."""
    return over_seeds(curve(file, env, variant))


def sooner(file: str, env: str, peer: str = "sb3") -> Spread:
    """For marks: what CIR has over Stable-Baselines3's SAC, both with the true reward, in the mean of all evaluations."""
    return difference(curve(file, env, "true"), curve(file, env, peer))


def authors(env: str, frame: str) -> list[float]:
    """For marks: mean and deviation of the authors' seeds."""
    return [float(number) for number in AUTHORS[env, int(frame)]]


def against(env: str, frame: int) -> list[str]:
    """Our returns beside the authors' mean, deviation and range of two deviations; returns of dmc are 0 to 1,000."""
    mean, deviation = AUTHORS[env, frame]
    low, high = mean - 2 * deviation, mean + 2 * deviation
    return [f"{mean} +- {deviation}", f"{low:,} to {high:,}" if low > 0 else "any return: verifies nothing"]


def verified() -> str:
    """CIR against its authors' logs at 50,000 frames."""
    rows = []
    for task in ("walker-walk", "cartpole-swingup"):
        env = f"dmc/{task}"
        cells = [listed(at(file, env, "cir", 50_000)) for file in ("verify", "dmc")]
        rows.append([task, *against(env, 50_000), *cells])
    return markdown(["task", "authors' ten seeds", "inside is", "float32", "mixed"], rows)


def on_a_gpu() -> str:
    """The same of two tasks at 50,000 and 100,000 frames."""
    rows = []
    for env, frame in (key for key in AUTHORS if key[0] in ("dmc/cheetah-run", "dmc/pendulum-swingup")):
        name = f"{env.removeprefix('dmc/')}, {frame:,} frames"
        rows.append([name, *against(env, frame), listed(at("dmc100k", env, "paper", frame))])
    return markdown(["task", "authors' ten seeds", "inside is", "ours"], rows)


def both(variant: str, whole: bool = False) -> np.ndarray:
    """Returns (S seeds, two tasks of dmc) at the end, or means of the curves."""
    found = [
        curve("dmc", env, variant) if whole else at("dmc", env, variant, 50_000)
        for env in ("dmc/walker-walk", "dmc/cartpole-swingup")
    ]
    return np.stack(found, 1)


def judged(found: Spread, comma: bool = False) -> str:
    """A difference, its spread and what it says."""
    return f"{told(found, 0, comma, sign=True)}: {verdict(found)}"


def dmc() -> str:
    """Everybody with three seeds on both tasks; then what CIR has over the peers."""
    tasks = ("dmc/walker-walk", "dmc/cartpole-swingup")
    rows, there = [], [name for name in AGENTS if all(len(at("dmc", env, name, 50_000)) == 3 for env in tasks)]
    for variant in there:
        single = [told(end("dmc", f"dmc/{task}", variant, "50000"), 0) for task in ("walker-walk", "cartpole-swingup")]
        rows.append([AGENTS[variant], *single, *(told(over_seeds(both(variant, whole)), 0) for whole in (False, True))])
    for variant in there:
        if variant != "cir":
            pairs = [[at("dmc", env, name, 50_000) for name in ("cir", variant)] for env in tasks]
            pairs += [[both(name, whole) for name in ("cir", variant)] for whole in (False, True)]
            rows.append([f"CIR over {AGENTS[variant]}", *(judged(difference(*pair)) for pair in pairs)])
    return markdown(["", "walker-walk, mean", "cartpole-swingup, mean", "both, IQM", "both, ten evaluations, IQM"], rows)


def halfcheetah() -> str:
    """HalfCheetah-v5: two points of the curve, and its mean."""
    env, rows = "mujoco/HalfCheetah-v5", []
    for variant, name in AGENTS.items():
        if len(rows_of("halfcheetah", env, variant)):
            points = [told(end("halfcheetah", env, variant, frame), 0, comma=True) for frame in ("15000", "25000")]
            last = listed(at("halfcheetah", env, variant, 25_000), comma=True)
            rows.append([name, *points, last, told(over_curve("halfcheetah", env, variant), 0)])
    for variant in list(AGENTS)[1:]:
        if len(rows_of("halfcheetah", env, variant)):
            pairs = [[at("halfcheetah", env, name, frame) for name in ("cir", variant)] for frame in (15_000, 25_000)]
            pairs.append([curve("halfcheetah", env, name) for name in ("cir", variant)])
            cells = [judged(difference(*pair), comma=True) for pair in pairs]
            rows.append([f"CIR over {AGENTS[variant]}", cells[0], cells[1], "", cells[2]])
    return markdown(["", "15,000 decisions", "25,000", "seeds at 25,000", "mean of five evaluations"], rows)


def successes(file: str, env: str, variant: str) -> list[str]:
    """Success of each seed after so many decisions, and the return at the end."""
    cells = [listed(at(file, env, variant, frame, "success"), 1) for frame in EVALUATIONS]
    return [*cells, listed(at(file, env, variant, EVALUATIONS[-1]), comma=True)]


REWARDS = {
    "vlp": "VLP's",
    "foreign": "VLP's, asked to press the button",
    "true": "true",
    "sb3": "true, Stable-Baselines3's SAC",
    "sb3_two": "true, the same with two gradient steps",
}


def drawer() -> str:
    """vlp.csv: drawer-close, no margin of ties."""
    env, rows = "metaworld/drawer-close", []
    for variant, says in REWARDS.items():
        if count := rows_of("vlp", env, variant)["seed"].nunique():
            rows.append([says, str(count), *successes("vlp", env, variant)])
    return markdown(["reward", "seeds", *(f"{frame:,}" for frame in EVALUATIONS), "return at the end"], rows)


def margin() -> str:
    """margin.csv: three tasks, with a margin of ties."""
    rows = []
    for task in ("drawer-close", "button-press", "faucet-close"):
        for variant, says in REWARDS.items():
            if count := rows_of("margin", f"metaworld/{task}", variant)["seed"].nunique():
                says = says if count > 1 else f"{says}, seed 0 alone"
                rows.append([task, says, *successes("margin", f"metaworld/{task}", variant)])
    return markdown(["task", "reward", *(f"{frame:,}" for frame in EVALUATIONS), "return at the end"], rows)


def parts(file: str, *tasks: str) -> str:
    """ablation.csv or validation.csv: returns of three seeds at the end, and means of their curves."""
    rows = []
    for variant in PARTS:
        if len(rows_of(file, f"dmc/{tasks[0]}", variant)):
            cells = [
                listed(values)
                for task in tasks
                for values in (at(file, f"dmc/{task}", variant, 25_000), curve(file, f"dmc/{task}", variant))
            ]
            rows.append([variant, *cells])
    return markdown(["", *(head for task in tasks for head in (f"{task}, end", "mean"))], rows)


def worth(variant: str, when: str, statistic: Statistic, *tables: str) -> Spread:
    """What a variant has over the full agent, at the end or over the curve, over all tasks of the tables."""
    places = [(file, env) for file in tables for env in sorted(read(f"online/{file}.csv")["env"].unique())]

    def returns(name: str) -> np.ndarray:
        return np.stack([at(*place, name, 25_000) if when == "end" else curve(*place, name) for place in places], 1)

    return difference(returns(variant), returns("full"), statistic)


def worth_by_both(variant: str, *tables: str) -> list[str]:
    """A variant's difference to the full agent, at the end and over the curve, by IQM and by mean."""
    return [judged(worth(variant, when, of, *tables)) for when in ("end", "curve") for of in (iqm_along, np.mean)]


def worths() -> str:
    """What the ablations have over the full agent, at the end and over the curve; all that are there."""
    rows = [[variant, *worth_by_both(variant, "ablation")] for variant in PARTS[1:]]
    return markdown(["less the full agent", "end: IQM", "mean", "curve: IQM", "mean"], rows)


def worths_of_default() -> str:
    """What a cooler start has over the full agent on validation's two tasks, and on all four."""
    rows = []
    for variant in ("cool", "cool_fresh"):
        for says, tables in (("two tasks of validation", ("validation",)), ("all four tasks", ("ablation", "validation"))):
            rows.append([variant, says, *worth_by_both(variant, *tables)])
    return markdown(["less the full agent", "", "end: IQM", "mean", "curve: IQM", "mean"], rows)


def tied() -> list[float]:
    """For marks: the smallest and the largest share of ties in a session under a task's own instruction, in %."""
    table = read("online/sessions.csv")
    ties = table[(table["table"] == "margin.csv") & (table["variant"] == "vlp")]["ties"]
    return [100 * float(ties.min()), 100 * float(ties.max())]


def one(file: str, env: str, variant: str, frame: str, seed: str) -> list[float]:
    """For marks: return of one seed at a frame, and the deviation over its episodes."""
    rows = rows_of(file, env, variant)
    row = rows[(rows["frame"] == int(frame)) & (rows["seed"] == int(seed))].iloc[0]
    return [float(row["return"]), float(row["sd"])]


def centre(file: str, env: str, variant: str, frame: str) -> float:
    """For marks: the mean return of all seeds at a frame."""
    return float(at(file, env, variant, int(frame)).mean())


def agents() -> str:
    """README's table: centre and spread of the return, or each seed's success."""

    def returned(file: str, env: str, frame: int, variant: str) -> str:
        values = at(file, env, variant, frame)
        if len(values) == 1:
            return f"{fixed(values[0], 0, comma=True)} (one seed)"
        cell = told(over_seeds(values), 0, comma=True) if len(values) else ""
        known = AUTHORS.get((env, frame)) if variant == "cir" else None
        return f"{cell}, its authors' {known[0]} +- {known[1]}" if known else cell

    def succeeded(file: str, env: str, variant: str) -> str:
        return listed(at(file, env, variant, 25_000, "success"), 1)

    there = {variant for file in ("dmc", "halfcheetah", "vlp", "margin") for variant in read(f"online/{file}.csv")["variant"]}
    shown = [variant for variant in AGENTS if variant in there]
    rows = []
    for file, env, frame, says in (
        ("dmc", "dmc/walker-walk", 50_000, "dmc walker-walk, 50,000 frames"),
        ("dmc", "dmc/cartpole-swingup", 50_000, "dmc cartpole-swingup, 50,000"),
        ("halfcheetah", "mujoco/HalfCheetah-v5", 25_000, "HalfCheetah-v5, 25,000"),
    ):
        rows.append([says, *(returned(file, env, frame, variant) for variant in shown), ""])
    for task, file in (("drawer-close", "vlp"), ("button-press", "margin")):
        env = f"metaworld/{task}"
        ours = [succeeded(file, env, "true" if variant == "cir" else variant) for variant in shown]
        rows.append([f"Meta-World {task}, 25,000: success", *ours, succeeded("margin", env, "vlp")])
    return markdown(["", *(AGENTS[variant] for variant in shown), "CIR, VLP's reward"], rows)
