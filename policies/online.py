"""Learning while acting: one agent in one environment, from its reward, with evaluation on the way.

Comes from `robopref train policy=cir env=...`.  A killed run goes on from its last checkpoint to the very numbers that it would
have reached: every episode's start is a function of run seed and episode number, so an environment is brought back by starting
the episode again and repeating its actions, whatever the simulator hides.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from robopref.configs.checkpoint import (
    check_identity,
    count_of,
    load_tensors,
    pack_training,
    restore_rng,
    resuming,
    rng_state,
    save_tensors,
    unpack_training,
)
from robopref.configs.errors import RoboprefError
from robopref.configs.files import atomic_file, digest, plain
from robopref.configs.parallel import keep_freed_memory
from robopref.configs.policy import OnlineConfig, OnPolicyConfig, trained
from robopref.configs.progress import tell_end
from robopref.configs.run import MetricsLogger, choose_device, seed_everything, write_manifest
from robopref.configs.run_folder import MODEL, run_folder
from robopref.configs.stopping import Stopping
from robopref.embodied.control import ControlEnv, full_name, make_control
from robopref.policies import feedback
from robopref.policies.cir import CIR
from robopref.policies.experience import ROWS, Experience, ExperienceMemory, check_digest, check_witnesses
from robopref.policies.feedback import Feedback
from robopref.policies.graphs import Graphed
from robopref.policies.networks import Actor, save_policy
from robopref.policies.replay import Normaliser
from robopref.preference.hub import PREFIX, WEIGHTS, find_model
from robopref.preference.members import MemberLinear, member_rngs
from robopref.preference.prof.written import WrittenReward, check_columns, files_of
from robopref.preference.reward import LearnedReward, RewardFunction, reward_of

CHECKPOINT = "online-training"
EVALUATION = "evaluation.csv"
CODE = ".py"  # of a reward that is code
FIRST_EVALUATION = 1_000_000  # episode numbers from here on are evaluations'


class Run:
    """Agent, environment and experience, and where they are."""

    def __init__(self, config: OnlineConfig, device: torch.device) -> None:
        self.config, self.rng = config, np.random.default_rng(config.seed)
        self.env, self.testing = (make_control(config.env, config.action_repeat) for _ in range(2))
        obs_dim, action_dim = self.env.sizes
        self.agent = CIR(config.policy, obs_dim, action_dim, config.seed, device)
        graphed = config.policy.cuda_graph and device.type == "cuda"
        self.update = Graphed(self.learn, self.agent.noise) if graphed else self.learn
        self.feedback: Feedback | None = None
        self.reward: RewardFunction | None = None
        """What the agent learns from instead of the environment's own reward."""
        asked = config.reward in feedback.TEACHERS
        if asked:
            feedback.check(config.reward, config.feedback, self.env)
        elif config.reward != "true":
            self.reward = reward_at(config.reward, config.reward_member, config.env, (obs_dim, action_dim))
        self.memory = ExperienceMemory(
            config.out,
            config.env,
            obs_dim,
            action_dim,
            config.capacity,
            spare=config.checkpoint_every,
            most=config.frames // config.action_repeat,
        )
        if asked:
            self.reward = self.feedback = Feedback(config.reward, config.feedback, self.memory, self.env, config.out, config.seed)
        self.device, self.episode, self.ret = device, 0, 0.0
        self.actions: list[np.ndarray] = []
        """Of the present episode."""
        self.obs = self.start_episode()
        self.results: list[dict[str, float]] = []

    def learn(self, *batch: Tensor) -> dict[str, Tensor]:
        """One step of the agent on the parts of an Experience; metrics by name."""
        return self.agent.update(Experience(*batch))

    @property
    def modules(self) -> dict[str, nn.Module]:
        """Networks by the name they have in a checkpoint."""
        return self.agent.modules | ({} if self.feedback is None else {"reward": self.feedback.reward})

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """Optimisers likewise."""
        return self.agent.optimizers | ({} if self.feedback is None else {"reward": self.feedback.optimizer})

    def rewarded(self, number: int, action: np.ndarray, next_obs: np.ndarray) -> float:
        """What decision `number` is worth by the reward that is learnt from; RoboprefError that names it when that fails."""
        assert self.reward is not None
        try:
            return float(self.reward(self.obs[None], action[None], next_obs[None])[0])
        except RoboprefError as error:
            raise RoboprefError(f"{self.config.env}, decision {number}: {error}") from error

    def close(self) -> None:
        """End what runs beside."""
        if isinstance(self.reward, WrittenReward):
            self.reward.close()

    def start_episode(self) -> np.ndarray:
        """The first observation of the present episode."""
        obs = start(self.env, self.config.seed, self.episode)
        if self.feedback is not None:
            self.feedback.begin(*self.feedback.opening(self.env))
        return obs

    def decide(self, number: int) -> dict[str, float | Tensor]:
        """Act once and learn `repeats` times; metrics of the last update, and of an episode that ended."""
        config = self.config
        metrics: dict[str, float | Tensor] = {}
        if config.policy.standardise:
            self.agent.observe(self.obs)
        if number < config.warmup:
            action = self.explore()
        else:
            action = self.agent.act(self.obs)
        state = None if self.feedback is None else self.feedback.state(self.env)
        obs, true_reward, terminated, truncated, _ = self.env.step(action)
        reward = true_reward if self.reward is None else self.rewarded(number, action, obs)
        if self.feedback is not None and state is not None:
            self.feedback.add(state, true_reward)
        self.memory.add(self.obs, action, reward, terminated, obs)
        self.obs, self.ret = obs, self.ret + true_reward
        self.actions.append(action)
        if number >= config.warmup:
            batch = None
            for _ in range(config.policy.repeats):
                if batch is None or config.policy.fresh:
                    batch = self.memory.sample(self.rng, config.policy.batch, self.device)
                metrics |= self.update(*batch)
        if terminated or truncated:
            metrics["return"] = self.ret
            self.episode, self.actions, self.ret = self.episode + 1, [], 0.0
            self.obs = self.start_episode()
        return metrics

    def explore(self) -> np.ndarray:
        """A random action (da,), or the last one again: held for a geometric number of decisions, whose mean is `hold`."""
        hold = self.config.hold
        if hold == 1:
            return self.rng.uniform(-1, 1, self.agent.action_dim).astype(np.float32)
        if self.actions and self.rng.random() >= 1 / hold:
            return self.actions[-1]
        return np.clip(self.rng.uniform(-2, 2, self.agent.action_dim), -1, 1).astype(np.float32)

    def tested(self, frame: int) -> Callable[[np.ndarray], np.ndarray]:
        """What is evaluated at this frame: the agent as it acts when it does not explore."""
        return partial(self.agent.act, deterministic=True)

    def evaluate(self, frame: int) -> dict[str, float]:
        """A row of evaluation.csv, and its numbers as metrics."""
        told = judge(self.tested(frame), self.testing, self.config)
        self.results.append({"frame": frame} | told)
        with atomic_file(self.config.out / EVALUATION) as temp:
            pd.DataFrame(self.results).to_csv(temp, index=False, float_format="%.4f", lineterminator="\n")
        return {f"evaluation/{name}": value for name, value in told.items()}

    def save(self, path: Path, decided: int) -> None:
        """Everything that the next decision depends on; the experience itself is in its own file."""
        self.memory.flush()
        tensors, meta = rng_state(self.rng, self.agent.noise)
        packs = [pack_training(self.modules, self.optimizers)] + ([] if self.feedback is None else [self.feedback.pack()])
        for packed, packed_meta in packs:
            tensors |= packed
            meta |= packed_meta
        tensors["experience"] = torch.from_numpy(self.memory.witnessed())
        tensors["experience/sha256"] = self.memory.digest()
        tensors["actions"] = torch.from_numpy(np.array(self.actions, np.float32).reshape(-1, self.agent.action_dim))
        where = {"decided": decided, "episode": self.episode, "added": self.memory.added, "results": self.results}
        where["in_use"] = self.memory.in_use
        save_tensors(path, tensors, meta | where | {"kind": CHECKPOINT, "identity": identity(self.config)})

    def load(self, path: Path) -> int:
        """Go back to a checkpoint; the number of decisions made.  RoboprefError when it is of other settings."""
        tensors, meta = load_tensors(path, CHECKPOINT)
        with resuming(path):
            check_identity(path, meta["identity"], identity(self.config))
            unpack_training(self.modules, self.optimizers, tensors, meta, path)
            self.memory.added, self.memory.in_use = count_of(meta, "added"), count_of(meta, "in_use")
            check_witnesses(self.memory.witnessed(), tensors.get("experience"), self.memory.path)
            check_digest(self.memory.digest(), tensors.get("experience/sha256"), self.memory.path)
            if self.feedback is not None:
                self.feedback.unpack(tensors, meta)
            restore_rng(tensors, meta, self.rng, self.agent.noise)
            self.episode, self.results, decided = count_of(meta, "episode"), list(meta["results"]), count_of(meta, "decided")
            actions = tensors["actions"].view(-1, self.agent.action_dim).float().numpy()
        self.obs, self.actions, self.ret = start(self.env, self.config.seed, self.episode), [], 0.0
        for action in actions:
            self.obs, reward, *_ = self.env.step(action)
            self.ret += reward
            self.actions.append(action)
        return decided


