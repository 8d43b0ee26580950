"""Stable-Baselines3's SAC and PPO under the conditions of our own agents: the peers of tables, same starts, same measure.

Comes beside policies/online.py and policies/onpolicy.py, whose episodes they share; goes to their studies.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import torch

from robopref.configs.policy import OnlineConfig, OnPolicyConfig
from robopref.embodied.control import ControlEnv, make_control
from robopref.embodied.switching import SwitchingEnv
from robopref.policies.online import judge, start
from robopref.policies.onpolicy import EPISODE


class SameStarts(gym.Wrapper[Any, Any, Any, Any]):
    """Episode after episode begins where `online.Run` begins it, whoever resets."""

    def __init__(self, env: ControlEnv, seed: int) -> None:
        super().__init__(env)
        self._seed, self._episode = seed, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """The next episode; the seed given is not used."""
        env = self.env
        assert isinstance(env, ControlEnv)
        self._episode += 1
        return start(env, self._seed, self._episode - 1), {}


def evaluations(config: OnlineConfig) -> pd.DataFrame:
    """The rows of evaluation.csv of SAC with stable-baselines3's networks and settings; frames, warm-up, seed from `config`."""
    from stable_baselines3 import SAC

    torch.set_num_threads(config.threads)
    policy, repeat = config.policy, config.action_repeat
    model = SAC(
        "MlpPolicy",
        SameStarts(make_control(config.env, repeat), config.seed),
        learning_rate=policy.learning_rate,
        buffer_size=min(config.capacity, config.frames // repeat),
        learning_starts=config.warmup,
        batch_size=policy.batch,
        tau=policy.polyak,
        gamma=policy.discount,
        gradient_steps=policy.repeats,
        seed=config.seed,
        device=config.device if config.device != "auto" else "cpu",
        policy_kwargs={"net_arch": [policy.width] * 2},
    )
    testing = make_control(config.env, repeat)
    rows: list[dict[str, Any]] = []

    def act(obs: np.ndarray) -> np.ndarray:
        return np.asarray(model.predict(obs, deterministic=True)[0])

    for frame in [*range(config.eval_every, config.frames, config.eval_every), config.frames]:
        decided = rows[-1]["frame"] // repeat if rows else 0
        model.learn(frame // repeat - decided, reset_num_timesteps=not rows)
        rows.append({"frame": frame} | judge(act, testing, config))
    return pd.DataFrame(rows)


class SameLives(gym.Wrapper[Any, Any, Any, Any]):
    """One environment of a Fleet for whoever resets: its starts, its phases; what ended is noted as the fleet notes it."""

    def __init__(self, config: OnPolicyConfig, place: tuple[int, int], notes: list[tuple[float, ...]]) -> None:
        super().__init__(SwitchingEnv(config.env, config.action_repeat, config.switch))
        self._place, self._notes, self._episode, self._taken = place, notes, 0, 0
        self._each, self._switch = config.policy.envs * config.action_repeat, config.switch
        self._steps = config.policy.steps

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """The next episode; the seed given is not used."""
        world = self.env
        assert isinstance(world, SwitchingEnv)
        if self._switch.kind != "none":  # as an agent of ours counts: by whole iterations
            world.enter(self._taken // self._steps * self._steps * self._each // self._switch.every)
        start = np.random.default_rng([*self._place, self._episode]).integers(2**31)
        self._episode, self._return, self._length, self._success = self._episode + 1, 0.0, 0, False
        return world.reset(seed=int(start))

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the environment's own."""
        world = self.env
        assert isinstance(world, SwitchingEnv)
        obs, reward, terminated, truncated, info = world.step(action)
        self._taken, self._return, self._length = self._taken + 1, self._return + float(reward), self._length + 1
        self._success |= bool(info.get("success", False))
        if terminated or truncated:
            iterations = -(-self._taken // self._steps)
            frame = iterations * self._steps * self._each
            self._notes.append((frame, self._place[0], world.phase, self._length, float(self._success), self._return))
        return obs, reward, terminated, truncated, info


def lives(config: OnPolicyConfig) -> pd.DataFrame:
    """episodes.csv of PPO with stable-baselines3's networks and VecNormalize, one member after the other."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    torch.set_num_threads(config.threads)
    policy, notes = config.policy, list[tuple[float, ...]]()
    each = policy.steps * policy.envs
    for seed in config.seeds:
        worlds: list[Callable[[], gym.Env[Any, Any]]] = [
            partial(SameLives, config, (seed, copy), notes) for copy in range(policy.envs)
        ]
        model = PPO(
            "MlpPolicy",
            VecNormalize(DummyVecEnv(worlds), gamma=policy.discount),
            learning_rate=policy.learning_rate,
            n_steps=policy.steps,
            batch_size=policy.minibatch,
            n_epochs=policy.epochs,
            gamma=policy.discount,
            gae_lambda=policy.gae_lambda,
            clip_range=policy.clip,
            ent_coef=policy.entropy,
            vf_coef=policy.value_weight,
            max_grad_norm=policy.max_norm,
            policy_kwargs={"net_arch": list(policy.hidden), "log_std_init": policy.log_std},
            seed=seed,
            device="cpu",
        )
        model.learn(-(-config.frames // (each * config.action_repeat)) * each)
    return pd.DataFrame(notes, columns=EPISODE)
