"""Learning while acting: one agent in one environment, from its reward, with evaluation on the way.

Comes from `robopref train policy=cir env=...`.  A killed run goes on from its last checkpoint to the very numbers that it would
have reached: every episode's start is a function of run seed and episode number, so an environment is brought back by starting
the episode again and repeating its actions, whatever the simulator hides.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from robopref.configs.checkpoint import (
    check_identity,
    load_tensors,
    pack_training,
    restore_rng,
    rng_state,
    save_tensors,
    unpack_training,
)
from robopref.configs.errors import RoboprefError
from robopref.configs.files import MANIFEST, atomic_file, plain
from robopref.configs.policy import OnlineConfig
from robopref.configs.run import MetricsLogger, choose_device, is_complete, seed_everything, write_manifest
from robopref.embodied.control import ControlEnv, make_control
from robopref.policies.cir import CIR
from robopref.policies.experience import ExperienceMemory
from robopref.policies.networks import Actor, save_policy
from robopref.policies.replay import Normaliser
from robopref.preference.members import MemberLinear, member_rngs

CHECKPOINT = "online-training"
EVALUATION = "evaluation.csv"
FIRST_EVALUATION = 1_000_000  # episode numbers from here on are evaluations'


class Run:
    """Agent, environment and experience, and where they are."""

    def __init__(self, config: OnlineConfig, device: torch.device) -> None:
        self.config, self.rng = config, np.random.default_rng(config.seed)
        self.env, self.judge = (make_control(config.env, config.action_repeat) for _ in range(2))
        obs_dim, action_dim = self.env.sizes
        self.agent = CIR(config.policy, obs_dim, action_dim, config.seed, device)
        self.memory = ExperienceMemory(
            config.out, config.env, obs_dim, action_dim, config.capacity, spare=config.checkpoint_every
        )
        self.device, self.episode, self.ret = device, 0, 0.0
        self.actions: list[np.ndarray] = []
        """Of the present episode."""
        self.obs = start(self.env, config.seed, 0)
        self.results: list[dict[str, float]] = []

    def decide(self, number: int) -> dict[str, float | Tensor]:
        """Act once and learn `repeats` times; metrics of the last update, and of an episode that ended."""
        config = self.config
        metrics: dict[str, float | Tensor] = {}
        if number < config.warmup:
            action = self.rng.uniform(-1, 1, self.agent.action_dim).astype(np.float32)
        else:
            action = self.agent.act(self.obs)
        obs, reward, terminated, truncated, _ = self.env.step(action)
        self.memory.add(self.obs, action, reward, terminated, obs)
        self.obs, self.ret = obs, self.ret + reward
        self.actions.append(action)
        if number >= config.warmup:
            batch = None
            for _ in range(config.policy.repeats):
                if batch is None or config.policy.fresh:
                    batch = self.memory.sample(self.rng, config.policy.batch, self.device)
                metrics |= self.agent.update(batch)
        if terminated or truncated:
            metrics["return"] = self.ret
            self.episode, self.actions, self.ret = self.episode + 1, [], 0.0
            self.obs = start(self.env, config.seed, self.episode)
        return metrics

    def evaluate(self, frame: int) -> None:
        """Returns of `eval_episodes` deterministic episodes, as a row of evaluation.csv."""
        returns, successes = [], []
        for number in range(self.config.eval_episodes):
            obs, done, ret, success = start(self.judge, self.config.seed, FIRST_EVALUATION + number), False, 0.0, False
            while not done:
                obs, reward, terminated, truncated, info = self.judge.step(self.agent.act(obs, deterministic=True))
                ret, done, success = ret + reward, terminated or truncated, success or bool(info.get("success", False))
            returns.append(ret)
            successes.append(success)
        row = {
            "frame": frame,
            "return": float(np.mean(returns)),
            "sd": float(np.std(returns)),
            "success": float(np.mean(successes)),
        }
        self.results.append(row)
        with atomic_file(self.config.out / EVALUATION) as temp:
            pd.DataFrame(self.results).to_csv(temp, index=False, float_format="%.4f", lineterminator="\n")

    def save(self, path: Path, decided: int) -> None:
        """Everything that the next decision depends on; the experience itself is in its own file."""
        self.memory.flush()
        tensors, meta = rng_state(self.rng, self.agent.noise)
        packed, packed_meta = pack_training(self.agent.modules, self.agent.optimizers)
        tensors |= packed
        meta |= packed_meta
        tensors["actions"] = torch.from_numpy(np.array(self.actions, np.float32).reshape(-1, self.agent.action_dim))
        where = {"decided": decided, "episode": self.episode, "added": self.memory.added, "results": self.results}
        save_tensors(path, tensors, meta | where | {"kind": CHECKPOINT, "identity": identity(self.config)})

    def load(self, path: Path) -> int:
        """Go back to a checkpoint; the number of decisions made.  RoboprefError when it is of other settings."""
        tensors, meta = load_tensors(path, CHECKPOINT)
        check_identity(path, meta["identity"], identity(self.config))
        unpack_training(self.agent.modules, self.agent.optimizers, tensors, meta, path)
        restore_rng(tensors, meta, self.rng, self.agent.noise)
        self.episode, self.memory.added, self.results = meta["episode"], meta["added"], meta["results"]
        self.obs, self.actions, self.ret = start(self.env, self.config.seed, self.episode), [], 0.0
        for action in tensors["actions"].numpy():
            self.obs, reward, *_ = self.env.step(action)
            self.ret += reward
            self.actions.append(action)
        return int(meta["decided"])


def run(config: OnlineConfig) -> Path:
    """Learn for `frames`; return the run folder.  A finished run is kept, an interrupted one goes on."""
    if is_complete(config.out, config, {}):
        return config.out
    if config.action_repeat < 1 or config.eval_every < config.action_repeat or config.frames < config.action_repeat:
        raise RoboprefError(
            f"action_repeat={config.action_repeat}, eval_every={config.eval_every}, frames={config.frames}: the first must be at "
            "least 1, and the others at least as large"
        )
    if config.seed < 0:
        raise RoboprefError(f"seed={config.seed}: give a number from 0 on")
    started = time.time()
    (config.out / MANIFEST).unlink(missing_ok=True)
    seed_everything(config.seed)
    torch.set_num_threads(config.threads)
    state = Run(config, choose_device(config.device))
    checkpoint = config.out / "checkpoint.safetensors"
    first = state.load(checkpoint) if checkpoint.exists() else 0
    last, repeat = config.frames // config.action_repeat, config.action_repeat
    with MetricsLogger(config.out, resume_step=first * repeat if first else -1) as logger:
        clock, since = time.perf_counter(), first
        for number in range(first, last):
            metrics, done = state.decide(number), number + 1
            if "return" in metrics:
                rate = (done - since) / (time.perf_counter() - clock)
                logger.log(
                    done * repeat, {f"train/{k}": float(v) for k, v in metrics.items()} | {"charts/decisions_per_second": rate}
                )
                clock, since = time.perf_counter(), done
            if done % (config.eval_every // repeat) == 0 or done == last:
                state.evaluate(done * repeat)
            if done % config.checkpoint_every == 0 and done < last:
                state.save(checkpoint, done)
    save(config, state.agent)
    checkpoint.unlink(missing_ok=True)
    write_manifest(config.out, "train", config, {}, config.seed, started, outputs=["model.safetensors", EVALUATION])
    return config.out


def save(config: OnlineConfig, agent: CIR) -> None:
    """The policy as `robopref train` leaves all policies (networks.py): what it does when it does not explore."""
    weights, names = agent.actor.weights, ("d0", "d1", "out")
    obs_dim, hidden = weights["d0.weight"].shape[1], [config.policy.width] * 2
    actor = Actor(member_rngs([config.seed], "weights"), obs_dim, agent.action_dim, hidden)
    with torch.no_grad():
        for layer, name in zip(actor.mlp.layers, names, strict=True):
            assert isinstance(layer, MemberLinear)
            outputs = layer.bias.shape[-1]  # of the last layer the means, without the deviations
            layer.weight.copy_(weights[f"{name}.weight"][..., :outputs])
            layer.bias.copy_(weights[f"{name}.bias"][..., :outputs])
    settings = {
        "policy": plain(config.policy) | {"hidden": hidden, "actor": "deterministic"},
        "seeds": [config.seed],
        "env": config.env,
    }
    save_policy(config.out, actor, Normaliser(torch.zeros(obs_dim), torch.ones(obs_dim)), settings)


def start(env: ControlEnv, seed: int, episode: int) -> np.ndarray:
    """The first observation of an episode."""
    return env.reset(seed=int(np.random.default_rng([seed, episode]).integers(2**31)))[0]


def identity(config: OnlineConfig) -> dict[str, Any]:
    """What must not change when a run goes on."""
    return {key: value for key, value in plain(config).items() if key not in ("out", "threads", "device")}
