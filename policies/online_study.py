"""`python -m robopref.policies.online_study --out FILE.csv`: agents compared while they learn, same environments and starts.

For every environment, variant and seed one run; a row an evaluation, appended to the CSV as the run is done.  A second call does
what is missing (a killed run of ours goes on from its checkpoint); `--summary` only reads, `--figure` draws the curves.
"""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from robopref.configs.cli import guarded
from robopref.configs.errors import RoboprefError
from robopref.configs.files import atomic_file, plain
from robopref.configs.flags import from_flags
from robopref.configs.hydra import compose, to_dataclass
from robopref.configs.parallel import in_processes
from robopref.configs.policy import CIRConfig, GTRConfig, OnlineConfig, OnPolicyConfig
from robopref.configs.ranges import Count, Device, Names, Seeds, Workers
from robopref.configs.rows import fingerprint as short_name
from robopref.configs.rows import read_csv, read_named
from robopref.embodied.statistics import difference, grid, over_seeds, verdict
from robopref.policies import online, stable_baselines
from robopref.policies.study import append_rows

KEY = ["env", "variant", "seed", "frame"]
PEER = "sb3"  # the word for stable-baselines3's SAC, whose settings are those of policy=sac
COLUMNS = 3  # of the figure
WHOLE = "mean"  # of all evaluations of a run: how soon it learnt, and how well
NO_MATTER = (
    "out",
    "threads",
    "processes",
    "device",
    "checkpoint_every",
    "policy.cuda_graph",
    "seeds",
)  # to what comes of a member


@dataclass(frozen=True)
class OnlineStudyConfig:
    """Who learns where, and for how long."""

    out: Path
    """CSV to append to."""
    envs: Names = ("dmc/walker-walk", "dmc/cartpole-swingup")
    """dmc/TASK, mujoco/ENVIRONMENT, metaworld/TASK; an action is repeated twice in dmc, as is usual."""
    variants: Names = ("cir=policy=cir", "sac=policy=sac", f"sb3={PEER}")
    """NAME=SETTINGS: settings of `robopref train`, blanks between them, {seed} for the run's; one that holds blanks in quotes.

    sb3 is stable-baselines3's SAC; policy.width, policy.repeats (gradient steps a decision) and what both SACs have may follow.
    """
    seeds: Seeds = (0, 1, 2)
    frames: Count = 50_000
    set: tuple[str, ...] = ()
    """Settings of all variants, such as policy.width=256."""
    work: Path = Path("runs/online")
    """Folder for the runs, kept between calls."""
    device: Device = "cpu"
    """Where agents learn: cpu, or auto, cuda, cuda:1."""
    processes: Workers = 2
    summary: bool = False
    """Print what the CSV says, and do nothing."""
    against: str | None = None
    """A variant: print what the others have over it, or less than it, over all tasks of dmc, as an ablation wants it."""
    figure: Path | None = None
    """Draw the curves of the CSV to this PNG or SVG."""


def main(argv: list[str]) -> None:
    """Command line."""
    config = from_flags(OnlineStudyConfig, argv, "python -m robopref.policies.online_study", __doc__)
    if not config.summary:
        run(config)
    rows = read_rows(config.out)
    print(summary(rows))
    if config.against is not None:
        print("\n".join(worth_lines(rows, config.against)))
    if config.figure is not None and not rows.empty:
        with atomic_file(config.figure) as temp:
            draw(rows).savefig(temp, format=config.figure.suffix.removeprefix("."), dpi=150, metadata={})


def run(config: OnlineStudyConfig) -> None:
    """Do what is missing in the CSV; RoboprefError when it holds the same runs with other settings."""
    done = read_rows(config.out)
    known = {tuple(row[:3]): row[3] for row in done[[*KEY[:3], "settings"]].itertuples(index=False)}
    jobs = []
    for seed, env, variant in product(config.seeds, config.envs, config.variants):
        name, settings = settings_of(config, env, variant, seed)
        before = known.get((env, name, seed))
        if before is None:
            jobs.append((name, variant, settings))
        elif before != fingerprint(settings, is_peer(variant)):
            raise RoboprefError(
                f"{config.out}: {name} in {env} was run with other settings; choose another --out, or give the settings it had"
            )
    for rows in in_processes(run_one, jobs, config.processes):
        done = append_rows(config.out, done, rows, KEY)
        last = rows[-1]
        told = f"return {last['return']:.1f}, success {last['success']:.2f}  ({last['seconds']:.0f} s)"
        print(f"{last['env']}, {last['variant']}, seed {last['seed']}: {told}", flush=True)


