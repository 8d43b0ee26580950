"""`python -m robopref.policies.onpolicy_study --out FILE.csv`: agents compared over their whole life in worlds that change.

For every world and variant one run with all seeds in it, and another for those that are added later; of each seed and phase a
row: its mean return, that of its last quarter, and how many iterations it took to recover from the switch.  A second call does
what is missing; a killed run goes on.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from robopref.configs.cli import guarded
from robopref.configs.errors import RoboprefError
from robopref.configs.files import atomic_file
from robopref.configs.flags import from_flags
from robopref.configs.hydra import compose, to_dataclass
from robopref.configs.parallel import in_processes
from robopref.configs.policy import OnPolicyConfig
from robopref.configs.ranges import Count, Names, Seeds, Workers
from robopref.configs.rows import read_csv, read_named
from robopref.embodied.statistics import grid, iqm_along, over_seeds, ratio, verdict
from robopref.policies import onpolicy, stable_baselines
from robopref.policies.online_study import PEER, draw, fingerprint, named
from robopref.policies.study import append_rows

KEY = ["world", "variant", "seed", "phase"]
RECOVERED = 0.8  # of what was had before the switch
SMOOTHED = 3  # iterations
WORLDS = (
    "hopper-friction=env=mujoco/hopper switch=friction",
    "walker2d-friction=env=mujoco/walker2d switch=friction",
    "hopper-observation=env=mujoco/hopper switch=observation",
    "walker-tasks=env=dmc/walker-walk action_repeat=2 switch=tasks switch.tasks=[walker-stand,walker-walk,walker-run]",
    "press-goals=env=metaworld/button-press switch=goal switch.every=100000 frames=500000",
    "cheetah-friction=env=mujoco/halfcheetah switch=friction",
)


@dataclass(frozen=True)
class OnPolicyStudyConfig:
    """Who lives where, and for how long."""

    out: Path
    """CSV to append to; beside it go the curves, to NAME-curves.csv, and what the losses were, to NAME-losses.csv."""
    worlds: Names = WORLDS
    """NAME=SETTINGS of `robopref train`, blanks between them; frames among them hold for this world."""
    variants: Names = (
        "gtr=policy=gtr",
        "ppo=policy=ppo policy.clip=0.4",
        "ppo_kl=policy=ppo_kl",
        "c_chain=policy=c_chain policy.clip=0.4",
    )
    """The same; sb3 is stable-baselines3's PPO."""
    seeds: Seeds = (0, 1, 2, 3, 4)
    frames: Count = 1_000_000
    set: tuple[str, ...] = ()
    """Settings of all runs, such as policy.learning_rate=1e-4."""
    base: str = "ppo"
    """The variant that lifetime returns are divided by before worlds are summed up."""
    work: Path = Path("runs/onpolicy")
    """Folder for the runs, kept between calls."""
    processes: Workers = 2
    summary: bool = False
    """Print what the CSV says, and do nothing."""
    figure: Path | None = None
    """Draw the curves to this PNG or SVG."""


def main(argv: list[str]) -> None:
    """Command line."""
    config = from_flags(OnPolicyStudyConfig, argv, "python -m robopref.policies.onpolicy_study", __doc__)
    if not config.summary:
        run(config)
    rows, curves = read_rows(config.out), read_rows(beside(config.out, "curves"))
    print(summary(rows, config.base))
    if config.figure is not None and not curves.empty:
        with atomic_file(config.figure) as temp:
            draw(curves, "world").savefig(temp, format=config.figure.suffix.removeprefix("."), dpi=150, metadata={})


