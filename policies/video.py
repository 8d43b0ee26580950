"""`robopref video`: policies -> mp4 of what they do, goal by goal, and all of them side by side.

Episodes are played first and drawn afterwards from their simulator states, once large for the eye and, when VLP scores
them, once small as it was trained to see them.
"""

from __future__ import annotations

import glob
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from itertools import chain, product
from pathlib import Path

import numpy as np

from robopref.configs.errors import RoboprefError, nearest
from robopref.configs.files import write_json
from robopref.configs.hydra import to_dataclass
from robopref.configs.policy import SwitchConfig
from robopref.configs.progress import tell_end
from robopref.configs.run import write_manifest
from robopref.configs.run_folder import FLAGS, run_folder
from robopref.configs.show import VideoConfig
from robopref.datasets.clips import frame_steps
from robopref.embodied.camera import Camera
from robopref.embodied.envs import MetaWorldEnv, make_env
from robopref.embodied.evaluate import Policy
from robopref.embodied.render import DEFAULT_CAMERA, Renderer
from robopref.embodied.rollout import Episode, rollout
from robopref.embodied.switching import SwitchingEnv
from robopref.embodied.tasks import canonical
from robopref.embodied.video import grid, overlay, write_video
from robopref.policies.evaluate import (
    about_policy,
    check_places,
    environment_of,
    find_policies,
    make_policy,
    repeat_of,
    weights_of,
)
from robopref.preference.hub import WEIGHTS, find_model, name_of
from robopref.preference.vlp import VLPScorer

LINGER = 20  # environment steps filmed after the first success


def main(config: VideoConfig) -> None:
    """`robopref video`."""
    began = time.time()
    out = run(config)
    for path in sorted(out.glob("*.mp4")):
        print(f"{path}: {path.stat().st_size / 1024:.0f} kB")
    tell_end(out, began, "a film a goal and a policy, and all of them in grid.mp4")


def run(config: VideoConfig) -> Path:
    """Film every policy on every goal; return the folder of the videos.  What is already there is kept."""
    _check(config)
    places = find_policies(config.policy)
    config = replace(config, env=environment_of(places, config.env, config.force))
    acting = {name_of(policy): place for policy, place in places.items()}
    inputs = weights_of(places)
    model = None if config.model is None else find_model(config.model, "vlp")
    if model is not None:
        inputs["--model"] = model / WEIGHTS
    writes = ("grid.mp4", "films.json", *(f"{name}-goal-*.mp4" for name in map(glob.escape, acting)))
    with run_folder(config.out, "video", config, inputs, overwrite=config.overwrite, words=FLAGS, writes=writes) as complete:
        if complete:
            return config.out
        started = time.time()
        if not config.env.startswith("metaworld/") or config.phases:
            film_control(config, acting, inputs, started)
        else:
            film_meta_world(config, acting, model, inputs, started)
    return config.out


def film_meta_world(
    config: VideoConfig, places: Mapping[str, str], model: Path | None, inputs: dict[str, Path], started: float
) -> None:
    """Every policy, its place by its name, on every goal of a Meta-World task: scored by a VLP where one is given, drawn from
    simulator states.
    """
    env = make_env(config.env)
    env.reset(seed=config.first_goal)
    instruction = config.instruction or canonical(env.task_name)
    goals = range(config.first_goal, config.first_goal + config.goals)
    films: list[list[np.ndarray]] = []
    outputs = ["grid.mp4", "films.json"]
    said: dict[str, list[dict[str, object]]] = {}
    with ExitStack() as stack:
        stack.callback(env.close)
        large = stack.enter_context(Renderer(env, config.size, config.camera, config.quality))
        critic = None if model is None else Critic(model, env, instruction, stack)
        for name, place in places.items():
            acting = make_policy(place, config.member, config.env)
            reel: list[list[np.ndarray]] = []
            for goal in goals:
                episode = rollout(
                    env,
                    partial(act_once, acting),
                    seed=goal,
                    level="learned",
                    policy=name,
                    max_steps=config.max_steps,
                    linger=LINGER,
                )
                reel.append(film(episode, large, critic, config, instruction, f"{name}, goal {goal}"))
                outputs.append(f"{name}-goal-{goal}.mp4")
                write_video(config.out / outputs[-1], reel[-1], config.fps)
                said.setdefault(name, []).append(_facts(episode))
            outputs.append(f"{name}.mp4")
            write_video(config.out / outputs[-1], chain.from_iterable(reel), config.fps)
            films += reel
    columns = config.goals if len(places) > 1 else None
    write_video(config.out / "grid.mp4", grid(films, columns), config.fps)
    write_json(config.out / "films.json", {"instruction": instruction, "env": config.env, "episodes": said})
    write_manifest(config.out, "video", config, inputs, goals, started, outputs)