def settings_of(config: OnlineStudyConfig, env: str, variant: str, seed: int) -> tuple[str, OnlineConfig]:
    """(name, settings of `robopref train`) of one run."""
    name, words = named("--variants", variant.replace("{seed}", str(seed)))
    where = [f"env={env}", f"seed={seed}", f"frames={config.frames}", f"action_repeat={2 if env.startswith('dmc/') else 1}"]
    folder = config.work / env.replace("/", "-") / f"{name}-{seed}"
    chosen = ["policy=sac", *words[1:]] if words[0] == PEER else words
    tree = compose("train_online", [*chosen, *where, f"device={config.device}", f"out={folder}", *config.set])
    return name, to_dataclass(OnlineConfig, tree)


def is_peer(variant: str) -> bool:
    """Whether NAME=SETTINGS is stable-baselines3's SAC."""
    return named("--variants", variant)[1][0] == PEER


def named(option: str, words: str) -> tuple[str, list[str]]:
    """NAME=SETTINGS -> (name, settings), which have blanks between them; one that holds blanks stands in quotes."""
    name, _, settings = words.partition("=")
    if not name or not settings:
        raise RoboprefError(f"{option} {words}: write NAME=SETTINGS, for example 'narrow=policy=cir policy.width=64'")
    try:
        return name, shlex.split(settings)
    except ValueError as error:  # a quote that is not closed
        raise RoboprefError(f"{option} {words}: {error}") from error


def fingerprint(settings: OnlineConfig | OnPolicyConfig, peer: bool = False) -> str:
    """A short name for what decides a run's rows and is not in their key: the settings that are not the dataclass's own.

    So a setting that is new, and by itself changes nothing, leaves the names of earlier runs alone.
    """
    usual = by_full_name(
        OnlineConfig(Path(), "", CIRConfig()) if isinstance(settings, OnlineConfig) else OnPolicyConfig(Path(), "", GTRConfig())
    )
    decides = {name: value for name, value in by_full_name(settings).items() if value != usual[name] and name not in NO_MATTER}
    decides |= {"peer": peer}
    return short_name(decides)


def by_full_name(settings: OnlineConfig | OnPolicyConfig) -> dict[str, Any]:
    """All settings by their full names, such as policy.width."""
    tree = plain(settings)
    parts = {name: part for name, part in tree.items() if isinstance(part, dict)}
    inner = {f"{name}.{key}": value for name, part in parts.items() for key, value in part.items()}
    return {name: value for name, value in tree.items() if name not in parts} | inner


def run_one(name: str, variant: str, settings: OnlineConfig) -> list[dict[str, Any]]:
    """The rows of one run."""
    started = time.process_time()
    peer = is_peer(variant)
    if peer:
        table = stable_baselines.evaluations(settings)
    else:
        table = read_csv(online.run(settings) / online.EVALUATION)
    which = {"env": settings.env, "variant": name, "seed": settings.seed}
    spent = {"seconds": time.process_time() - started, "settings": fingerprint(settings, peer)}
    return [which | row | spent for row in table.to_dict("records")]


def read_rows(path: Path) -> pd.DataFrame:
    """The CSV so far, empty when there is none; RoboprefError when it is another kind of table."""
    if not path.exists():
        return pd.DataFrame(columns=[*KEY, "return", "success", "seconds", "settings"])
    table = read_named(path)
    if missing := {*KEY, "return", "success", "settings"} - set(table.columns):
        raise RoboprefError(f"{path}: it has no column {', '.join(sorted(missing))}; it is of another command, name another file")
    return table