def run(config: OnPolicyStudyConfig) -> None:
    """Do what is missing in the CSV; RoboprefError when it holds the same runs with other settings."""
    curves_at, losses_at = (beside(config.out, name) for name in ("curves", "losses"))
    done, curves, losses = (read_rows(path) for path in (config.out, curves_at, losses_at))
    known = {tuple(row[:2]): row[2] for row in done[["world", "variant", "settings"]].itertuples(index=False)}
    jobs, all_settings = [], {}
    for world, variant in product(config.worlds, config.variants):
        place, name, settings, peer = settings_of(config, world, variant)
        all_settings[place, name] = settings
        before = known.get((place, name))
        if before not in (None, fingerprint(settings, peer)):
            raise RoboprefError(f"{config.out}: {name} in {place} was run with other settings; choose another --out")
        had = [] if before is None else done[(done["world"] == place) & (done["variant"] == name)]["seed"].tolist()
        if missing := tuple(seed for seed in config.seeds if seed not in had):
            out = settings.out if before is None else settings.out.with_name(f"{name}-{missing[0]}")
            jobs.append((place, name, replace(settings, seeds=missing, out=out), peer))
    for rows, curve in in_processes(run_one, jobs, config.processes):
        done = append_rows(config.out, done, rows, KEY)
        curves = append_rows(curves_at, curves, curve, ["world", "variant", "seed", "frame"])
        table = pd.DataFrame(rows)
        print(f"{rows[0]['world']}, {rows[0]['variant']}: {table['return'].mean():.1f}  ({rows[0]['seconds']:.0f} s)", flush=True)
    known_losses = set(losses[["world", "variant"]].itertuples(index=False, name=None))
    for (world, variant), settings in all_settings.items():
        if (world, variant) not in known_losses and (settings.out / "metrics.csv").exists():
            rows = of_losses(world, variant, settings)
            losses = append_rows(losses_at, losses, rows, ["world", "variant", "phase"])


def settings_of(config: OnPolicyStudyConfig, world: str, variant: str) -> tuple[str, str, OnPolicyConfig, bool]:
    """(name of the world, name of the variant, settings of `robopref train`, whether it is stable-baselines3's PPO)."""
    (place, where), (name, words) = named("--worlds", world), named("--variants", variant)
    peer = words == [PEER]
    words = ["policy=ppo"] if peer else words
    every = [f"frames={config.frames}", f"out={config.work / place / name}"]
    return place, name, to_dataclass(OnPolicyConfig, compose("train_onpolicy", [*words, *every, *where, *config.set])), peer


