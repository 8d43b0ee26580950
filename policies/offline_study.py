"""`python -m robopref.policies.offline_study --out FILE.csv`: rewards and learners compared on offline data, in normalised score.

For every data set and variant one run of `robopref train` with all seeds in it, then whole episodes in the environment, as D4RL's
reference returns are counted: a row a seed, appended to the CSV as it is done.  A second call does what is missing (a killed run
goes on from its checkpoint).  With --together variants that differ in their reward alone learn in one program, which is what a
GPU is for; a policy is what it is alone, but for rounding.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from robopref.configs.cli import guarded
from robopref.configs.errors import RoboprefError
from robopref.configs.files import digest, plain
from robopref.configs.flags import from_flags
from robopref.configs.hydra import compose, to_dataclass
from robopref.configs.parallel import in_processes
from robopref.configs.policy import EvaluateConfig, TrainConfig
from robopref.configs.ranges import Count, FirstGoal, Names, Seeds, Workers
from robopref.configs.rows import fingerprint, read_csv, read_named
from robopref.datasets.d4rl import load_offline
from robopref.embodied.evaluate import EvaluationProtocol
from robopref.embodied.statistics import difference, grid, hangs_on, iqm, iqm_along, over_seeds, verdict
from robopref.policies import evaluate, offline, train
from robopref.policies.online_study import named
from robopref.policies.study import append_rows

KEY = ["data", "variant", "seed"]
NO_MATTER = ("out", "overwrite", "seeds", "threads", "device", "log_every", "checkpoint_every")
FILES = ("data", "expert_data", "reward")  # of the settings; words, too
ACTED = ("episodes", "first_goal")  # settings of the study that decide a row
PROTOCOL: EvaluationProtocol = "return"
LONGEST = 1000  # decisions; environments cut their episodes themselves
VARIANTS = (
    "bc=policy=bc_d4rl",
    "bc10=policy=bc_d4rl top=0.1",
    "iql=policy=iql_d4rl",
    "uds=policy=iql_d4rl reward=uds",
    "otr=policy=iql_d4rl reward=otr",
    "seabo=policy=iql_d4rl reward=seabo",
    "td3bc=policy=td3bc",
)


@dataclass(frozen=True)
class OfflineStudyConfig:
    """Which data, which rewards and learners, and for how long."""

    out: Path
    """CSV to append to."""
    data: Names
    """NAME=SETTINGS of `robopref train`, such as hopper-medium-replay=data=FILE.hdf5 expert_data=FILE.hdf5."""
    variants: Names = VARIANTS
    """The same; {data} stands for the name of the data: prof=policy=iql_d4rl reward=runs/prof/{data}/reward.py."""
    seeds: Seeds = (0, 1, 2, 3, 4)
    episodes: Count = 10
    """A seed, in the data's environment, from `first_goal` on."""
    first_goal: FirstGoal = 0
    set: tuple[str, ...] = ()
    """Settings of all runs, such as policy.steps=20000."""
    work: Path = Path("runs/offline")
    """Folder for the runs, kept between calls."""
    against: tuple[str, ...] = ("seabo", "otr")
    """Variants that the others are compared with in the summary."""
    processes: Workers = 2
    together: bool = False
    """Let variants that differ in their reward alone learn in one program; column `seconds` is then of their evaluation."""
    summary: bool = False
    """Print what the CSV says, and do nothing."""


def main(argv: list[str]) -> None:
    """Command line."""
    config = from_flags(OfflineStudyConfig, argv, "python -m robopref.policies.offline_study", __doc__)
    if not config.summary:
        run(config)
    print(summary(read_rows(config.out), config.against))


def run(config: OfflineStudyConfig) -> None:
    """Do what is missing in the CSV; RoboprefError when it holds the same runs with other settings."""
    done = read_rows(config.out)
    known = {tuple(row[:3]): row[3] for row in done[[*KEY, "settings"]].itertuples(index=False)}
    jobs = []
    envs = {data: load_offline(settings_of(config, data, config.variants[0])[2].data).env_id for data in config.data}
    for data, variant in product(config.data, config.variants):
        place, name, settings = settings_of(config, data, variant)
        mark = made_with(settings, config, envs[data])
        missing = tuple(seed for seed in config.seeds if (place, name, seed) not in known)
        if any(known.get((place, name, seed), mark) != mark for seed in config.seeds):
            raise RoboprefError(f"{config.out}: {name} on {place} was run with other settings; choose another --out")
        if missing:
            out = settings.out if missing == config.seeds else settings.out.with_name(f"{name}-{missing[0]}")
            jobs.append((place, name, replace(settings, seeds=missing, out=out), config))
    if config.together:
        learn_together([settings for _, _, settings, _ in jobs])
    for rows in in_processes(run_one, jobs, config.processes):
        done = append_rows(config.out, done, rows, KEY)
        scores = [row["score"] for row in rows]
        print(f"{rows[0]['data']}, {rows[0]['variant']}: {np.mean(scores):.1f}  ({rows[0]['seconds']:.0f} s)", flush=True)


