"""Tables of on-policy agents in worlds that change (docs/results/onpolicy)."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pandas as pd
from marks import fixed
from shared import listed, markdown, read, short, told

from robopref.embodied.statistics import NOT_APART, Spread, iqm_along, over_goals, over_seeds, verdict
from robopref.embodied.statistics import ratio as ratio_of

AGENTS = {"gtr": "GTR", "ppo": "PPO", "ppo_kl": "KL", "c_chain": "C-CHAIN's control"}
WORLDS = ("hopper-friction", "walker2d-friction", "cheetah-friction", "hopper-observation", "walker-tasks", "press-goals")
MUJOCO = WORLDS[:4]
STEADY = ("halfcheetah", "hopper", "walker2d")
TUNED = {
    "ppo_.2": "PPO, clip .2",
    "ppo_.4": "PPO, clip .4",
    "ppo_1": "PPO, clip 1",
    "kl_.2": "KL, clip .2",
    "kl_.4": "KL, clip .4",
    "kl_1": "KL, clip 1",
    "gtr_.2_sigma_.1": "GTR, clip .2, sigma .1",
    "gtr_.2_sigma_.2": "GTR, clip .2, sigma .2",
    "gtr_.2_lenience": "GTR, clip .2, sigma .15, advantage in the width",
    "gtr_.2_log_ratio": "GTR, clip .2, sigma .1, log-ratio",
    "gtr_.2_every_5_sigma_.3": "GTR, clip .2, sigma .3, anchors five iterations apart",
    "gtr_.2_every_5_sigma_.5_beta_.3": "the same, sigma .5, beta .3",
    "gtr_.4_sigma_.1": "GTR, clip .4, sigma .1",
    "gtr_.4_sigma_.3": "GTR, clip .4, sigma .3",
    "gtr_.4_lenience": "GTR, clip .4, sigma .15, advantage in the width",
    "gtr_1_sigma_.1": "GTR, clip 1, sigma .1",
    "gtr_1_sigma_.3": "GTR, clip 1, sigma .3",
    "gtr_1_sigma_.5": "GTR, clip 1, sigma .5",
    "gtr_1_adapt": "GTR, clip 1, sigma the mean distance",
    "gtr_1_moments": "GTR, clip 1, sigma .5, moments",
    "gtr_1_mean": "GTR, clip 1, sigma .5, a running mean as anchor",
}
AGAIN = {
    "ppo": "PPO, clip .4",
    "ppo_kl": "KL",
    "gtr_sigma_1": "GTR, sigma 1",
    "gtr_adapt": "GTR, sigma the mean distance",
    "gtr_mean": "GTR, sigma .5, a running mean as anchor",
    "gtr": "GTR, sigma .5",
}
FRESH = {"gtr_sigma_1": "GTR, sigma 1", "ppo": "PPO, clip .4", "ppo_kl": "KL"}
STEADY_AGENTS = {
    "gtr_sigma_1": "GTR, sigma 1",
    "gtr": "GTR, sigma .5",
    "ppo": "PPO, clip .4",
    "ppo_.2": "PPO, clip .2",
    "sb3": "Stable-Baselines3's PPO (three seeds: range)",
}


def lives(file: str, variant: str, world: str, column: str = "return") -> np.ndarray:
    """Mean over phases, a number a seed; none where it was not run."""
    return lives_of_all(file, column).get((variant, world), np.empty(0))


@cache
def lives_of_all(file: str, column: str) -> dict[tuple[str, str], np.ndarray]:
    """The same of every variant and world."""
    means = read(f"onpolicy/{file}.csv").groupby(["variant", "world", "seed"])[column].mean()
    return {key: part.to_numpy(np.float64) for key, part in means.groupby(level=["variant", "world"])}


def all_worlds(file: str, variant: str, worlds: tuple[str, ...], column: str = "return") -> np.ndarray:
    """(S seeds, W worlds); ValueError where one lacks."""
    found = [lives(file, variant, world, column) for world in worlds]
    if not all(len(values) == len(found[0]) > 0 for values in found):
        raise ValueError(f"onpolicy/{file}.csv: {variant} has not all seeds in all of {', '.join(worlds)}")
    return np.stack(found, 1)


STATISTICS = {"IQM": iqm_along, "mean": np.mean}


def over(file: str, variant: str, base: str, worlds: tuple[str, ...], column: str = "return", statistic: str = "IQM") -> str:
    """A statistic over worlds and seeds over that of `base`; `base` itself is 1."""
    found = ratio_of(*(all_worlds(file, name, worlds, column) for name in (variant, base)), STATISTICS[statistic])
    return "1" if variant == base else told(found, 2) + (", " + verdict(found, 1) if verdict(found, 1) != NOT_APART else "")


def ratio(file: str, variant: str, statistic: str = "IQM", base: str = "ppo", worlds: str = "", column: str = "return") -> Spread:
    """For marks: the same, with worlds parted by commas; all of the file's by themselves."""
    where = tuple(worlds.split(",")) if worlds else worlds_of(file)
    return ratio_of(*(all_worlds(file, name, where, column) for name in (variant, base)), STATISTICS[statistic])


