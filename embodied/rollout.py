"""Rolling out: one policy, one environment, one `Episode` with every simulator state, so that pixels can be made later."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robopref.configs.errors import RoboprefError
from robopref.embodied import simstate
from robopref.embodied.envs import MetaWorldEnv
from robopref.embodied.experts import Act

LEVELS = ("expert", "medium", "random", "wandering", "mismatched", "foreign")


@dataclass(frozen=True)
class Episode:
    """What happened from one reset on; T actions lie between T + 1 observations."""

    observations: np.ndarray  # (T + 1, do) float64
    actions: np.ndarray  # (T, da) float32, in [-1, 1]
    rewards: np.ndarray  # (T,) float64, the environment's own
    success: np.ndarray  # (T,) bool, at this very step
    near_object: np.ndarray  # (T,) float64, Meta-World's info of that name
    sim_dynamic: np.ndarray  # (T + 1, S) float64, see simstate.py
    sim_static: np.ndarray  # (K,) float64
    env_id: str
    level: str
    seed: int
    policy: str

    def __len__(self) -> int:
        return len(self.actions)

    def cut(self, steps: int, level: str) -> Episode:
        """The first `steps` steps as an episode of their own, called `level`."""
        return Episode(
            observations=self.observations[: steps + 1],
            actions=self.actions[:steps],
            rewards=self.rewards[:steps],
            success=self.success[:steps],
            near_object=self.near_object[:steps],
            sim_dynamic=self.sim_dynamic[: steps + 1],
            sim_static=self.sim_static,
            env_id=self.env_id,
            level=level,
            seed=self.seed,
            policy=f"{self.policy}, cut after {steps} steps",
        )


def rollout(
    env: MetaWorldEnv, act: Act, *, seed: int, level: str, policy: str, max_steps: int = 500, linger: int = 25
) -> Episode:
    """Run `act` from the start that `seed` draws until `linger` steps after the first success, at most `max_steps`.

    CPL's offline data end 25 steps after success; without a limit every expert clip would be mostly standing still.
    """
    observation, _ = env.reset(seed=seed)
    static = simstate.save_static(env)
    observations, dynamics = [observation], [simstate.save_dynamic(env)]
    actions, rewards, success, near_object = [], [], [], []
    stop = max_steps
    for step in range(max_steps):
        action = act(observation).astype(np.float32)
        observation, reward, _, truncated, info = env.step(action)
        if not np.isfinite(observation).all():
            raise RoboprefError(
                f"{env.env_id}, seed {seed}: the simulation became unstable at step {step}; collect with another --seed."
            )
        observations.append(observation)
        dynamics.append(simstate.save_dynamic(env))
        actions.append(action)
        rewards.append(float(reward))
        success.append(bool(info["success"]))
        near_object.append(float(info["near_object"]))
        if success[-1]:
            stop = min(stop, step + 1 + linger)
        if truncated or step + 1 >= stop:
            break
    return Episode(
        observations=np.stack(observations),
        actions=np.stack(actions),
        rewards=np.asarray(rewards),
        success=np.asarray(success),
        near_object=np.asarray(near_object),
        sim_dynamic=np.stack(dynamics),
        sim_static=static,
        env_id=env.env_id,
        level=level,
        seed=seed,
        policy=policy,
    )