def learn_together(runs: Sequence[TrainConfig]) -> None:
    """Train these policies, those that differ in their reward alone in one program."""
    groups: dict[str, list[TrainConfig]] = {}
    for settings in runs:
        shared = {key: value for key, value in plain(settings).items() if key not in train.OWN}
        groups.setdefault(json.dumps(shared, sort_keys=True), []).append(settings)
    for group in groups.values():
        if len(group) > 1 and offline.learns_from_reward(group[0].policy):
            train.run_together(group, group[0].out.with_name(f"{group[0].out.name}-and-{len(group) - 1}-more"))


def settings_of(config: OfflineStudyConfig, data: str, variant: str) -> tuple[str, str, TrainConfig]:
    """(name of the data, name of the variant, settings of `robopref train`)."""
    place, where = named("--data", data)
    name, words = named("--variants", variant.replace("{data}", place))
    words = [*words, *where, *config.set, f"out={config.work / place / name}", f"seeds={list(config.seeds)}".replace(" ", "")]
    return place, name, to_dataclass(TrainConfig, compose("train", words))


def made_with(settings: TrainConfig, config: OfflineStudyConfig, env_id: str | None) -> str:
    """A short name for what decides a result: settings, the contents of files, and how the environment was acted in.

    What rows that are older than a setting were made with is left out, so that they keep their name.  Those of Adroit were cut at
    success, and have another.
    """
    decides = {key: value for key, value in plain(settings).items() if key not in NO_MATTER}
    if not settings.survival:
        del decides["survival"]
    usual = OfflineStudyConfig(config.out, config.data)
    decides |= {key: getattr(config, key) for key in ACTED if getattr(config, key) != getattr(usual, key)}
    if evaluate.knows_success(env_id or ""):
        decides["protocol"] = PROTOCOL
    for key in FILES:
        if decides.get(key) is not None and Path(decides[key]).exists():
            decides[key] = digest(decides[key])
    return fingerprint(decides)


def run_one(place: str, name: str, settings: TrainConfig, config: OfflineStudyConfig) -> list[dict[str, Any]]:
    """Rows of the CSV: train all seeds, then act."""
    started = time.process_time()
    data = load_offline(settings.data)
    if data.env_id is None or data.score is None:
        raise RoboprefError(f"{settings.data} does not say which environment it is of, or what returns are 0 and 1 there")
    folder = train.run(settings)
    told = EvaluateConfig(
        policy=(str(folder),),
        out=folder / "evaluation",
        env=data.env_id,
        goals=config.episodes,
        first_goal=config.first_goal,
        max_steps=LONGEST,
        protocol=PROTOCOL,
    )
    returns = read_csv(evaluate.run(told) / "success.csv").groupby("member")["ret"].mean()
    facts = {
        "steps": settings.policy.steps,
        "seconds": time.process_time() - started,
        "settings": made_with(settings, config, data.env_id),
    }
    return [
        {"data": place, "variant": name, "seed": seed, "score": 100 * float(data.score(ret)), "return": ret} | facts
        for seed, ret in zip(settings.seeds, returns, strict=True)
    ]


def read_rows(path: Path) -> pd.DataFrame:
    """The CSV so far, empty when there is none; RoboprefError when it is another kind of table."""
    columns = [*KEY, "score", "settings"]
    if not path.exists():
        return pd.DataFrame(columns=columns)
    table = read_named(path)
    if missing := set(columns) - set(table.columns):
        raise RoboprefError(f"{path}: it has no column {', '.join(sorted(missing))}; it is of another command, name another file")
    return table


def summary(rows: pd.DataFrame, against: tuple[str, ...] = ()) -> str:
    """Normalised score by data set and variant, IQM over seeds; then IQM and mean over all sets, with spreads and differences.

    Data sets are fixed, the unit is the policy seed; differences are not paired.  A verdict that one data set carries is said.
    """
    if rows.empty:
        return "no rows yet"
    cells = rows.pivot_table(index="data", columns="variant", values="score", aggfunc=lambda x: iqm(x.to_numpy()), sort=False)
    lines = [cells.to_string(float_format="%.1f", na_rep=""), ""]
    grids = {str(name): grid(part, "score", task="data") for name, part in rows.groupby("variant", sort=False)}
    whole = {name: table for name, table in grids.items() if table is not None and table.shape[1] == len(cells)}
    data = sorted(cells.index)
    for variant, table in whole.items():
        for word, statistic in (("IQM", iqm_along), ("mean", np.mean)):
            found = over_seeds(table, statistic)
            size = f"{len(data)} data set{'s' if len(data) > 1 else ''}, {len(table)} seed{'s' if len(table) > 1 else ''}"
            lines.append(f"{variant:14}{word:5}{found.centre:7.1f}  {found.said()} over seeds; {size}")
            for other in against:
                if other in whole and other != variant:
                    less = difference(table, whole[other], statistic)
                    alone = [f"leaving out {data[k]} turns its sign" for k in hangs_on(table, whole[other], statistic)]
                    told = "; ".join([verdict(less), *alone])
                    lines.append(f"{'':14}less {other} {less.centre:+.1f}, {less.said(sign='+')}: {told}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
