"""Collection: clips a second of `robopref collect`, against a new environment and gymnasium's renderer for each episode.

A clip is an episode of one of three levels with at least 8 frames of 64 px drawn.  The plain side draws exactly 8, ours
every seventh state of the episode, which is more.  Both make every level of every task, random episodes as long as expert
ones.  The plain side is timed half before and half after ours, so that a machine that slows down slows both.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.envs.mujoco.mujoco_rendering import MujocoRenderer
from rich.console import Console
from rich.table import Table

from robopref.configs.collect import CollectConfig
from robopref.datasets import collect
from robopref.datasets.clips import FRAMES, frame_steps
from robopref.embodied import simstate
from robopref.embodied.envs import make_env

TASKS = ("drawer-open", "button-press", "window-close", "plate-slide", "door-lock", "faucet-open", "reach", "handle-press")
EPISODES = 8  # a task and level; one on the plain side
SIZE = 64


def run() -> dict[str, float]:
    """Measure; print a table; return {"ratio", "scaling", "clips_per_s"}."""
    with tempfile.TemporaryDirectory() as made:
        # Files are in the page cache before the clock starts; starting workers is part of what is timed.
        collect.run(config(Path(made) / "warm", TASKS[:2], episodes=1, processes=2))
        plain_before = plain_seconds(TASKS[::2])
        seconds: dict[int, float] = {}
        for processes in (1, 2, 1, 2):  # twice by turns, the better of two counts: a shared machine stalls now and then
            started = time.perf_counter()
            collect.run(config(Path(made) / f"{processes}-{len(seconds)}-{started}", TASKS, EPISODES, processes))
            seconds[processes] = min(seconds.get(processes, np.inf), time.perf_counter() - started)
        plain_after = plain_seconds(TASKS[1::2])
    kinds = len(TASKS) * len(config(Path(), TASKS).levels)
    clips, plain = kinds * EPISODES, kinds / (plain_before + plain_after)
    rates = {processes: clips / value for processes, value in seconds.items()}
    table = Table(title=f"Clips a second, {clips} clips of {len(TASKS)} tasks")
    for name in ("side", "clips/s", "against plain"):
        table.add_column(name, justify="right")
    table.add_row("new environment per episode, gymnasium's renderer", f"{plain:.2f}", "1.0")
    for processes, rate in rates.items():
        table.add_row(f"robopref collect, {processes} process{'es'[: 2 * processes - 2]}", f"{rate:.2f}", f"{rate / plain:.1f}")
    Console().print(table)
    return {
        "ratio": round(rates[1] / plain, 1),
        "scaling": round(rates[2] / rates[1], 2),
        "clips_per_s": round(rates[2], 1),
    }


def config(out: Path, tasks: tuple[str, ...], episodes: int = EPISODES, processes: int = 1) -> CollectConfig:
    """The collection that is timed."""
    return CollectConfig(
        out=out / "episodes", clips=out / "clips", tasks=tasks, episodes=episodes, processes=processes, frame_size=SIZE
    )


def plain_seconds(tasks: Sequence[str]) -> float:
    """Seconds for one clip of every level of these tasks, made the plain way."""
    settings = config(Path(), TASKS)
    started = time.perf_counter()
    for number, task in enumerate(tasks):
        lengths: dict[str, int] = {}
        for level in settings.levels:  # the expert comes first
            steps = lengths["expert"] if level == "random" else settings.max_steps
            _, lengths[level] = plain_clip(task, level, number, settings, steps)
    return time.perf_counter() - started


def plain_clip(task: str, level: str, seed: int, settings: CollectConfig, max_steps: int) -> tuple[np.ndarray, int]:
    """One clip (8, 64, 64, 3), environment and renderer made for it alone, and the length of its episode."""
    env = make_env(f"metaworld/{task}", seed=seed)
    episode = None
    while episode is None:  # an unsuccessful expert is drawn again, on both sides
        episode, seed = collect.play_level(env, level, seed, settings, max_steps), seed + 1000
    sawyer: Any = env.unwrapped
    renderer = MujocoRenderer(sawyer.model, sawyer.data, width=SIZE, height=SIZE, camera_name="corner2")
    frames = []
    for step in frame_steps(0, len(episode), FRAMES):
        simstate.pose(env, episode.sim_static, episode.sim_dynamic[step])
        frames.append(renderer.render("rgb_array"))
    renderer.close()
    env.close()
    return np.stack(frames), len(episode)
