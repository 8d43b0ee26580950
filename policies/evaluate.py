"""`robopref evaluate`: trained policies and references -> success or return over fixed goals, success.csv and summary.json.

Comes after training; goes to the report.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd

from robopref.configs.checkpoint import load_model
from robopref.configs.errors import RoboprefError, nearest
from robopref.configs.files import MANIFEST, as_written, atomic_file, read_record, write_json
from robopref.configs.parallel import in_processes
from robopref.configs.policy import EvaluateConfig
from robopref.configs.progress import tell_end
from robopref.configs.rows import read_named
from robopref.configs.run import write_manifest
from robopref.configs.run_folder import FLAGS, run_folder
from robopref.embodied.control import full_name, make_control, same_environment
from robopref.embodied.envs import make_env
from robopref.embodied.evaluate import KNOW_SUCCESS, ActPolicy, EvaluationProtocol, Policy, evaluate, protocol_of, table
from robopref.embodied.experts import ScriptedExpert, uniform
from robopref.embodied.statistics import over_what, summarise
from robopref.policies.networks import NumpyPolicy, load_policy
from robopref.preference.hub import PREFIX, WEIGHTS, find_model, name_of, parse_reference

REFERENCES = ("random", "expert")
MEASURES: dict[EvaluationProtocol, str] = {"success": "success", "return": "ret"}  # the column of success.csv that counts


def main(config: EvaluateConfig) -> None:
    """`robopref evaluate`."""
    began = time.time()
    out = run(config)
    with as_written(out, "evaluate again, with --overwrite"):
        config = replace(config, env=read_record(out / MANIFEST)["config"]["env"])  # which `auto` was
        protocol, outcomes = protocol_asked(config), read_named(out / "success.csv")
        reached = outcomes.groupby("policy")["success"].mean()
        summary = summarise(outcomes, measure=MEASURES[protocol])
    for name, row in summary.items():
        digits = 2 if protocol == "success" else 1
        low, high = (f"{row[end]:.{digits}f}" for end in ("low", "high"))
        told = f"{name}: {protocol} {row['iqm']:.{digits}f} [{low}, {high}], {over_what(int(row['members']), int(row['goals']))}"
        print(told + (f", success {reached[name]:.2f}" if protocol == "return" and knows_success(config.env) else ""))
    then = ["video", "--policy", *config.policy, "--env", config.env, *(["--force"] if config.force else [])]
    tell_end(out, began, "success.csv and summary.json", "robopref", *then)


def run(config: EvaluateConfig) -> Path:
    """Evaluate every member of every policy on the same goals; return the folder of success.csv and summary.json."""
    check(config)
    places = find_policies(config.policy)
    config = replace(config, env=environment_of(places, config.env, config.force))
    if config.protocol == "success" and not knows_success(config.env):
        raise RoboprefError(f"--protocol success: {config.env} knows no success; give --protocol return, or auto")
    inputs = weights_of(places)
    writes = ("success.csv", "summary.json")
    with run_folder(config.out, "evaluate", config, inputs, overwrite=config.overwrite, words=FLAGS, writes=writes) as complete:
        if not complete:
            measure(config, places, inputs)
    return config.out


def measure(config: EvaluateConfig, places: Mapping[str, str], inputs: Mapping[str, Path]) -> None:
    """Every episode of every member, to success.csv and summary.json; places: of find_policies."""
    started = time.time()
    make_world(config.env, 1).close()  # an unknown name is an error here, not in a worker
    jobs = [
        (name_of(policy), place, member, config)
        for policy, place in places.items()
        for member in range(count_members(place, config))
    ]
    parts = in_processes(evaluate_member, jobs, config.processes, "members:")
    outcomes = pd.concat(parts, ignore_index=True)
    with atomic_file(config.out / "success.csv") as temp:
        outcomes.to_csv(temp, index=False)
    write_json(config.out / "summary.json", summarise(outcomes, measure=MEASURES[protocol_asked(config)]))
    goals = range(config.first_goal, config.first_goal + config.goals)
    write_manifest(config.out, "evaluate", config, inputs, goals, started, outputs=["success.csv", "summary.json"])


def check(config: EvaluateConfig) -> None:
    """RoboprefError for settings that cannot be evaluated."""
    check_places(config.policy)
    names = [name_of(policy) for policy in config.policy]
    for name in names:
        if names.count(name) > 1:
            raise RoboprefError(f"--policy: two are called {name!r}, the name in the table; evaluate them into two folders")
    if not names:
        raise RoboprefError("--policy: name at least one policy")
    for key in ("goals", "max_steps", "references", "processes"):
        if getattr(config, key) < 1:
            raise RoboprefError(f"--{key.replace('_', '-')} {getattr(config, key)}: must be at least 1")


def check_places(policies: Sequence[str]) -> None:
    """RoboprefError for a policy that is neither a folder nor a reference by name, nor written as one in the hub."""
    for policy in policies:
        if policy.startswith(PREFIX):
            parse_reference(policy)
        elif policy not in REFERENCES and not Path(policy).is_dir():
            raise RoboprefError(
                f"--policy {policy}: no such folder; name one that `robopref train` wrote, {PREFIX}OWNER/NAME, random or expert."
                f"{nearest(policy, REFERENCES)}"
            )


def find_policies(policies: Sequence[str]) -> dict[str, str]:
    """Where each policy is, by how it was asked for: the folder of what was trained, a reference by its name as it is."""
    return {policy: policy if policy in REFERENCES else str(find_model(policy, "policy")) for policy in policies}


def weights_of(places: Mapping[str, str]) -> dict[str, Path]:
    """The weights that a manifest names, by the policy's name in tables; places: of find_policies."""
    return {name_of(policy): Path(place) / WEIGHTS for policy, place in places.items() if place not in REFERENCES}