def worlds_of(file: str) -> tuple[str, ...]:
    """All worlds of a file, in this page's order."""
    there = set(read(f"onpolicy/{file}.csv")["world"])
    return tuple(world for world in (*WORLDS, *STEADY) if world in there)


def kernel(file: str, variant: str, world: str, phase: int | None = None) -> list[float]:
    """The kernel's weight and the share of states that it has let go: mean over phases, or of one (-1: the last)."""
    table = read(f"onpolicy/{file}-losses.csv")
    rows = table[(table["variant"] == variant) & (table["world"] == world)].sort_values("phase")
    if phase is not None and len(rows):
        rows = rows[rows["phase"] == rows["phase"].unique()[phase]]
    return [float(rows[name].mean()) for name in ("kernel", "released")] if len(rows) else []


def released(file: str, variant: str) -> list[float]:
    """For marks: the share that was let go in the last phase, in the world where it is least and where it is most."""
    found = [let_go[1] for world in worlds_of(file) if (let_go := kernel(file, variant, world, -1))]
    return [min(found), max(found)]


def let_go() -> str:
    """worlds-losses.csv: what GTR's kernel did in the first and in the last phase."""
    rows = []
    for world in WORLDS:
        if kernel("worlds", "gtr", world):
            pairs = zip(*(kernel("worlds", "gtr", world, phase) for phase in (0, -1)), strict=True)
            rows.append([world, *(f"{short(first)} to {short(last)}" for first, last in pairs)])
    return markdown(["", "kernel's weight, first to last phase", "share let go"], rows)


def cell(values: np.ndarray) -> str:
    """IQM and interval of one world; nothing where there are no runs."""
    return told(over_seeds(values), 0) if len(values) else ""


def tuning() -> str:
    """tuning.csv: what clip, sigma and anchor were chosen by."""
    worlds, rows = ("hopper-friction", "walker2d-friction"), []
    for variant, says in TUNED.items():
        complete = len(lives("tuning", variant, worlds[1]))
        both = [over("tuning", variant, "ppo_.4", worlds, statistic=name) if complete else "" for name in STATISTICS]
        let_go = kernel("tuning", variant, worlds[0]) if variant.startswith("gtr") else []
        rows.append([says, *(cell(lives("tuning", variant, world)) for world in worlds), *both, listed(let_go, 2)])
    head = ["", "hopper, friction", "walker2d, friction", "both over PPO at clip .4: IQM", "mean", "kernel, released"]
    return markdown(head, rows)


def worlds() -> str:
    """worlds.csv: the report."""
    rows = [[world, *(cell(lives("worlds", agent, world)) for agent in AGENTS)] for world in WORLDS]
    for says, column, where in (
        ("all, over PPO", "return", WORLDS),
        ("the four of MuJoCo, over PPO", "return", MUJOCO),
        ("last quarter of each phase, all, over PPO", "end", WORLDS),
    ):
        for name in STATISTICS:
            rows.append([f"{says}: {name}", *(over("worlds", agent, "ppo", where, column, name) for agent in AGENTS)])
    for world in ("hopper-friction", "hopper-observation", "walker2d-friction"):
        means = [fixed(lives("worlds", agent, world, "recovery").mean(), 0) for agent in AGENTS]
        rows.append([f"iterations to recover, {world}", *means])
    return markdown(["lifetime return", *AGENTS.values()], rows)


