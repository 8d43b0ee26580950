"""Measuring what info["near_object"] says in each task, on which the medium rules of medium.yaml rest.

Beside the flow: `python -m robopref.embodied.medium` rolls out the scripted experts and writes one row a task to
docs/results/medium_rule.csv, against the rules that are in force.  docs/tasks.md reads the result.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from robopref.configs.cli import guarded
from robopref.configs.files import atomic_file
from robopref.configs.flags import from_flags
from robopref.configs.ranges import Count
from robopref.embodied.envs import make_env
from robopref.embodied.experts import ScriptedExpert, noisy
from robopref.embodied.rollout import rollout
from robopref.embodied.tasks import MARGIN, TASKS, task


def measure(name: str, episodes: int, noise: float = 0.1, max_steps: int = 500) -> dict[str, Any]:
    """Run the scripted expert of task `name` with N(0, noise) until success, on seeds 0, 1, ..., and summarise.

    Steps count from 0.  near_values, near_min and near_max are over all episodes, the rest over successful ones.
    near_usable counts those in which near_object reaches the threshold at least MARGIN steps after the start and more
    than MARGIN before success; near_works when all do.  cut_share is the step of the rule's cut over the success step.
    """
    rule = task(name).medium
    env, expert = make_env(f"metaworld/{name}"), ScriptedExpert(name)
    values: set[float] = set()
    succeeded: list[int] = []
    reached: list[int] = []
    shares: list[float] = []
    at_start = usable = 0
    for seed in range(episodes):
        act = noisy(expert, noise, np.random.default_rng(seed))
        episode = rollout(env, act, seed=seed, level="expert", policy="scripted", max_steps=max_steps, linger=0)
        values.update(episode.near_object.tolist())
        if not episode.success.any():
            continue
        end = int(np.argmax(episode.success))
        near = np.flatnonzero(episode.near_object >= rule.threshold)[:1].tolist()
        succeeded.append(end)
        reached.extend(near)
        at_start += near == [0]
        usable += any(MARGIN <= step < end - MARGIN for step in near)
        shares.append(rule.cut(episode.near_object, episode.success) / end)
    env.close()
    return {
        "task": name,
        "episodes": episodes,
        "successes": len(succeeded),
        **_spread("success_step", succeeded),
        "near_values": "constant" if len(values) == 1 else "boolean" if values == {0.0, 1.0} else "float",
        "near_min": min(values),
        "near_max": max(values),
        "threshold": rule.threshold,
        "near_at_start": at_start,
        "near_reached": len(reached),
        **_spread("near_step", reached),
        "near_usable": usable,
        "near_works": usable == len(succeeded) > 0,
        "rule": rule.kind,
        **_spread("cut_share", shares),
    }


def _spread(name: str, values: list[int] | list[float]) -> dict[str, float]:
    low, middle, high = np.quantile(values, [0.0, 0.5, 1.0]) if values else [np.nan] * 3
    return {f"{name}_min": low, f"{name}_median": middle, f"{name}_max": high}


@dataclass(frozen=True)
class MediumConfig:
    """What is measured, and where it is written; about three minutes on one core."""

    out: Path = Path("docs/results/medium_rule.csv")
    episodes: Count = 12


def main(argv: list[str]) -> None:
    """Measure every task and write the table."""
    config = from_flags(MediumConfig, argv, "python -m robopref.embodied.medium", __doc__)
    table = pd.DataFrame([measure(name, config.episodes) for name in TASKS])
    with atomic_file(config.out) as path:
        table.to_csv(path, index=False, float_format="%.4g", lineterminator="\n")
    disagree = table[table["near_works"] != (table["rule"] == "near_object")]["task"].tolist()
    print(f"medium.yaml disagrees in: {', '.join(disagree) or 'none'}")
    print(f"{config.out}: {len(table)} tasks; near_object works in {table['near_works'].sum()}.")


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
