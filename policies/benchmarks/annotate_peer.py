"""Labels of pairs the plain way, a script: `python -m robopref.policies.benchmarks.annotate_peer SETTINGS OUT`.

For `robopref bench annotate`, which times all of it, start included, so it imports only what it needs.  It does what a user
who knows the tools would write: each clip once, one after the other, drawn by one kept renderer of gymnasium without shadows,
reflections and multisampling, the opening once for clips of one episode that follow each other, then encoded and scored by one
loaded model; with several processes each has a part of the clips, forked once everything is imported.
"""

from __future__ import annotations

import json
import sys
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import torch
from gymnasium.envs.mujoco.mujoco_rendering import MujocoRenderer

from robopref.configs.annotate import AnnotateConfig
from robopref.datasets.clips import Segment, frame_steps
from robopref.datasets.episodes import EpisodeStore
from robopref.embodied import simstate
from robopref.embodied.envs import MetaWorldEnv, make_env
from robopref.embodied.gl import has_drawn
from robopref.preference.pairs import choose_segments
from robopref.preference.vlp import VLPScorer

CAMERA = "corner2"  # gymnasium knows the cameras of the model only, and this one hangs upside down
INSTRUCTION = "close the drawer"


def label(config: AnnotateConfig) -> dict[str, np.ndarray]:
    """Scores of all clips (N,), pairs (P, 2) of their numbers, labels (P,): what `robopref annotate` makes of these settings."""
    assert config.episodes is not None
    segments, pairs, _ = choose_segments(config, EpisodeStore(config.episodes), np.random.default_rng(config.seed))
    if config.processes == 1:
        scores = score(config, segments)
    else:
        parts = [segments[bounds[0] : bounds[-1] + 1] for bounds in np.array_split(np.arange(len(segments)), config.processes)]
        # A fork has the locks of all threads, but not the threads: not of a process that has drawn or computed.
        fresh = __name__ == "__main__" and not has_drawn()
        with get_context("fork" if fresh else "spawn").Pool(config.processes) as pool:
            scores = np.concatenate(pool.starmap(score, [(config, part) for part in parts]))
    difference = scores[pairs[:, 1]] - scores[pairs[:, 0]]
    return {"scores": scores, "pairs": pairs, "labels": 1 / (1 + np.exp(-difference))}


def score(config: AnnotateConfig, segments: list[Segment]) -> np.ndarray:
    """f(v | l) of each segment, (N,)."""
    torch.set_num_threads(config.threads)
    assert config.episodes is not None
    store, vlp = EpisodeStore(config.episodes), VLPScorer.load(config.model[0])
    env = make_env(store.env_id)
    env.reset(seed=0)
    renderer = plain_renderer(env, vlp.frame_size)
    scores, opened, opening = [], -1, np.empty(0)
    for segment in segments:
        static, dynamics = store.states(segment.episode, np.append(0, frame_steps(segment.start, segment.stop, config.frames)))
        if segment.episode != opened:
            opened, opening = segment.episode, picture(renderer, env, static, dynamics[0])
        clip = np.stack([opening, *(picture(renderer, env, static, dynamic) for dynamic in dynamics[1:])])
        scores.append(vlp.score(clip[None], [INSTRUCTION])[0])
    renderer.close()
    env.close()
    return np.array(scores)


def plain_renderer(env: MetaWorldEnv, size: int) -> MujocoRenderer:
    """Gymnasium's, of `size` pixels each way, without what costs time and shows little."""
    sawyer: Any = env.unwrapped
    sawyer.model.vis.quality.offsamples = 0
    renderer = MujocoRenderer(sawyer.model, sawyer.data, width=size, height=size, camera_name=CAMERA)
    flags = renderer._get_viewer("rgb_array").scn.flags
    flags[mujoco.mjtRndFlag.mjRND_SHADOW] = flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
    return renderer


def picture(renderer: MujocoRenderer, env: MetaWorldEnv, static: np.ndarray, dynamic: np.ndarray) -> np.ndarray:
    """One state, (H, W, 3) uint8, upright."""
    simstate.pose(env, static, dynamic)
    return renderer.render("rgb_array")[::-1, ::-1]


def main(settings: str, out: str) -> None:
    """settings: JSON of fields of AnnotateConfig, paths as words; out: an .npz file."""
    words = json.loads(settings)
    words |= {"episodes": Path(words["episodes"]), "model": tuple(map(Path, words["model"]))}
    found = label(AnnotateConfig(**words))
    np.savez(out, scores=found["scores"], pairs=found["pairs"], labels=found["labels"])


if __name__ == "__main__":
    main(*sys.argv[1:])