def film_control(config: VideoConfig, places: Mapping[str, str], inputs: dict[str, Path], started: float) -> None:
    """The same in dmc/..., mujoco/... or a world that changes: no success, no VLP; drawn while it happens."""
    if config.model is not None:
        raise RoboprefError(f"--model: a VLP scores Meta-World's tasks, and not while they change; this is {config.env}")
    goals = range(config.first_goal, config.first_goal + config.goals)
    camera = None if config.camera == DEFAULT_CAMERA else config.camera
    films: list[list[np.ndarray]] = []
    outputs = ["grid.mp4", "films.json"]
    said: dict[str, list[dict[str, object]]] = {}
    for name, place in places.items():
        with ExitStack() as stack:
            env = stack.enter_context(closing(world_of(place, config)))
            acting = make_policy(place, config.member, config.env, env.sizes[1])
            for goal, phase in product(goals, config.phases or (0,)):
                env.enter(phase)
                obs, ret, pictures, done, step = env.reset(seed=goal)[0], 0.0, [], False, 0
                eye = stack.enter_context(Camera(env, config.size, camera))  # of another task another model
                title = config.instruction or env.env_id.partition("/")[2]
                while True:
                    if step % config.every == 0 or done:
                        above = f"{name}, goal {goal}" + (f", {env.told}" if config.phases else "")
                        picture = eye.picture()
                        if config.captions:
                            picture = overlay(picture, title, step, ret, None, title=above, score_name="return")
                        pictures.append(picture)
                    if done:
                        break
                    obs, reward, terminated, truncated, _ = env.step(act_once(acting, obs))
                    ret, step = ret + reward, step + 1
                    done = terminated or truncated or step >= config.max_steps
                films.append(pictures)
                outputs.append(f"{name}-goal-{goal}{f'-phase-{phase}' if config.phases else ''}.mp4")
                write_video(config.out / outputs[-1], pictures, config.fps)
                said.setdefault(name, []).append({"goal": goal, "phase": phase, "steps": step, "return": ret})
        outputs.append(f"{name}.mp4")
        write_video(
            config.out / outputs[-1], chain.from_iterable(films[-config.goals * len(config.phases or (0,)) :]), config.fps
        )
    columns = len(config.phases) or (config.goals if len(places) > 1 else None)
    write_video(config.out / "grid.mp4", grid(films, columns), config.fps)
    write_json(config.out / "films.json", {"env": config.env, "episodes": said})
    write_manifest(config.out, "video", config, inputs, goals, started, outputs)


def world_of(policy: str, config: VideoConfig) -> SwitchingEnv:
    """The environment as the policy was trained in it; RoboprefError for phases of a world that does not change."""
    switch = to_dataclass(SwitchConfig, about_policy(policy).get("switch", {}))
    if config.phases and switch.kind == "none":
        raise RoboprefError(f"--phases: {policy} was trained in a world that does not change; leave --phases out")
    return SwitchingEnv(config.env, repeat_of(policy), switch if config.phases else SwitchConfig())


