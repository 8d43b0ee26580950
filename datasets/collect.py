"""`robopref collect`: scripted policies -> episodes (Minari, with simulator states) and frame banks.

With `protocol=d4rl env=mujoco/hopper` an agent learns instead, and D4RL's five sets are made (policies/d4rl_protocol.py).

First command of the flow.  One worker a task, one environment and one renderer a worker; a task that is already there with
the same settings is kept, so a killed collection goes on where it was.
"""

from __future__ import annotations

import shutil
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from robopref.configs.collect import CollectConfig
from robopref.configs.errors import RoboprefError, nearest
from robopref.configs.files import remove_abandoned
from robopref.configs.parallel import in_processes
from robopref.configs.progress import counted, tell_end
from robopref.configs.run import is_complete, write_manifest
from robopref.configs.run_folder import FLAGS, refuse_inside, run_folder
from robopref.configs.vlp import PretrainConfig
from robopref.datasets.clips import is_bank, is_drawn, render_bank
from robopref.datasets.episodes import FILES, EpisodeStore, write_episodes
from robopref.embodied.envs import MetaWorldEnv, make_env
from robopref.embodied.experts import ScriptedExpert, mismatched, noisy, uniform, wandering
from robopref.embodied.render import Renderer
from robopref.embodied.rollout import LEVELS, Episode, rollout
from robopref.embodied.tasks import SPLITS, expand_tasks, task

# Policies that see nothing, and how many times as long as an expert they act: a wandering hand needs time to get to the edges.
AIMLESS = {"random": (uniform, 1), "wandering": (wandering, 3)}
ATTEMPTS = 20  # an expert episode that fails is drawn again this often


def main(config: CollectConfig) -> None:
    """`robopref collect`."""
    began = time.time()
    out = run(config)
    for name in expand_tasks(config.tasks):
        store = EpisodeStore(out / name)
        print(f"{out / name}: {counted(len(store), 'episode')}, {counted(store.index['length'].sum(), 'step')}")
    folders = [out / name for name in expand_tasks(config.tasks)]
    made = "a dataset a task" if config.clips is None else f"a dataset a task, its frames in {config.clips}"
    then = (
        ["annotate", "--episodes", str(folders[0]), "--model", "VLP"]
        if config.clips is None
        else ["pretrain", f"clips={config.clips}", *words_for_tasks(config.clips, config.tasks)]
    )
    tell_end(out, began, made, "robopref", *then, folders=folders)


def words_for_tasks(clips: Path, tasks: Sequence[str]) -> list[str]:
    """`tasks=[...]` for what learns from the frames of `tasks`; nothing where all that it learns from by default are there."""
    usual = expand_tasks(PretrainConfig().tasks)
    return [] if all(is_bank(clips / name) for name in usual) else [f"tasks=[{','.join(tasks)}]"]


def run(config: CollectConfig) -> Path:
    """Collect every task of `config`; return the folder that holds one dataset a task."""
    unknown = [level for level in config.levels if level not in LEVELS]
    if unknown:
        raise RoboprefError(f"Unknown level {unknown[0]!r}; there are {', '.join(LEVELS)}.{nearest(unknown[0], LEVELS)}")
    if config.episodes < 1:
        raise RoboprefError(f"--episodes {config.episodes}: ask for at least one episode a task and level.")
    started = time.time()
    names = expand_tasks(config.tasks)
    check_clips(config, names)
    with run_folder(config.out, "collect", asdict(config), {}, words=FLAGS, shared=True) as complete:  # other tasks may be in it
        # One task a job: tasks are of unequal length.
        for _ in in_processes(collect_task, [(replace(config, tasks=(name,)),) for name in names], config.processes, "tasks:"):
            pass
        if not complete:
            write_manifest(config.out, "collect", asdict(config), {}, config.seed, started, outputs=list(names))
    return config.out


def check_clips(config: CollectConfig, names: Sequence[str]) -> None:
    """RoboprefError where frames would lie among datasets, or replace anything but frames that may go."""
    if config.clips is None:
        return
    sets = {(config.out / name).resolve(): name for name in names}
    for name in names:
        bank = config.clips / name
        place = bank.resolve()
        inside = next((path for path in (place, *place.parents) if path in sets), None)
        if inside is not None or any(place in path.parents for path in sets):
            raise RoboprefError(f"--clips {config.clips}: {bank} would lie with a dataset of --out {config.out}: choose another")
        refuse_inside(bank, "--clips", whole=True)
        check_bank(config, name)


def check_bank(config: CollectConfig, name: str) -> bool:
    """Whether the frames of a task are there and of its episodes; RoboprefError where something else is that must stay."""
    if config.clips is None:
        return True
    bank, path = config.clips / name, config.out / name
    if not bank.exists() or (bank.is_dir() and not any(bank.iterdir())):
        return False
    if not bank.is_dir() or not is_bank(bank):
        raise RoboprefError(f"{bank} is there, and is no frame bank, or not only one: choose another --clips")
    if config.overwrite:
        return False
    if is_complete(path, asked_of(config), {}):
        drawn = is_drawn(bank, EpisodeStore(path), config.frame_size, config.camera, config.parts)
        if drawn is not None:
            return drawn
    elif path.exists() and any(path.iterdir()):
        return False  # run_folder says what is there
    raise RoboprefError(f"{bank} holds frames of other episodes: choose another --clips, or replace them with --overwrite")


