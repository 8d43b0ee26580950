"""Rendering: our fast pictures against gymnasium's `render_mode="rgb_array"`: same scene, camera and size.

Both sides draw the same states of one episode, from the simulation to an array.  They take turns, so that a machine that
slows down slows both, and the ratio is one of medians.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from gymnasium.envs.mujoco.mujoco_rendering import MujocoRenderer
from rich.console import Console
from rich.table import Table

from robopref.embodied import simstate
from robopref.embodied.envs import MetaWorldEnv, make_env
from robopref.embodied.experts import ScriptedExpert
from robopref.embodied.render import Renderer

TASK = "drawer-close"
CAMERA = "corner2"  # gymnasium knows the cameras of the model only
SIZES = (64, 224)
CLIP = 8  # pictures
ROUNDS = 8
PEER_PICTURES = 2  # a round: the stock scene takes a tenth of a second or more


def run() -> dict[str, dict[str, float]]:
    """Measure; print a table; return {"ratio": {"64": ..., "224": ...}}."""
    env = make_env(f"metaworld/{TASK}")
    static, dynamics = clip_states(env)
    table = Table(title=f"Pictures a second of {TASK} with {os.environ['MUJOCO_GL']}")
    for name in ("size", "gymnasium", "pretty", "fast", "ratio", "fast clips/s"):
        table.add_column(name, justify="right")
    ratios = {}
    for size in SIZES:
        seconds = measure(env, size, static, dynamics)
        ratios[str(size)] = round(seconds["gymnasium"] / seconds["fast"], 1)
        rates = (f"{1 / seconds[side]:.1f}" for side in ("gymnasium", "pretty", "fast"))
        table.add_row(str(size), *rates, f"{ratios[str(size)]:.1f}", f"{1 / seconds['fast'] / CLIP:.1f}")
    Console().print(table)
    return {"ratio": ratios}


def clip_states(env: MetaWorldEnv) -> tuple[np.ndarray, np.ndarray]:
    """Eight states spread over the expert's first 64 steps: static (K,), dynamics (8, S)."""
    observation, _ = env.reset(seed=0)
    expert = ScriptedExpert(TASK)
    dynamics = []
    for _ in range(64):
        observation, *_ = env.step(expert(observation))
        dynamics.append(simstate.save_dynamic(env))
    return simstate.save_static(env), np.array(dynamics[:: 64 // CLIP])


def measure(env: MetaWorldEnv, size: int, static: np.ndarray, dynamics: np.ndarray) -> dict[str, float]:
    """Median seconds a picture of each side, by turns."""
    sawyer: Any = env.unwrapped
    peer = MujocoRenderer(sawyer.model, sawyer.data, width=size, height=size, camera_name=CAMERA)
    seconds: dict[str, list[float]] = {"gymnasium": [], "pretty": [], "fast": []}
    with Renderer(env, size, CAMERA) as fast, Renderer(env, size, CAMERA, quality="pretty") as pretty:
        for round_number in range(-1, ROUNDS):  # -1: shaders are compiled with the first pictures
            few = dynamics[np.arange(PEER_PICTURES) + round_number % (CLIP - PEER_PICTURES)]
            peer._get_viewer("rgb_array").make_context_current()  # it does so only when it is made (Metaworld#448)
            times = {
                "gymnasium": timed(partial(peer_frames, peer, env, static, few)) / PEER_PICTURES,
                "pretty": timed(partial(pretty.frames, static, few)) / PEER_PICTURES,
                "fast": timed(partial(fast.frames, static, dynamics)) / CLIP,
            }
            if round_number >= 0:
                for side, value in times.items():
                    seconds[side].append(value)
    peer.close()
    return {side: float(np.median(values)) for side, values in seconds.items()}


def peer_frames(peer: MujocoRenderer, env: MetaWorldEnv, static: np.ndarray, dynamics: np.ndarray) -> list[np.ndarray]:
    """Gymnasium's pictures of the states; moving the scene costs it no more than us."""
    pictures = []
    for dynamic in dynamics:
        simstate.pose(env, static, dynamic)
        pictures.append(peer.render("rgb_array"))
    return pictures


def timed(act: Callable[[], object]) -> float:
    """Seconds of wall clock."""
    start = time.perf_counter()
    act()
    return time.perf_counter() - start