def main(config: OnlineConfig) -> None:
    """`robopref train`, where agents learn while they act."""
    began = time.time()
    out = run(replace(config, env=full_name(config.env)))
    made = trained(config.policy, [config.seed])
    tell_end(out, began, made, "robopref", "evaluate", "--policy", str(out), "--out", str(out / "evaluation"))


def run(config: OnlineConfig, kind: type[Run] = Run) -> Path:
    """Learn for `frames`; return the run folder.  A finished run is kept, an interrupted one goes on.

    kind: a Run that keeps or evaluates something else on the way.
    """
    files = inputs(config)
    writes = (*MODEL, EVALUATION, ROWS)
    with run_folder(config.out, "train", config, files, overwrite=config.overwrite, writes=writes) as complete:
        if not complete:
            check(config)
            warn_of_warmup(config)
            finish(config, files, kind)
    return config.out


def check(config: OnlineConfig) -> None:
    """RoboprefError for settings that nothing can be learnt with."""
    if config.action_repeat < 1 or config.eval_every < config.action_repeat or config.frames < config.action_repeat:
        raise RoboprefError(
            f"action_repeat={config.action_repeat}, eval_every={config.eval_every}, frames={config.frames}: the first must be at "
            "least 1, and the others at least as large"
        )
    if config.hold < 1:
        raise RoboprefError(f"hold={config.hold}: an action is held for at least one decision, give a number from 1 on")
    if config.seed < 0:
        raise RoboprefError(f"seed={config.seed}: give a number from 0 on")