def summary(rows: pd.DataFrame) -> str:
    """Of every environment and variant IQM, mean, spread over seeds, time: at half of the frames, the end, over the curve."""
    if rows.empty:
        return "no rows yet"
    head = f"{'frame':>8}{'IQM':>9}{'mean':>9}{'spread over seeds':>34}{'success':>9}{'seeds':>7}{'CPU s':>8}"
    lines = [f"{'environment':28}{'variant':16}{head}"]
    for (env, variant), part in rows.groupby(["env", "variant"], sort=False):
        last = part["frame"].max()
        curves = part.groupby("seed")[["return", "success", "seconds"]].mean()
        ends = {frame: part[part["frame"] == frame] for frame in sorted({part["frame"][part["frame"] >= last / 2].min(), last})}
        for frame, here in {**ends, WHOLE: curves}.items():
            found = over_seeds(here["return"].to_numpy())
            numbers = f"{frame:>8}{found.centre:>9.1f}{here['return'].mean():>9.1f}{found.said():>34}"
            lines.append(
                f"{env:28}{variant:16}{numbers}{here['success'].mean():>9.2f}{len(here):>7}{here['seconds'].mean():>8.0f}"
            )
    return "\n".join([*lines, *suite_lines(rows)])


def suite_lines(rows: pd.DataFrame) -> list[str]:
    """The same over all tasks of dmc, whose returns have one scale, for variants that finished the same seeds in all of them."""
    rows = rows[rows["env"].str.startswith("dmc/")]
    envs, lines = rows["env"].nunique(), []
    for variant, part in rows.groupby("variant", sort=False):
        for whole in (False, True):
            returns = returns_of(part, envs, whole)
            if envs < 2 or returns is None:
                continue
            found = over_seeds(returns)
            frame = WHOLE if whole else part["frame"].max()
            numbers = f"{frame:>8}{found.centre:>9.1f}{returns.mean():>9.1f}{found.said():>34}"
            lines.append(f"{f'dmc, {envs} tasks':28}{variant:16}{numbers}{'':>9}{len(returns):>7}")
    return lines


def worth_lines(rows: pd.DataFrame, base: str) -> list[str]:
    """What a variant has over `base`: IQM of its returns over all tasks of dmc less that of `base`, not paired; a verdict."""
    rows = rows[rows["env"].str.startswith("dmc/")]
    envs, variants = rows["env"].nunique(), list(dict.fromkeys(rows["variant"]))
    if base not in variants:
        raise RoboprefError(f"--against {base}: dmc has no such variant; there are {', '.join(variants) or 'none'}")
    parts = {name: rows[rows["variant"] == name] for name in variants}
    lines = [f"{f'less {base}':28}{'frame':>8}{'IQM':>9}{'mean':>9}{'spread over seeds':>34}"]
    for name in variants:
        for whole in (False, True):
            theirs, own = (returns_of(parts[key], envs, whole) for key in (name, base))
            if name == base or theirs is None or own is None:
                continue
            found = difference(theirs, own)
            frame = WHOLE if whole else parts[name]["frame"].max()
            numbers = f"{frame:>8}{found.centre:>+9.1f}{theirs.mean() - own.mean():>+9.1f}{found.said(sign='+'):>34}"
            lines.append(f"{name:28}{numbers}  {verdict(found)}")
    return lines


def returns_of(part: pd.DataFrame, envs: int, whole: bool) -> np.ndarray | None:
    """Returns (S seeds, T tasks) of a variant at its last frame, or means over all of its evaluations; None where one lacks."""
    if not whole:
        part = part[part["frame"] == part.groupby(["env", "seed"])["frame"].transform("max")]
    returns = grid(part, "return")
    return None if returns is None or returns.shape[1] < envs else returns


def draw(rows: pd.DataFrame, place: str = "env") -> Figure:
    """A panel a `place` (a column), a line a variant: IQM of the return over seeds, its range or interval shaded, by `frame`."""
    places = list(dict.fromkeys(rows[place]))
    colours = {variant: f"C{number}" for number, variant in enumerate(dict.fromkeys(rows["variant"]))}
    lines = -(-len(places) // COLUMNS)
    figure = Figure(figsize=(4 * min(len(places), COLUMNS), 3 * lines), layout="constrained")
    for number, name in enumerate(places):
        axes = figure.add_subplot(lines, min(len(places), COLUMNS), number + 1)
        for variant, part in rows[rows[place] == name].groupby("variant", sort=False):
            found = {frame: over_seeds(at["return"].to_numpy()) for frame, at in part.groupby("frame")}
            centre, low, high = np.array([(at.centre, at.low, at.high) for at in found.values()]).T
            axes.plot(list(found), centre, label=str(variant), color=colours[variant])
            axes.fill_between(list(found), low, high, color=colours[variant], alpha=0.2, lw=0)
        axes.set_title(name)
        axes.set_xlabel("frames")
        axes.set_ylabel("return")
        axes.legend(fontsize=7)
    return figure


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