def asked_of(config: CollectConfig) -> dict[str, Any]:
    """The settings that decide what a dataset and its frames hold."""
    return {key: value for key, value in asdict(config).items() if key not in ("out", "overwrite", "clips", "processes")}


def collect_task(config: CollectConfig) -> None:
    """Collect the one task of `config` into OUT/TASK and draw its frames into CLIPS/TASK, unless they are there already."""
    (name,) = config.tasks
    path = config.out / name
    asked = asked_of(config)
    started = time.time()
    with ExitStack() as stack:
        held = run_folder(path, "collect", asked, {}, overwrite=config.overwrite, words=FLAGS, whole=True)
        collected = stack.enter_context(held)
        if check_bank(config, name) and collected:
            return
        env = stack.enter_context(closing(make_env(f"metaworld/{name}")))  # half a second: one for both
        if not collected:

            def vouch(aside: Path) -> None:
                """A kill must find neither episodes of which nothing says who made them, nor frames of those before them."""
                write_manifest(aside, "collect", asked, {}, config.seed, started, outputs=FILES)
                if config.clips is not None and is_bank(config.clips / name):
                    shutil.rmtree(config.clips / name)

            provenance = {key: str(value) for key, value in asked.items()}
            write_episodes(path, env.env_id, play(env, config), provenance, vouch)
        if config.clips is not None:
            check_bank(config, name)  # once more: collecting takes its time
            remove_abandoned(config.clips / name)
            with Renderer(env, size=config.frame_size, camera=config.camera) as renderer:
                render_bank(EpisodeStore(path), config.clips / name, renderer, with_parts=config.parts)


def play(env: MetaWorldEnv, config: CollectConfig) -> Iterator[Episode]:
    """The episodes of one task, level by level; each is a function of (seed, task, level, number) alone."""
    expert_lengths: list[int] = []
    for level in config.levels:
        for number in range(config.episodes):
            for attempt in range(ATTEMPTS):
                # Equal lengths, so that clip speed does not give the level away: a random episode lasts as long as an expert's.
                known = level in AIMLESS and expert_lengths
                like_expert = AIMLESS[level][1] * expert_lengths[number] if known else config.max_steps
                episode = play_level(env, level, _seed(config.seed, env.task_name, level, number, attempt), config, like_expert)
                if episode is not None:
                    break
            else:
                raise RoboprefError(
                    f"{env.env_id}: {ATTEMPTS} times no {level} episode came of it; "
                    + (
                        f"the scripted expert failed within {config.max_steps} steps: raise --max-steps or lower --noise"
                        if level != "wandering"
                        else "its hand succeeds wherever it goes: leave this level out of --levels for this task"
                    )
                )
            if level == "expert":
                expert_lengths.append(len(episode))
            yield episode


def play_level(env: MetaWorldEnv, level: str, seed: int, config: CollectConfig, max_steps: int) -> Episode | None:
    """One episode of `level`, or None to draw it again: an expert or medium one without success, a wandering one with it."""
    rng = np.random.default_rng(seed)
    expert = ScriptedExpert(env.task_name)
    if level in AIMLESS:
        make, _ = AIMLESS[level]
        policy = make.__name__
        episode = rollout(env, make(rng), seed=seed, level=level, policy=policy, max_steps=max_steps, linger=config.linger)
        return None if level == "wandering" and episode.success.any() else episode
    policy = f"scripted + N(0, {config.noise})"
    act = noisy(expert, config.noise, rng)
    if level == "mismatched":
        own, _ = env.reset(seed=seed)
        other, _ = env.reset(seed=int(rng.integers(2**31)))
        act, policy = noisy(mismatched(expert, own, other), config.noise, rng), f"{policy}, goal of another episode"
    elif level == "foreign":
        others = [name for name in SPLITS["paper"].train if name != env.task_name]
        other_task = str(rng.choice(others))
        act, policy = noisy(ScriptedExpert(other_task), config.noise, rng), f"{policy} of {other_task}"
    linger = 0 if level == "medium" else config.linger  # it is cut before it succeeds
    episode = rollout(env, act, seed=seed, level=level, policy=policy, max_steps=max_steps, linger=linger)
    if level in ("expert", "medium") and (not episode.success.any() or episode.success.argmax() < 2):
        return None
    if level == "medium":
        return episode.cut(task(env.task_name).medium.cut(episode.near_object, episode.success), "medium")
    return episode


def _seed(*parts: int | str) -> int:
    """A 31-bit seed (what gymnasium accepts) from anything; unlike hash(), the same in every process."""
    return zlib.crc32(repr(parts).encode()) & 0x7FFFFFFF