def warn_of_warmup(config: OnlineConfig) -> None:
    """Print to stderr when a run is over before its warm-up is, so that its policy stays as it was drawn."""
    decisions = config.frames // config.action_repeat
    if config.warmup >= decisions:
        print(
            f"warning: the warm-up, warmup={config.warmup} decisions, is not less than the run's {decisions} (frames="
            f"{config.frames}, action_repeat={config.action_repeat}): nothing will be learnt; set warmup= or frames=",
            file=sys.stderr,
        )


def finish(config: OnlineConfig, files: Mapping[str, Path], kind: type[Run]) -> None:
    """From the checkpoint on, if there is one, to a finished folder."""
    started = time.time()
    seed_everything(config.seed)
    try:
        prepare_processor(config.threads)
        agent = learn(config, checkpoint := config.out / "checkpoint.safetensors", kind)
    finally:
        torch.set_flush_denormal(False)  # whoever called may count on the smallest numbers
    save(config, agent)
    checkpoint.unlink(missing_ok=True)
    written = ["model.safetensors", EVALUATION]
    write_manifest(config.out, "train", config, files, config.seed, started, outputs=written, may_go=[ROWS])


def learn(config: OnlineConfig, checkpoint: Path, kind: type[Run] = Run) -> CIR:
    """Act and learn from the checkpoint on, if there is one, to the last frame; the agent."""
    with closing(kind(config, choose_device(config.device))) as state:
        live(state, checkpoint)
    return state.agent


