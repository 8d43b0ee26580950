"""`robopref evaluate`: trained policies and references -> success over fixed goals, success.csv and summary.json.

Comes after training; goes to the report.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import tyro

from robopref.configs.checkpoint import load_model
from robopref.configs.errors import RoboprefError, nearest
from robopref.configs.files import atomic_file, write_json
from robopref.configs.parallel import in_processes
from robopref.configs.policy import EvaluateConfig
from robopref.configs.run import is_complete, write_manifest
from robopref.embodied.envs import OBSERVATION_SIZE, make_env
from robopref.embodied.evaluate import ActPolicy, Policy, evaluate, summarise, table
from robopref.embodied.experts import ScriptedExpert, uniform
from robopref.policies.networks import NumpyPolicy, load_policy

REFERENCES = ("random", "expert")


def main(argv: list[str]) -> None:
    """Command line of `robopref evaluate`."""
    config = tyro.cli(EvaluateConfig, args=argv, prog="robopref evaluate", description=__doc__)
    out = run(config)
    summary = summarise(pd.read_csv(out / "success.csv"))
    for name, row in summary.items():
        print(f"{name}: success {row['iqm']:.2f} [{row['low']:.2f}, {row['high']:.2f}] over {row['n']} episodes")
    print(out)


def run(config: EvaluateConfig) -> Path:
    """Evaluate every member of every policy on the same goals; return the folder of success.csv and summary.json."""
    check(config)
    folders = {Path(policy).name: Path(policy) for policy in config.policy if policy not in REFERENCES}
    inputs = {name: folder / "model.safetensors" for name, folder in folders.items()}
    if is_complete(config.out, config, inputs):
        return config.out
    started = time.time()
    make_env(config.env).close()  # an unknown name is an error here, not in a worker
    jobs = [(policy, member) for policy in config.policy for member in range(count_members(policy, config))]
    parts = in_processes(evaluate_member, [(policy, member, config) for policy, member in jobs], config.processes)
    outcomes = pd.concat(parts, ignore_index=True)
    with atomic_file(config.out / "success.csv") as temp:
        outcomes.to_csv(temp, index=False)
    write_json(config.out / "summary.json", summarise(outcomes))
    goals = range(config.first_goal, config.first_goal + config.goals)
    write_manifest(config.out, "evaluate", config, inputs, goals, started, outputs=["success.csv", "summary.json"])
    return config.out


def check(config: EvaluateConfig) -> None:
    """RoboprefError for settings that cannot be evaluated."""
    names = [Path(policy).name for policy in config.policy]
    for policy, name in zip(config.policy, names, strict=True):
        if policy not in REFERENCES and not Path(policy).is_dir():
            raise RoboprefError(
                f"--policy {policy}: no such folder; name one that `robopref train` wrote, or random or expert."
                f"{nearest(policy, REFERENCES)}"
            )
        if names.count(name) > 1:
            raise RoboprefError(f"--policy: two are called {name!r}, the name in the table; evaluate them into two folders")
    if not names:
        raise RoboprefError("--policy: name at least one policy")
    for key in ("goals", "max_steps", "references", "processes"):
        if getattr(config, key) < 1:
            raise RoboprefError(f"--{key.replace('_', '-')} {getattr(config, key)}: must be at least 1")


def count_members(policy: str, config: EvaluateConfig) -> int:
    """Members of a run folder; of `random` as many as asked for, of `expert` one, since it draws nothing."""
    if policy == "expert":
        return 1
    if policy == "random":
        return config.references
    return len(load_model(policy, "policy")[1]["seeds"])


def evaluate_member(policy: str, member: int, config: EvaluateConfig) -> pd.DataFrame:
    """The rows of success.csv of one member."""
    env = make_env(config.env)
    try:
        acting = make_policy(policy, member, config.env)
        sees = OBSERVATION_SIZE
        if isinstance(acting, NumpyPolicy) and acting.obs_dim != sees:
            raise RoboprefError(
                f"{policy} was trained on {acting.obs_dim} numbers an observation, {config.env} gives {sees}: "
                "name the environment that it was trained for"
            )
        goals = range(config.first_goal, config.first_goal + config.goals)
        return table(Path(policy).name, member, evaluate(acting, env, goals, config.max_steps))
    finally:
        env.close()


def make_policy(policy: str, member: int, env_id: str) -> Policy:
    """A member of a run folder, or a reference by its name."""
    if policy == "random":
        return ActPolicy(uniform(np.random.default_rng(member)))
    if policy == "expert":
        return ActPolicy(ScriptedExpert(env_id.split("/")[1]))
    return load_policy(policy, member)
