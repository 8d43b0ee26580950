"""Collection: `robopref collect` against two plain ways to make the same data, one process each.

    gymnasium's default     a new environment and a new renderer, as it comes, for each episode, and 8 frames of it
                            (ours draws more)
    the best plain way      one environment and one renderer a task, without shadows, reflections and multisampling (render.py);
                            the same episodes, every seventh state of each drawn at 64 px, arrays written with numpy

Against the second the output is equal: the same levels, seeds, steps and frames, all on the disk.  Both act and simulate through
the same code, which costs them the same; ours differs in how it draws and writes.  `scaling` is ours with two processes against
one.  Sides take turns, so that a machine that slows down slows all, and the better of two turns counts.
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
from robopref.datasets.clips import FRAMES, STRIDE, frame_steps
from robopref.embodied import simstate
from robopref.embodied.envs import make_env
from robopref.policies.benchmarks.render import peer_frames, without_extras, without_shadows

TASKS = ("drawer-open", "button-press", "window-close", "plate-slide", "door-lock", "faucet-open", "reach", "handle-press")
EPISODES = 8  # a task and level; one on the plain side
SIZE = 64
CAMERA = "corner2"  # gymnasium knows the cameras of the model only
TURNS = 2


def run() -> dict[str, float]:
    """Measure; print a table; return {"ratio", "fair", "scaling", "clips_per_s"}."""
    with tempfile.TemporaryDirectory() as made:
        # Files are in the page cache before the clock starts; starting workers is part of what is timed.
        collect.run(config(Path(made) / "warm", TASKS[:2], episodes=1, processes=2))
        default_before = default_seconds(TASKS[::2])
        seconds = {"plain": np.inf, "1": np.inf, "2": np.inf}
        for turn in range(TURNS):
            for side in seconds:
                settings = config(Path(made) / f"{side}-{turn}", TASKS, EPISODES, processes=2 if side == "2" else 1)
                started = time.perf_counter()
                if side == "plain":
                    collect_plainly(settings)
                else:
                    collect.run(settings)
                seconds[side] = min(seconds[side], time.perf_counter() - started)
        default_after = default_seconds(TASKS[1::2])
    kinds = len(TASKS) * len(config(Path(), TASKS).levels)
    clips, default = kinds * EPISODES, kinds / (default_before + default_after)
    rates = {side: clips / value for side, value in seconds.items()}
    table = Table(title=f"Clips a second, {clips} clips of {len(TASKS)} tasks")
    for name in ("side", "clips/s", "against gymnasium's default", "against the best plain way"):
        table.add_column(name, justify="right")
    for side, rate in (
        ("new environment and renderer per episode, gymnasium's default", default),
        ("both kept, the best plain way", rates["plain"]),
        ("robopref collect, 1 process", rates["1"]),
        ("robopref collect, 2 processes", rates["2"]),
    ):
        table.add_row(side, f"{rate:.2f}", f"{rate / default:.1f}", f"{rate / rates['plain']:.1f}")
    Console().print(table)
    return {
        "ratio": round(rates["1"] / default, 1),
        "fair": round(rates["1"] / rates["plain"], 2),
        "scaling": round(rates["2"] / rates["1"], 2),
        "clips_per_s": round(rates["2"], 1),
    }


def config(out: Path, tasks: tuple[str, ...], episodes: int = EPISODES, processes: int = 1) -> CollectConfig:
    """The collection that is timed."""
    return CollectConfig(
        out=out / "episodes",
        clips=out / "clips",
        tasks=tasks,
        episodes=episodes,
        processes=processes,
        frame_size=SIZE,
        camera=CAMERA,
    )


def default_seconds(tasks: Sequence[str]) -> float:
    """Seconds for one clip of every level of these tasks, made as gymnasium comes."""
    settings = config(Path(), TASKS)
    started = time.perf_counter()
    for number, task in enumerate(tasks):
        lengths: dict[str, int] = {}
        for level in settings.levels:  # the expert comes first
            steps = lengths["expert"] if level == "random" else settings.max_steps
            _, lengths[level] = default_clip(task, level, number, settings, steps)
    return time.perf_counter() - started


def default_clip(task: str, level: str, seed: int, settings: CollectConfig, max_steps: int) -> tuple[np.ndarray, int]:
    """One clip (8, 64, 64, 3), environment and renderer made for it alone, and the length of its episode."""
    env = make_env(f"metaworld/{task}", seed=seed)
    episode = None
    while episode is None:  # an unsuccessful expert is drawn again, on both sides
        episode, seed = collect.play_level(env, level, seed, settings, max_steps), seed + 1000
    sawyer: Any = env.unwrapped
    renderer = MujocoRenderer(sawyer.model, sawyer.data, width=SIZE, height=SIZE, camera_name=CAMERA)
    frames = []
    for step in frame_steps(0, len(episode), FRAMES):
        simstate.pose(env, episode.sim_static, episode.sim_dynamic[step])
        frames.append(renderer.render("rgb_array"))
    renderer.close()
    env.close()
    return np.stack(frames), len(episode)


def collect_plainly(settings: CollectConfig) -> None:
    """The episodes and frames of `robopref collect`, made by the best plain loop, in OUT/TASK.npz and CLIPS/TASK.npy."""
    assert settings.clips is not None
    for folder in (settings.out, settings.clips):
        folder.mkdir(parents=True)
    for task in settings.tasks:
        env = make_env(f"metaworld/{task}")
        sawyer: Any = env.unwrapped
        without_extras(sawyer.model)
        renderer = MujocoRenderer(sawyer.model, sawyer.data, width=SIZE, height=SIZE, camera_name=CAMERA)
        without_shadows(renderer)
        arrays: dict[str, Any] = {}
        frames: list[np.ndarray] = []
        for number, episode in enumerate(collect.play(env, settings)):
            arrays |= {f"{number}/{name}": value for name, value in vars(episode).items()}
            frames += peer_frames(renderer, simstate.layout(env), episode.sim_static, episode.sim_dynamic[::STRIDE])
        np.savez(settings.out / f"{task}.npz", **arrays)
        np.save(settings.clips / f"{task}.npy", np.stack(frames))
        renderer.close()
        env.close()