def environment_of(places: Mapping[str, str], asked: str, force: bool) -> str:
    """The environment to act in: the one that is asked for, or with `auto` the one that the policies were trained in.

    places: of find_policies.
    RoboprefError where that is not one, and, without `force`, where a policy was trained in another than is asked for.
    """
    asked = asked if asked == "auto" else full_name(asked)
    trained = {policy: about.get("env") for policy, place in places.items() if (about := about_policy(place))}
    known = {policy: env for policy, env in trained.items() if env is not None}
    if asked == "auto":
        if len(set(known.values())) == 1:
            return next(iter(known.values()))
        told = ", ".join(f"{policy} was trained in {env}" for policy, env in known.items()) or (
            f"{', '.join(trained)} does not say where it was trained" if trained else "random and expert act anywhere"
        )
        raise RoboprefError(f"--env auto: {told}; name one environment, such as --env metaworld/drawer-close")
    for policy, env in known.items():
        if not same_environment(env, asked):
            told = f"{policy} was trained in {env}, and --env is {asked}"
            if not force:
                raise RoboprefError(f"{told}: give --env {env}, or --force to see what it does there")
            print(f"note: {told}", file=sys.stderr)
    return asked


def about_policy(policy: str) -> dict[str, Any]:
    """What a policy's folder says of it; nothing of a reference."""
    return {} if policy in REFERENCES else load_model(policy, "policy")[1]


def count_members(policy: str, config: EvaluateConfig) -> int:
    """Members of a run folder; of `random` as many as asked for, of `expert` one, since it draws nothing."""
    if policy == "expert":
        return 1
    if policy == "random":
        return config.references
    return len(about_policy(policy)["seeds"])


def protocol_asked(config: EvaluateConfig) -> EvaluationProtocol:
    """How episodes are counted: as asked, or the environment's own way (embodied/evaluate.py)."""
    return protocol_of(config.env) if config.protocol == "auto" else config.protocol


def knows_success(env_id: str) -> bool:
    """Whether the environment says that a task is done."""
    return env_id.partition("/")[0] in KNOW_SUCCESS


def make_world(env_id: str, repeat: int) -> gym.Env[np.ndarray, np.ndarray]:
    """Any environment; Meta-World's bare, as episodes are collected, where no action is repeated."""
    return make_env(env_id) if env_id.startswith("metaworld/") and repeat == 1 else make_control(env_id, repeat)


def repeat_of(policy: str) -> int:
    """Frames that a policy holds an action for: as it was trained; 1 for references and for what learnt offline."""
    return int(about_policy(policy).get("action_repeat", 1))


def evaluate_member(name: str, place: str, member: int, config: EvaluateConfig) -> pd.DataFrame:
    """The rows of success.csv of one member of the policy that is called `name` and is at `place`."""
    env = make_world(config.env, repeat_of(place))
    try:
        sees, acts = (int(np.prod(space.shape or ())) for space in (env.observation_space, env.action_space))
        acting = make_policy(place, member, config.env, acts)
        if isinstance(acting, NumpyPolicy) and acting.obs_dim != sees:
            raise RoboprefError(
                f"{name} was trained on {acting.obs_dim} numbers an observation, {config.env} gives {sees}: "
                "name the environment that it was trained for"
            )
        goals = range(config.first_goal, config.first_goal + config.goals)
        return table(name, member, evaluate(acting, env, goals, config.max_steps, protocol_asked(config)))
    finally:
        env.close()


def make_policy(policy: str, member: int, env_id: str, action_dim: int = 4) -> Policy:
    """A member of a run folder, or a reference by its name."""
    if policy == "random":
        return ActPolicy(uniform(np.random.default_rng(member), action_dim))
    if policy == "expert":
        suite, _, task = env_id.partition("/")
        if suite != "metaworld":
            raise RoboprefError(f"--policy expert: {env_id} has none; only Meta-World's tasks have scripted experts")
        return ActPolicy(ScriptedExpert(task))
    return load_policy(policy, member)
