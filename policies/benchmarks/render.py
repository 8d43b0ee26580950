"""Rendering: our fast pictures against gymnasium's renderer as it comes, and against the best plain way.

One task and camera.  All peers are made once and kept, and are posed by the same function as ours:

    gymnasium's default     shadows, reflections and four samples a pixel, as `render_mode="rgb_array"` gives them ("ratio")
    the best plain way      without the three, as our fast pictures are, a few lines of its user: gymnasium's `MujocoRenderer` or
                            `mujoco.Renderer`, whichever is faster in this run ("fair"); the former reads depth with each picture

Ours differs from the second by simpler meshes and floor, by what stands still being drawn once an episode, and at 64 pixels
by four samples a pixel.  Every side draws the same clips of 8 states, from the simulation to an array, of another episode in
each turn, so that ours pays for what stands still with every clip.  Sides take turns, so that a machine that slows down slows
all, and a ratio is one of medians.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Self

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
PLAIN = ("gymnasium, plain", "mujoco, plain")

Clip = tuple[np.ndarray, np.ndarray]
"""States of one episode: static (K,), dynamics (8, S)."""


def run() -> dict[str, dict[str, float]]:
    """Measure; print a table; return {"ratio": {"64": ..., "224": ...}, "fair": the same}, by size."""
    env = make_env(f"metaworld/{TASK}")
    clips = [clip_states(env, seed) for seed in (0, 1)]
    table = Table(title=f"Pictures a second of {TASK} with {os.environ['MUJOCO_GL']}")
    for name in ("size", "gymnasium", *PLAIN, "pretty", "fast", "against gymnasium's default", "against the best plain way"):
        table.add_column(name, justify="right")
    ratios: dict[str, dict[str, float]] = {"ratio": {}, "fair": {}}
    for size in SIZES:
        seconds = measure(env, size, clips)
        ratios["ratio"][str(size)] = round(seconds["gymnasium"] / seconds["fast"], 1)
        ratios["fair"][str(size)] = round(min(seconds[side] for side in PLAIN) / seconds["fast"], 2)
        rates = (f"{1 / seconds[side]:.1f}" for side in ("gymnasium", *PLAIN, "pretty", "fast"))
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
    default, plain = (make_peer(env, size, plain=plain) for plain in (False, True))
    seconds: dict[str, list[float]] = {}
    with (
        PlainRenderer(env, size) as bare,
        Renderer(env, size, CAMERA) as fast,
        Renderer(env, size, CAMERA, quality="pretty") as pretty,
    ):
        sides: dict[str, Callable[[np.ndarray, np.ndarray], object]] = {
            "gymnasium": partial(peer_frames, default, layout),
            PLAIN[0]: partial(peer_frames, plain, layout),
            PLAIN[1]: bare.frames,
            "pretty": pretty.frames,
            "fast": fast.frames,
        }
        for round_number in range(-1, ROUNDS):  # -1: shaders are compiled with the first pictures
            for side, draw in sides.items():
                taken = timed(partial(draw, *clips[round_number % len(clips)]))
                if round_number >= 0:
                    seconds.setdefault(side, []).append(taken / CLIP)
    for peer in (default, plain):
        peer.close()
    return {side: float(np.median(values)) for side, values in seconds.items()}


class PlainRenderer:
    """`mujoco.Renderer` of a copy of the scene, without shadows, reflections and multisampling."""

    def __init__(self, env: MetaWorldEnv, size: int) -> None:
        sawyer: Any = env.unwrapped
        self._layout = simstate.layout(env)
        self._model = copy.deepcopy(sawyer.model)
        without_extras(self._model)
        self._data = mujoco.MjData(self._model)
        self._renderer = mujoco.Renderer(self._model, size, size)

    def frames(self, static: np.ndarray, dynamics: np.ndarray) -> list[np.ndarray]:
        """Pictures of states of one episode, static (K,) and dynamics (N, S), as it gives them."""
        simstate.write_model(self._layout, self._model, static)
        pictures = []
        for dynamic in dynamics:
            simstate.write_pose(self._layout, self._model, self._data, static, dynamic)
            self._renderer.update_scene(self._data, CAMERA)
            flags = self._renderer.scene.flags  # each update sets them anew
            flags[mujoco.mjtRndFlag.mjRND_SHADOW] = flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
            pictures.append(self._renderer.render())
        return pictures

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._renderer.close()


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
