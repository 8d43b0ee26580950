"""Rendering: our fast pictures against gymnasium's renderer, as it comes and as its user would best set it.

One task and camera.  Both peers are gymnasium's `MujocoRenderer`, made once and kept, and are posed by the same function as ours:

    gymnasium's default     shadows, reflections and four samples a pixel, as `render_mode="rgb_array"` gives them
    the best plain way      without the three, as our fast pictures are; 3 lines of its user

Ours differs from the second by simpler meshes and floor, by what stands still being drawn once an episode, and at 64 pixels
by four samples a pixel.  Every side draws clips of 8 states from the simulation to an array; ours of another episode in each
round, so that it pays for what stands still with every clip.  Sides take turns, so that a machine that slows down slows all,
and a ratio is one of medians.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import mujoco
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
ROUNDS = 16
FEW = 2  # pictures a round of the slow sides: the stock scene takes a tenth of a second or more

Clip = tuple[np.ndarray, np.ndarray]
"""States of one episode: static (K,), dynamics (8, S)."""


def run() -> dict[str, dict[str, float]]:
    """Measure; print a table; return {"ratio": {"64": ..., "224": ...}, "fair": the same}, by size."""
    env = make_env(f"metaworld/{TASK}")
    clips = [clip_states(env, seed) for seed in (0, 1)]
    table = Table(title=f"Pictures a second of {TASK} with {os.environ['MUJOCO_GL']}")
    for name in (
        "size",
        "gymnasium",
        "best plain way",
        "pretty",
        "fast",
        "against gymnasium's default",
        "against the best plain way",
    ):
        table.add_column(name, justify="right")
    ratios: dict[str, dict[str, float]] = {"ratio": {}, "fair": {}}
    for size in SIZES:
        seconds = measure(env, size, clips)
        for name, peer in (("ratio", "gymnasium"), ("fair", "plain")):
            ratios[name][str(size)] = round(seconds[peer] / seconds["fast"], 1)
        rates = (f"{1 / seconds[side]:.1f}" for side in ("gymnasium", "plain", "pretty", "fast"))
        table.add_row(str(size), *rates, *(f"{ratios[name][str(size)]:.1f}" for name in ratios))
    Console().print(table)
    return ratios


def clip_states(env: MetaWorldEnv, seed: int) -> Clip:
    """Eight states spread over the expert's first 64 steps."""
    observation, _ = env.reset(seed=seed)
    expert = ScriptedExpert(TASK)
    dynamics = []
    for _ in range(64):
        observation, *_ = env.step(expert(observation))
        dynamics.append(simstate.save_dynamic(env))
    return simstate.save_static(env), np.array(dynamics[:: 64 // CLIP])


def measure(env: MetaWorldEnv, size: int, clips: list[Clip]) -> dict[str, float]:
    """Median seconds a picture of each side, by turns."""
    layout = simstate.layout(env)
    peers = {name: make_peer(env, size, plain=name == "plain") for name in ("gymnasium", "plain")}
    seconds: dict[str, list[float]] = {"gymnasium": [], "plain": [], "pretty": [], "fast": []}
    with Renderer(env, size, CAMERA) as fast, Renderer(env, size, CAMERA, quality="pretty") as pretty:
        for round_number in range(-1, ROUNDS):  # -1: shaders are compiled with the first pictures
            static, dynamics = clips[round_number % len(clips)]
            few = dynamics[np.arange(FEW) + round_number % (CLIP - FEW)]
            times = {
                "gymnasium": timed(partial(peer_frames, peers["gymnasium"], layout, static, few)) / FEW,
                "plain": timed(partial(peer_frames, peers["plain"], layout, static, dynamics)) / CLIP,
                "pretty": timed(partial(pretty.frames, static, few)) / FEW,
                "fast": timed(partial(fast.frames, static, dynamics)) / CLIP,
            }
            if round_number >= 0:
                for side, value in times.items():
                    seconds[side].append(value)
    for peer in peers.values():
        peer.close()
    return {side: float(np.median(values)) for side, values in seconds.items()}


def make_peer(env: MetaWorldEnv, size: int, plain: bool) -> MujocoRenderer:
    """Gymnasium's renderer of a copy of the scene; plain: without shadows, reflections and multisampling."""
    sawyer: Any = env.unwrapped
    model = copy.deepcopy(sawyer.model)
    if plain:
        without_extras(model)
    peer = MujocoRenderer(model, mujoco.MjData(model), width=size, height=size, camera_name=CAMERA)
    if plain:
        without_shadows(peer)
    return peer


def without_extras(model: mujoco.MjModel) -> None:
    """One sample a pixel and no shadow map; to be called before the renderer is made."""
    model.vis.quality.offsamples = model.vis.quality.shadowsize = 0


def without_shadows(peer: MujocoRenderer) -> None:
    """Neither shadows nor reflections: flags of the scene, which last."""
    flags = peer._get_viewer("rgb_array").scn.flags
    flags[mujoco.mjtRndFlag.mjRND_SHADOW] = flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0


def peer_frames(peer: MujocoRenderer, layout: simstate.Layout, static: np.ndarray, dynamics: np.ndarray) -> list[np.ndarray]:
    """Gymnasium's pictures of the states, as it gives them; moving the scene costs it no more than us."""
    peer._get_viewer("rgb_array").make_context_current()  # it does so only when it is made (Metaworld#448)
    simstate.write_model(layout, peer.model, static)
    pictures = []
    for dynamic in dynamics:
        simstate.write_pose(layout, peer.model, peer.data, static, dynamic)
        pictures.append(peer.render("rgb_array"))
    return pictures


def timed(act: Callable[[], object]) -> float:
    """Seconds of wall clock."""
    start = time.perf_counter()
    act()
    return time.perf_counter() - start