def run_one(world: str, variant: str, settings: OnPolicyConfig, peer: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of the CSV and of the curves."""
    started = time.process_time()
    episodes = stable_baselines.lives(settings) if peer else read_csv(onpolicy.run(settings) / onpolicy.EPISODES)
    policy = settings.policy
    each = policy.steps * policy.envs * settings.action_repeat
    curve = by_iteration(episodes, settings.seeds, each, -(-settings.frames // each))
    phase = phases(settings, len(curve), each)
    spent = {"seconds": time.process_time() - started, "settings": fingerprint(settings, peer)}
    rows, points = [], []
    for seed, returns in zip(settings.seeds, curve.T, strict=True):
        which = {"world": world, "variant": variant, "seed": seed, "settings": spent["settings"]}
        rows += [which | row | spent for row in of_phases(returns, phase)]
        for first in range(0, len(returns), 5):
            part = slice(first, first + 5)
            points.append(which | {"frame": min(first + 5, len(returns)) * each, "return": returns[part].mean()})
    return rows, points


def phases(settings: OnPolicyConfig, count: int, each: int) -> np.ndarray:
    """The phase of each of `count` iterations of `each` frames, (I,)."""
    return np.arange(count) * each // settings.switch.every if settings.switch.kind != "none" else np.zeros(count, int)


def by_iteration(episodes: pd.DataFrame, seeds: tuple[int, ...], each: int, count: int) -> np.ndarray:
    """Mean return of the episodes that ended in each iteration of `each` frames, (I, S); the last one's where none ended."""
    table = episodes.pivot_table(index="frame", columns="seed", values="return")
    table = table.reindex(index=np.arange(1, count + 1) * each, columns=seeds)
    return table.ffill().bfill().to_numpy(np.float64)


def of_phases(returns: np.ndarray, phase: np.ndarray) -> list[dict[str, Any]]:
    """Of each phase: mean return, that of its last quarter, iterations until RECOVERED of the last phase's last quarter is had.

    returns, phase: (I,).  Who does not recover is given the phase's length; NaN for the first phase, and after nothing was had.
    """
    rows: list[dict[str, Any]] = []
    for number in np.unique(phase):
        part = returns[phase == number]
        smooth = np.convolve(part, np.ones(SMOOTHED) / SMOOTHED, "valid") if len(part) >= SMOOTHED else part
        recovery = float("nan")
        if rows and rows[-1]["end"] > 0:
            back = np.flatnonzero(smooth >= RECOVERED * rows[-1]["end"])
            recovery = float(back[0]) if len(back) else float(len(part))
        rows.append(
            {"phase": int(number), "return": part.mean(), "end": part[-max(1, len(part) // 4) :].mean(), "recovery": recovery}
        )
    return rows


def of_losses(world: str, variant: str, settings: OnPolicyConfig) -> list[dict[str, Any]]:
    """Of each phase of a run the mean of its losses, of how far its anchors were, and of what the kernel let go."""
    metrics = read_csv(settings.out / "metrics.csv")
    each = settings.policy.steps * settings.policy.envs * settings.action_repeat
    phase = phases(settings, len(metrics), each)
    metrics = metrics[[name for name in metrics if name.startswith("losses/")]].rename(columns=lambda name: name.split("/")[1])
    which = {"world": world, "variant": variant, "settings": fingerprint(settings, peer=False)}
    return [which | {"phase": number} | row for number, row in metrics.groupby(phase).mean().to_dict("index").items()]


def beside(path: Path, name: str) -> Path:
    """Where a CSV's other tables lie."""
    return path.with_name(f"{path.stem}-{name}.csv")


def read_rows(path: Path) -> pd.DataFrame:
    """The CSV so far, empty when there is none; RoboprefError when it is another kind of table."""
    if not path.exists():
        return pd.DataFrame(columns=["world", "variant", "settings"])
    table = read_named(path)
    if missing := {"world", "variant", "settings"} - set(table.columns):
        raise RoboprefError(f"{path}: it has no column {', '.join(sorted(missing))}; it is of another command, name another file")
    return table


def summary(rows: pd.DataFrame, base: str) -> str:
    """Lifetime return, last quarters and recovery by world and variant, over seeds; then over all worlds, divided by the base's.

    IQM over the base's IQM and mean over its mean, each with a verdict.  The base's seeds are drawn, too; the base itself is 1.
    """
    if rows.empty:
        return "no rows yet"
    wide = [max(least, *(len(name) + 2 for name in rows[column].unique())) for column, least in (("world", 24), ("variant", 12))]

    def line(world: str, variant: str, numbers: str) -> str:
        return f"{world:{wide[0]}}{variant:{wide[1]}}{numbers}"

    spread = f"{'spread over seeds':>34}"
    lines = [line("world", "variant", f"{'IQM':>9}{'mean':>9}{spread}{'ends':>9}{'recovery':>10}{'seeds':>7}{'CPU s':>8}")]
    lives = rows.groupby(["world", "variant", "seed"])[["return", "end", "recovery", "seconds"]].mean()
    for (world, variant), part in lives.groupby(["world", "variant"], sort=False):
        found = over_seeds(part["return"].to_numpy())
        numbers = f"{found.centre:>9.1f}{part['return'].mean():>9.1f}{found.said():>34}"
        numbers += f"{part['end'].mean():>9.1f}{part['recovery'].mean():>10.1f}"
        lines.append(line(world, variant, f"{numbers}{len(part):>7}{part['seconds'].mean():>8.0f}"))
    worlds, returns = rows["world"].nunique(), lives["return"].reset_index()
    tables = {str(name): grid(part, "return", task="world") for name, part in returns.groupby("variant", sort=False)}
    whole = {name: table for name, table in tables.items() if table is not None and table.shape[1] == worlds}
    if worlds < 2 or base not in whole:
        return "\n".join(lines)
    where = f"over {base}, {worlds} worlds"
    if not (whole[base] > 0).all():
        return "\n".join([*lines, f"{where}: not divided, since {base} has a return that is not positive"])
    for name, table in whole.items():
        for word, statistic in (("IQM", iqm_along), ("mean", np.mean)):
            found = ratio(table, whole[base], statistic)
            told = "" if name == base else f"{found.said(3):>34}{len(table):>7}  {verdict(found, 1)}"
            lines.append(line(where, name, f"{word:>9}{found.centre:>9.3f}{told}"))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
