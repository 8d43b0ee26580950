"""Stable-Baselines3's SAC under the conditions of our own agents: the peer of tables, same starts, same evaluation.

Comes beside policies/online.py, whose episodes and evaluations it shares; goes to policies/online_study.py.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import torch

from robopref.configs.policy import OnlineConfig
from robopref.embodied.control import ControlEnv, make_control
from robopref.policies.online import judge, start


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