def live(state: Run, checkpoint: Path) -> None:
    """Decision after decision."""
    config = state.config
    first = state.load(checkpoint) if checkpoint.exists() else 0
    last, repeat = config.frames // config.action_repeat, config.action_repeat
    metrics_log = MetricsLogger(config.out, first * repeat if first else -1, last * repeat)
    with metrics_log as logger, Stopping(config.checkpoint_every) as stopping:
        clock, since = time.perf_counter(), first
        for number in range(first, last):
            metrics, done = state.decide(number), number + 1
            if "return" in metrics:
                rate = (done - since) / (time.perf_counter() - clock)
                logger.log(
                    done * repeat,
                    {f"train/{k}": float(v) for k, v in metrics.items()} | {"charts/decisions_per_second": rate},
                )
                clock, since = time.perf_counter(), done
            asked = state.feedback is not None and state.feedback.due(done, config.warmup) and done < last
            if asked and state.feedback is not None:
                logger.log(done * repeat, state.feedback.ask())
            if done % (config.eval_every // repeat) == 0 or done == last:
                logger.log(done * repeat, state.evaluate(done * repeat))
            if (stopping.due(done) or asked) and done < last:  # asked: see experience.py
                state.save(checkpoint, done)
                stopping.leave(f"step {done * repeat} of {config.frames}", checkpoint)


def prepare_processor(threads: int) -> None:
    """Settings of the whole process while it learns, made before torch starts its threads, which inherit them.

    Adam's moments of a unit that no longer learns shrink to denormal numbers, and stay: rounding keeps the smallest from
    shrinking further.  With a tenth of them Adam takes five times as long; flushed to zero they cost nothing.
    """
    keep_freed_memory()
    torch.set_flush_denormal(True)
    torch.set_num_threads(threads)


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
        "action_repeat": config.action_repeat,
    }
    normaliser = agent.normaliser.now()
    save_policy(config.out, actor, Normaliser(normaliser.mean.cpu(), normaliser.std.cpu()), settings)


def judge(act: Callable[[np.ndarray], np.ndarray], env: ControlEnv, config: OnlineConfig) -> dict[str, float]:
    """Return, its standard deviation and the share of successes over `eval_episodes` starts that are a run's own.

    The return is the environment's, whatever the agent learns from.
    """
    returns, successes = [], []
    for number in range(config.eval_episodes):
        obs, done, ret, success = start(env, config.seed, FIRST_EVALUATION + number), False, 0.0, False
        while not done:
            obs, reward, terminated, truncated, info = env.step(act(obs))
            ret, done, success = ret + reward, terminated or truncated, success or bool(info.get("success", False))
        returns.append(ret)
        successes.append(success)
    return {"return": float(np.mean(returns)), "sd": float(np.std(returns)), "success": float(np.mean(successes))}


def reward_at(reference: str, member: int, env_id: str, dims: tuple[int, int]) -> LearnedReward | WrittenReward:
    """A learned reward or a file of code; RoboprefError when it is of another environment, as far as it or its sizes tell."""
    if Path(reference).suffix != CODE:
        return reward_of(reference, member, env_id, env_id, dims)
    reward = WrittenReward(reference, stays=True)
    known = len(reward.fields.obs), len(reward.fields.act)
    if known != dims:
        raise RoboprefError(
            f"{reference} is of {known[0]} numbers an observation and {known[1]} an action, {env_id} has {dims[0]} and "
            f"{dims[1]}: give the reward of this environment"
        )
    return reward


def inputs(config: OnlineConfig | OnPolicyConfig) -> dict[str, Path]:
    """The files that a run depends on; RoboprefError where a reward is not there, or code is of another environment."""
    if config.reward in feedback.TEACHERS:
        return feedback.inputs(config.reward, config.feedback)
    if config.reward == "true":
        return {}
    path = Path(config.reward)
    if path.suffix == CODE:
        check_columns(path, config.env)
        return files_of(path)
    if not config.reward.startswith(PREFIX) and not path.is_dir():
        raise RoboprefError(
            f"reward={config.reward}: no such folder; give true, vlp, bradley_terry, RUN/reward of a run of policy=piql, "
            f"{PREFIX}OWNER/NAME, or code, FILE.py"
        )
    return {"reward": find_model(config.reward, "reward") / WEIGHTS}


def start(env: ControlEnv, seed: int, episode: int) -> np.ndarray:
    """The first observation of an episode."""
    return env.reset(seed=int(np.random.default_rng([seed, episode]).integers(2**31)))[0]


def identity(config: OnlineConfig) -> dict[str, Any]:
    """What must not change when a run goes on."""
    settings = {key: value for key, value in plain(config).items() if key not in ("out", "overwrite", "threads", "device")}
    return settings | {name: digest(path) for name, path in inputs(config).items()}