def long() -> str:
    """long.csv: tuning again, with runs as long as the report's."""
    worlds, rows = ("cheetah-friction", "hopper-friction"), []
    for variant, says in AGAIN.items():
        complete = all(len(lives("long", variant, world)) for world in worlds)
        both = [over("long", variant, "ppo", worlds, statistic=name) if complete else "" for name in STATISTICS]
        let_go = [kernel("long", variant, world, -1) if variant.startswith("gtr") else [] for world in worlds]
        cells = [", ".join(short(value) for value in pair) for pair in let_go]
        rows.append([says, *(cell(lives("long", variant, world)) for world in worlds), *both, *cells])
    head = ["", "cheetah, friction", "hopper, friction", "both, over PPO: IQM", "mean", "kernel, released: cheetah", "hopper"]
    return markdown(head, rows)


def fresh() -> str:
    """fresh.csv: sigma 1 on seeds that nothing was looked at on."""
    return beside("fresh", FRESH, {world: world for world in worlds_of("fresh")}, "all, over PPO")


def stationary() -> str:
    """stationary.csv: worlds that do not change."""
    names = {"halfcheetah": "HalfCheetah", "hopper": "Hopper", "walker2d": "Walker2d"}
    return beside("stationary", STEADY_AGENTS, names, "all, over PPO at clip .4")


def beside(file: str, agents: dict[str, str], places: dict[str, str], says: str) -> str:
    """A row a world, then all over PPO."""
    rows = [[name, *(cell(lives(file, agent, world)) for agent in agents)] for world, name in places.items()]
    for name in STATISTICS:
        rows.append([f"{says}: {name}", *(over(file, agent, "ppo", tuple(places), statistic=name) for agent in agents)])
    return markdown(["", *agents.values()], rows)


def drawer() -> str:
    """vlp.csv: success of episodes that began in each fifth of the run, seeds 0, 1 and 2."""
    table = read("onpolicy/vlp.csv")
    edges = list(range(0, 240_000, 40_000))
    fifth = pd.cut(table["frame"], edges)
    rows = []
    for reward, says in (("vlp", "`vlp`"), ("true", "`true`"), ("bradley_terry", "`bradley_terry`, a scripted teacher")):
        means = table[table["reward"] == reward].groupby([fifth, "seed"], observed=True)["success"].mean().unstack()
        rows.append([says, *(listed(row, 2) for row in means.to_numpy()[:5])])
    return markdown(["reward", *(f"{low:,} to {high:,}" for low, high in pairwise(edges))], rows)


def on_starts(policy: str) -> Spread:
    """For marks: success of the policies of vlp-evaluation.csv and its interval over the starts that all members met."""
    table = read("onpolicy/vlp-evaluation.csv")
    rows = table[table["policy"] == policy]
    return over_goals(rows.pivot(index="member", columns="goal", values="success").to_numpy(np.float64))


def summary() -> str:
    """README's table: lifetime return over PPO's."""
    rows = []
    for says, file, gtr, base, worlds in (
        ("six worlds that change, sigma .5, over PPO at clip .4", "worlds", "gtr", "ppo", WORLDS),
        ("three of them, fresh seeds, sigma 1 (the default), the same", "fresh", "gtr_sigma_1", "ppo", worlds_of("fresh")),
        ("three worlds that do not change, sigma 1, the same", "stationary", "gtr_sigma_1", "ppo", STEADY),
        ("these, over PPO at its usual clip, .2", "stationary", "gtr_sigma_1", "ppo_.2", STEADY),
    ):
        there = set(read(f"onpolicy/{file}.csv")["variant"])
        both = [
            over(file, agent, base, worlds, statistic=name) if agent in there else ""
            for agent in (gtr, "ppo_kl")
            for name in STATISTICS
        ]
        rows.append([says, *both])
    return markdown(["lifetime return over PPO's, five seeds", "GTR: IQM", "mean", "KL: IQM", "mean"], rows)