def _check(config: VideoConfig) -> None:
    """Raise `RoboprefError` for settings that cannot be filmed."""
    check_places(config.policy)
    names = [name_of(policy) for policy in config.policy]
    for name in names:
        if names.count(name) > 1:
            raise RoboprefError(f"Two policies are called {name!r}, and so would be their videos: film them into two folders.")
    if config.out.suffix == ".mp4":
        raise RoboprefError(f"--out {config.out}: name a folder; there is a video for each goal, and grid.mp4 of all.")
    if not names:
        raise RoboprefError("--policy: name at least one run folder, or expert or random.")
    for key in ("goals", "size", "every", "fps", "max_steps"):
        if getattr(config, key) < 1:
            raise RoboprefError(f"--{key.replace('_', '-')} {getattr(config, key)}: must be at least 1.")
    if config.quality not in ("fast", "pretty"):
        raise RoboprefError(f"--quality {config.quality}: fast or pretty.{nearest(config.quality, ('fast', 'pretty'))}")
    if config.instruction is not None and not config.instruction.strip():
        raise RoboprefError("--instruction is empty: say what the robot is asked to do, or leave it out.")
    if config.model is not None and not config.captions:
        raise RoboprefError("--model: its score is part of the captions; leave out --model or --no-captions.")


def act_once(policy: Policy, observation: np.ndarray) -> np.ndarray:
    """The action (4,) for one observation (39,)."""
    return policy.act(observation[None])[0]


class Critic:
    """VLP, watching: what it thinks of an episode after each picture."""

    def __init__(self, model: Path, env: MetaWorldEnv, instruction: str, stack: ExitStack) -> None:
        self.scorer = VLPScorer.load(model)
        self.instruction = instruction
        self.renderer = stack.enter_context(Renderer(env, self.scorer.frame_size, self.scorer.camera))

    def scores(self, episode: Episode, steps: np.ndarray) -> np.ndarray:
        """f(v | l) of the episode up to each of `steps` (n,), from frames spread over those already seen; (n,)."""
        frames = self.renderer.frames(episode.sim_static, episode.sim_dynamic[steps])
        features = self.scorer.encode(frames[:, None])  # (n, P, D): each frame once, however many clips it is in
        spread = np.stack([np.append(0, frame_steps(0, seen + 1, self.scorer.frames)) for seen in range(len(steps))])
        clips = features[spread].reshape(len(steps), -1, features.shape[-1])
        return self.scorer.score_features(clips, [self.instruction] * len(steps))


def film(
    episode: Episode, renderer: Renderer, critic: Critic | None, config: VideoConfig, instruction: str, title: str
) -> list[np.ndarray]:
    """The pictures of one episode, with their text if `config.captions`; the last one stays for a second."""
    steps = np.unique(np.append(np.arange(0, len(episode) + 1, config.every), len(episode)))
    if not config.captions:
        drawn = list(renderer.frames(episode.sim_static, episode.sim_dynamic[steps]))
        return drawn + drawn[-1:] * config.fps
    succeeded = np.append(False, np.logical_or.accumulate(episode.success))
    if critic is None:
        scores, score_name = np.append(0.0, episode.rewards.cumsum())[steps], "return"
    else:
        scores, score_name = critic.scores(episode, steps), "score"
    pictures = [
        overlay(
            renderer.frames(episode.sim_static, episode.sim_dynamic[[step]])[0],
            instruction,
            int(step),
            float(score),
            bool(succeeded[step]),
            title=title,
            score_name=score_name,
        )
        for step, score in zip(steps, scores, strict=True)
    ]
    return pictures + pictures[-1:] * config.fps


def _facts(episode: Episode) -> dict[str, object]:
    """Return what films.json and a caption say of an episode; success_step is the actions up to and with the first success.

    That is one more than in success.csv of `robopref evaluate` and in datasets, which number steps from 0.
    """
    success = bool(episode.success.any())
    return {
        "goal": episode.seed,
        "success": success,
        "success_step": int(episode.success.argmax()) + 1 if success else None,
        "steps": len(episode),
        "return": float(episode.rewards.sum()),
    }
