"""Learning from what the present policy meets: S members, each in its own copies of one world, iteration by iteration.

Comes from `robopref train policy=gtr env=... switch=...`; goes to evaluation and video.  An iteration is T decisions in every
environment, and then some passes over them.  A killed run goes on from its last checkpoint to the very numbers of an
uninterrupted one.

Axes: S members, E environments a member, T decisions an iteration, do and da numbers in an observation and an action.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from robopref.configs.checkpoint import (
    check_identity,
    count_of,
    load_tensors,
    pack_training,
    resuming,
    save_tensors,
    unpack_training,
)
from robopref.configs.errors import RoboprefError
from robopref.configs.files import atomic_file, digest, plain
from robopref.configs.policy import OnPolicyConfig, trained
from robopref.configs.progress import tell_end
from robopref.configs.run import MetricsLogger, seed_everything, write_manifest
from robopref.configs.run_folder import MODEL, run_folder
from robopref.configs.stopping import Stopping
from robopref.embodied.control import full_name, make_control
from robopref.embodied.fleet import ENDED, Fleet, Opening
from robopref.policies import feedback as asking
from robopref.policies.experience import ExperienceMemory, check_witnesses
from robopref.policies.feedback import Feedback
from robopref.policies.gtr import GTR, Rollout
from robopref.policies.networks import Actor, save_policy
from robopref.policies.online import inputs, prepare_processor, reward_at
from robopref.policies.replay import MIN_STD, Normaliser
from robopref.preference.members import MemberLinear, member_rngs
from robopref.preference.prof.written import WrittenReward
from robopref.preference.reward import RewardFunction

CHECKPOINT = "on-policy-training"
EPISODES = "episodes.csv"
EPISODE = ["frame", *ENDED]
LARGEST = 10.0  # of a standardised observation or reward, as Stable-Baselines3's VecNormalize


class Moments:
    """Count, mean and variance of all that each member has met, (S, d) (parts put together as Chan et al. do)."""

    def __init__(self, members: int, size: int) -> None:
        self.count, self.mean, self.var = np.zeros(()), np.zeros((members, size)), np.ones((members, size))

    def add(self, x: np.ndarray) -> None:
        """More of it, (S, N, d)."""
        share = x.shape[1] / (self.count + x.shape[1])
        delta = x.mean(1) - self.mean
        self.var = self.var * (1 - share) + x.var(1) * share + delta**2 * share * (1 - share)
        self.mean = self.mean + delta * share
        self.count = self.count + x.shape[1]

    @property
    def std(self) -> np.ndarray:
        """(S, d); what hardly moves is divided by MIN_STD."""
        return np.sqrt(self.var).clip(MIN_STD)


class Met(NamedTuple):
    """What one iteration met, before it is judged."""

    obs: np.ndarray  # (T, S, E, do)
    actions: np.ndarray  # (T, S, E, da), as the policy drew them
    acted: np.ndarray  # (T, S, E, da), as the environments took them
    next_obs: np.ndarray  # (T, S, E, do), of an episode that ended its last one
    rewards: np.ndarray  # (T, S, E)
    terminated: np.ndarray  # (T, S, E)
    done: np.ndarray  # (T, S, E)
    states: np.ndarray  # (T, S, E, K), see Board


class Run:
    """Agent and environments, and where they are."""

    def __init__(self, config: OnPolicyConfig) -> None:
        self.config, seeds = config, config.seeds
        filmed = config.reward == "vlp"
        self.fleet = Fleet(config.env, config.action_repeat, config.switch, seeds, config.policy.envs, config.processes, filmed)
        self.agent = GTR(config.policy, *self.fleet.sizes, seeds)
        self.rewards: list[RewardFunction] = []
        """What each member learns from instead of the environment's own reward."""
        self.feedback: list[Feedback] = []
        if config.reward in asking.TEACHERS:
            self.feedback = [asker(config, seed, self.fleet.sizes) for seed in seeds]
            self.rewards = [*self.feedback]
        elif config.reward != "true":
            self.rewards = [reward_at(config.reward, config.reward_member, config.env, self.fleet.sizes)] * len(seeds)
        self.rngs = member_rngs(seeds, "acting")
        self.observations, self.gains = Moments(len(seeds), self.fleet.sizes[0]), Moments(len(seeds), 1)
        self.backwards = np.zeros(self.fleet.shape)
        """Rewards of the present episodes, discounted into the past: their deviation is the scale of rewards."""
        self.iteration = 0
        self.episodes: list[tuple[float, ...]] = []
        """Those that ended, as EPISODE names them."""
        self.begun: dict[tuple[int, ...], Opening] = {}
        """Of this iteration: number of the decision, member, copy -> how the episode began that begins there, or goes on."""

    def close(self) -> None:
        """End what runs beside."""
        for reward in self.rewards:
            if isinstance(reward, WrittenReward):
                reward.close()

    @property
    def frames(self) -> int:
        """Of each member, so far."""
        return self.iteration * self.config.policy.steps * self.config.policy.envs * self.config.action_repeat

    def iterate(self) -> dict[str, float]:
        """Act, judge, learn; metrics, means over members."""
        config, policy = self.config, self.config.policy
        if config.switch.kind != "none":
            self.fleet.enter(self.frames // config.switch.every)
        if self.feedback:
            places = zip(np.ndindex(self.fleet.shape), self.fleet.openings(), strict=True)
            self.begun = {(0, *place): opening for place, opening in places}
        met = self.act()
        rewards = self.rewarded(met) if self.rewards else met.rewards
        asked = self.ask(met, rewards) if self.feedback else {}
        if policy.normalise:
            rewards = self.scaled(rewards, met.done)
        seen = self.shown(of_members(met.obs))
        outputs, values = self.agent.net.both(seen)
        _, next_values = self.agent.net.both(self.shown(of_members(met.next_obs)))
        before, after = (of_time(part, len(met.obs)) for part in (values, next_values))
        advantages = gae(rewards, before, after, met.terminated, met.done, policy.discount, policy.gae_lambda)
        actions = of_members(met.actions)
        log_prob = self.agent.policy(outputs, self.agent.net.log_std).log_prob(actions)
        gained, returns = (of_members(part).astype(np.float32) for part in (advantages, advantages + before))
        taught = not self.feedback or len(self.feedback[0]) > 0
        metrics = self.agent.learn(Rollout(seen, actions, log_prob, gained, returns)) if taught else {}
        if policy.normalise:
            self.observations.add(of_members(met.obs))
        self.iteration += 1
        self.episodes += [(self.frames, *episode) for episode in self.fleet.take()]
        return {f"losses/{name}": float(value.mean()) for name, value in metrics.items()} | asked

    def act(self) -> Met:
        """T decisions of everybody."""
        agent, policy = self.agent, self.config.policy
        copies = self.fleet.shape[1]
        noise = np.stack([agent.noise(rng, (policy.steps, copies)) for rng in self.rngs], 1)
        steps = []
        for number, drawn in enumerate(noise):
            obs = self.fleet.obs.copy()
            actions = agent.policy(*agent.net.act(self.shown(obs))).sample(drawn)
            acted = agent.acted(actions)
            step = self.fleet.step(acted)
            steps.append((obs, actions, acted, *step))
            if self.feedback and step.done.any():  # others have begun
                now = self.fleet.openings()
                self.begun |= {
                    (number + 1, member, copy): now[member * copies + copy] for member, copy in np.argwhere(step.done).tolist()
                }
        return Met(*(np.stack(parts) for parts in zip(*steps, strict=True)))

    def shown(self, obs: np.ndarray) -> np.ndarray:
        """Observations (S, N, do) as the networks see them, by the moments of all earlier iterations."""
        if self.config.policy.normalise and self.iteration > 0:
            moments = self.observations
            obs = ((obs - moments.mean[:, None]) / moments.std[:, None]).clip(-LARGEST, LARGEST)
        return obs.astype(np.float32)

    def scaled(self, rewards: np.ndarray, done: np.ndarray) -> np.ndarray:
        """Rewards (T, S, E) over the deviation of their discounted sums so far, as VecNormalize; sums go on over iterations."""
        sums = np.empty_like(rewards)
        for number, reward in enumerate(rewards):
            sums[number] = self.backwards = self.backwards * self.config.policy.discount + reward
            self.backwards = np.where(done[number], 0.0, self.backwards)
        self.gains.add(of_members(sums[..., None]))
        return (rewards / self.gains.std[:, 0, None]).clip(-LARGEST, LARGEST)

    def rewarded(self, met: Met) -> np.ndarray:
        """The learnt rewards (T, S, E) of what was met."""
        said = np.empty_like(met.rewards)
        for member, reward in enumerate(self.rewards):
            flat = (part[:, member].reshape(-1, part.shape[-1]) for part in (met.obs, met.acted, met.next_obs))
            said[:, member] = np.asarray(reward(*flat)).reshape(said[:, member].shape)
        if not np.isfinite(said).all():
            raise RoboprefError(f"iteration {self.iteration}: the reward is not finite; look at the reward function")
        return said

    def ask(self, met: Met, rewards: np.ndarray) -> dict[str, float]:
        """Show what was met to those who ask, and let them, when it is time; metrics, means over members.

        What one environment met in an iteration is remembered in one piece; an episode that goes on is to them another one, with
        the same beginning.
        """
        config, (steps, _, copies) = self.config, met.rewards.shape
        decided, told = (self.iteration + 1) * steps * copies, []
        for member, feedback in enumerate(self.feedback):
            for copy, number in product(range(copies), range(steps)):
                at = number, member, copy
                if at in self.begun:
                    feedback.begin(*self.begun[at])
                feedback.add(met.states[at], met.rewards[at])
                feedback.memory.add(met.obs[at], met.acted[at], rewards[at], met.terminated[at], met.next_obs[at])
            before, after = (
                max(-1, (count - config.warmup) // config.feedback.every) for count in (decided - steps * copies, decided)
            )
            if after > before and len(feedback) < config.feedback.most:
                told.append(feedback.ask())
        return {name: float(np.mean([one[name] for one in told])) for name in told[0]} if told else {}

    def save(self, path: Path) -> None:
        """Everything that the next iteration depends on."""
        agent = self.agent
        adam, (actions, where) = agent.optimizer, self.fleet.pack()
        episodes = np.array(self.episodes, np.float64).reshape(-1, len(EPISODE))
        arrays: dict[str, np.ndarray] = {"values": agent.net.values, "adam.first": adam.first, "adam.second": adam.second}
        arrays["sigma"] = agent.sigma
        arrays |= {"actions": actions, "backwards": self.backwards, "episodes": episodes}
        for name, moments in (("observations", self.observations), ("gains", self.gains)):
            arrays |= {f"{name}.count": moments.count, f"{name}.mean": moments.mean, f"{name}.var": moments.var}
        arrays |= {f"anchor.{age}": anchor for age, anchor in enumerate(agent.anchors)}
        rngs = {"acting": self.rngs, "minibatches": agent.rngs}
        states = {name: [rng.bit_generator.state for rng in kind] for name, kind in rngs.items()}
        tensors = {name: torch.from_numpy(np.asarray(value)) for name, value in arrays.items()}
        meta: dict[str, Any] = {"kind": CHECKPOINT, "identity": identity(self.config), "fleet": where, "rngs": states}
        meta |= {"iteration": self.iteration, "adam": adam.count}
        for member, feedback in enumerate(self.feedback):
            packed, packed_meta = pack_training({"reward": feedback.reward}, {"reward": feedback.optimizer})
            others, others_meta = feedback.pack()
            feedback.memory.flush()
            where_it_was = {"added": feedback.memory.added, "in_use": feedback.memory.in_use}
            experience = {"experience": torch.from_numpy(feedback.memory.witnessed())}
            tensors |= {f"member {member}/{name}": value for name, value in (packed | others | experience).items()}
            meta[f"member {member}"] = packed_meta | others_meta | where_it_was
        save_tensors(path, tensors, meta)

    def load(self, path: Path) -> None:
        """Go back to a checkpoint; RoboprefError when it is of other settings."""
        agent = self.agent
        tensors, meta = load_tensors(path, CHECKPOINT)
        with resuming(path):
            check_identity(path, meta["identity"], identity(self.config))
            arrays, adam = {name: value.numpy() for name, value in tensors.items()}, agent.optimizer
            agent.net.values[:], adam.first, adam.second = arrays["values"], arrays["adam.first"], arrays["adam.second"]
            adam.count, agent.sigma = count_of(meta, "adam"), arrays["sigma"]
            self.backwards = arrays["backwards"]
            self.episodes = [tuple(row) for row in arrays["episodes"].tolist()]
            for name, moments in (("observations", self.observations), ("gains", self.gains)):
                moments.count, moments.mean, moments.var = (arrays[f"{name}.{part}"] for part in ("count", "mean", "var"))
            agent.anchors = [arrays[f"anchor.{age}"] for age in range(sum(name.startswith("anchor.") for name in arrays))]
            for name, kind in (("acting", self.rngs), ("minibatches", agent.rngs)):
                for rng, state in zip(kind, meta["rngs"][name], strict=True):
                    rng.bit_generator.state = state
            for member, feedback in enumerate(self.feedback):
                prefix, own_meta = f"member {member}/", meta[f"member {member}"]
                own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
                unpack_training({"reward": feedback.reward}, {"reward": feedback.optimizer}, own, own_meta, path)
                feedback.memory.added, feedback.memory.in_use = count_of(own_meta, "added"), count_of(own_meta, "in_use")
                check_witnesses(feedback.memory.witnessed(), own.get("experience"), feedback.memory.path)
                feedback.unpack(own, own_meta)
            actions, fleet = arrays["actions"], [(int(episode), int(phase), int(n)) for episode, phase, n in meta["fleet"]]
            if [len(fleet), sum(n for *_, n in fleet)] != [int(np.prod(self.fleet.shape)), len(actions)]:
                raise ValueError("actions of other environments")
            self.iteration = count_of(meta, "iteration")
        self.fleet.unpack(actions, fleet)


def main(config: OnPolicyConfig) -> None:
    """`robopref train`, where agents learn from what their present policy meets."""
    began = time.time()
    out = run(replace(config, env=full_name(config.env)))
    made = trained(config.policy, config.seeds)
    tell_end(out, began, made, "robopref", "evaluate", "--policy", str(out), "--out", str(out / "evaluation"))


def run(config: OnPolicyConfig) -> Path:
    """Learn for `frames`; return the run folder.  A finished run is kept, an interrupted one goes on."""
    files = inputs(config)
    writes = (*MODEL, EPISODES)
    with run_folder(config.out, "train", config, files, overwrite=config.overwrite, writes=writes) as complete:
        if not complete:
            check(config)
            finish(config, files)
    return config.out


def finish(config: OnPolicyConfig, files: Mapping[str, Path]) -> None:
    """From the checkpoint on, if there is one, to a finished folder."""
    started = time.time()
    seed_everything(config.seeds[0])
    try:
        prepare_processor(config.threads)
        state = learn(config, checkpoint := config.out / "checkpoint.safetensors")
    finally:
        torch.set_flush_denormal(False)  # whoever called may count on the smallest numbers
    save(state)
    checkpoint.unlink(missing_ok=True)
    write_manifest(config.out, "train", config, files, config.seeds, started, outputs=["model.safetensors", EPISODES])


def asker(config: OnPolicyConfig, seed: int, sizes: tuple[int, int]) -> Feedback:
    """Who asks the teacher on behalf of one member, with a memory of its own."""
    folder, env = config.out / f"feedback-{seed}", make_control(config.env, config.action_repeat)
    capacity = -(-config.frames // config.action_repeat)
    spare = config.checkpoint_every * config.policy.steps * config.policy.envs
    memory = ExperienceMemory(folder, config.env, *sizes, capacity, spare, most=capacity)
    return Feedback(config.reward, config.feedback, memory, env, folder, seed)


def check(config: OnPolicyConfig) -> None:
    """RoboprefError for settings that nothing can be learnt with."""
    if not config.seeds or min(config.seeds) < 0 or len(set(config.seeds)) < len(config.seeds):
        raise RoboprefError(f"seeds={list(config.seeds)}: give different numbers from 0 on, for example seeds=[0,1,2]")
    least = {"frames": config.frames, "action_repeat": config.action_repeat, "checkpoint_every": config.checkpoint_every}
    least |= {"processes": config.processes}
    for name in ("envs", "steps", "epochs", "minibatch", "anchors", "anchor_every"):
        least[f"policy.{name}"] = getattr(config.policy, name)
    least |= {"switch.every": config.switch.every}
    for name, value in least.items():
        if value < 1:
            raise RoboprefError(f"{name}={value}: must be at least 1")
    if config.reward in asking.TEACHERS:
        asking.check(config.reward, config.feedback, make_control(config.env, config.action_repeat))


def learn(config: OnPolicyConfig, checkpoint: Path) -> Run:
    """Act and learn from the checkpoint on, if there is one, to the last iteration."""
    state = Run(config)
    with state.fleet, closing(state):
        if checkpoint.exists():
            state.load(checkpoint)
        live(state, checkpoint)
    return state


def live(state: Run, checkpoint: Path) -> None:
    """Iteration after iteration."""
    config, first = state.config, state.frames
    with MetricsLogger(config.out, first or -1, config.frames) as logger, Stopping(config.checkpoint_every) as stopping:
        while state.frames < config.frames:
            clock, before, known = time.perf_counter(), state.frames, len(state.episodes)
            with np.errstate(over="ignore", invalid="ignore"):  # what they would warn of is told below, in one line
                metrics = state.iterate()
            if not np.isfinite(state.agent.net.values).all():
                raise RoboprefError(f"{config.out}: its weights became NaN or infinite; train again with a lower learning rate")
            if ended := state.episodes[known:]:
                metrics |= {
                    f"train/{name}": float(np.mean([row[EPISODE.index(name)] for row in ended])) for name in ("return", "success")
                }
            rate = (state.frames - before) * len(config.seeds) / (time.perf_counter() - clock)
            logger.log(state.frames, metrics | {"charts/frames_per_second": rate})
            if stopping.due(state.iteration) and state.frames < config.frames:
                state.save(checkpoint)
                write_episodes(state)
                stopping.leave(f"step {state.frames} of {config.frames}", checkpoint)
    write_episodes(state)


def write_episodes(state: Run) -> None:
    """episodes.csv: every episode of training, by the environment's own reward, whatever was learnt from."""
    table = pd.DataFrame(state.episodes, columns=EPISODE).astype(dict.fromkeys(EPISODE[:-1], int))
    with atomic_file(state.config.out / EPISODES) as temp:
        table.to_csv(temp, index=False, float_format="%.4f", lineterminator="\n")


def save(state: Run) -> None:
    """The policies as `robopref train` leaves all of them (networks.py)."""
    config, agent, policy = state.config, state.agent, state.config.policy
    obs_dim, outputs = state.fleet.sizes[0], agent.net.shapes[-1][1]
    kind = "gaussian" if policy.actor == "gaussian" else "deterministic"
    actor = Actor(member_rngs(config.seeds, "weights"), obs_dim, outputs, policy.hidden, kind)
    members = len(config.seeds)
    with torch.no_grad():
        for layer, weight, bias in zip(actor.mlp.layers, agent.net.weights, agent.net.biases, strict=True):
            assert isinstance(layer, MemberLinear)
            layer.weight.copy_(torch.from_numpy(weight[:members]))
            layer.bias.copy_(torch.from_numpy(bias[:members]))
        if actor.log_std is not None:
            actor.log_std.copy_(torch.from_numpy(agent.net.log_std))
    settings = plain(policy) | {"hidden": policy.hidden, "actor": kind, "ending": "clip" if kind == "gaussian" else "bins"}
    about = {"policy": settings, "seeds": config.seeds, "env": config.env, "action_repeat": config.action_repeat}
    about["switch"] = plain(config.switch)
    moments = state.observations
    if not policy.normalise:
        moments = Moments(members, obs_dim)
    normaliser = Normaliser(*(torch.from_numpy(part.astype(np.float32)) for part in (moments.mean, moments.std)))
    save_policy(config.out, actor, normaliser, about | {"obs_limit": LARGEST} if policy.normalise else about)


def gae(
    rewards: np.ndarray,
    values: np.ndarray,
    next_values: np.ndarray,
    terminated: np.ndarray,
    done: np.ndarray,
    discount: float,
    share: float,
) -> np.ndarray:
    """Generalised advantages (T, ...) (Schulman et al. 2016), all arguments (T, ...), share its lambda.

    delta_t = r_t + gamma V(s'_t) - V(s_t), without V(s') where the episode ended for good; A_t = delta_t + gamma lambda A_{t+1}
    within an episode.  next_values are of what an action led to, so an episode that was cut by time is worth what its last state
    promised.
    """
    advantages, later = np.empty_like(rewards), np.zeros_like(rewards[0])
    delta = rewards + discount * np.where(terminated, 0.0, next_values) - values
    for number in range(len(rewards) - 1, -1, -1):
        later = advantages[number] = delta[number] + discount * share * np.where(done[number], 0.0, later)
    return advantages


def of_members(met: np.ndarray) -> np.ndarray:
    """(T, S, E, ...) -> (S, T E, ...)."""
    return np.ascontiguousarray(np.moveaxis(met, 0, 1)).reshape(met.shape[1], -1, *met.shape[3:])


def of_time(values: np.ndarray, steps: int) -> np.ndarray:
    """(S, T E) -> (T, S, E)."""
    return np.moveaxis(values.reshape(len(values), steps, -1), 0, 1)


def identity(config: OnPolicyConfig) -> dict[str, Any]:
    """What must not change when a run goes on."""
    free = ("out", "overwrite", "threads", "processes", "frames")
    settings = {key: value for key, value in plain(config).items() if key not in free}
    return settings | {name: digest(path) for name, path in inputs(config).items()}
