"""`robopref train`: episodes, and labelled pairs of their segments or a reward -> S policies of different seeds in one folder.

Comes after annotation, or, for data of D4RL's form, after nothing or `robopref prof` (offline.py); goes to evaluation and video.
An interrupted run goes on from its last checkpoint to the very numbers that it would have reached.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

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
from robopref.configs.files import digest, plain
from robopref.configs.finite import check_losses
from robopref.configs.policy import (
    BCConfig,
    CPLConfig,
    IPLConfig,
    IQLConfig,
    PIQLConfig,
    TD3BCConfig,
    TrainConfig,
    trained,
)
from robopref.configs.progress import tell_end
from robopref.configs.run import MetricsLogger, choose_device, is_complete, seed_everything, write_manifest
from robopref.configs.run_folder import MODEL, run_folder
from robopref.configs.stopping import Stopping
from robopref.datasets.episodes import EpisodeStore
from robopref.datasets.preferences import check_origin
from robopref.policies import offline, online
from robopref.policies.bc import BC
from robopref.policies.cpl import CPL
from robopref.policies.ipl import IPL
from robopref.policies.iql import IQL, PIQL
from robopref.policies.networks import Actor, save_policy
from robopref.policies.replay import Pairs, Transitions, load_pairs
from robopref.policies.td3bc import TD3BC
from robopref.preference.hub import REWARD
from robopref.preference.members import member_rngs
from robopref.preference.reward import save_reward

CHECKPOINT = "policy-training"
OWN = ("out", "reward", "survival")  # settings that runs may differ in and still learn in one program


class Learner(Protocol):
    """One algorithm at work: `modules` and `optimizers` are all that it has to remember beside the step."""

    steps: int
    actor: Actor

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """Networks by the name they have in a checkpoint."""

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """Optimisers likewise."""

    def update(self, step: int, rngs: Sequence[np.random.Generator]) -> dict[str, Tensor]:
        """Step number `step`: sample with the members' generators, take the loss, descend; metrics (S,) by name."""


def main(config: TrainConfig) -> None:
    """`robopref train`, where policies learn from episodes."""
    began = time.time()
    out = run(config)
    made = trained(config.policy, config.seeds)
    tell_end(out, began, made, "robopref", "evaluate", "--policy", str(out), "--out", str(out / "evaluation"))


def run(config: TrainConfig) -> Path:
    """Train all members; return the model folder `config.out`.  A finished one is kept, an interrupted one goes on."""
    run_together([config], config.out)
    return config.out


def run_together(configs: Sequence[TrainConfig], out: Path) -> None:
    """`run` for settings that differ in their reward (OWN) alone, as one program of R rewards x S seeds members.

    Each has a model folder of its own, and its members are what they are alone, but for rounding: batched products may add in
    another order.  out: for what is logged, means over all members, and for the checkpoint.
    """
    first = configs[0]
    if any(replace(config, **{name: getattr(first, name) for name in OWN}) != first for config in configs):
        raise RoboprefError("only settings that differ in their reward, and nothing else, can learn in one program")
    if len(configs) > 1 and not offline.learns_from_reward(first.policy):
        raise RoboprefError(f"policy={first.policy.name} learns from no reward in the data: train one at a time")
    for config in configs:
        offline.check(config)
    if not first.seeds or min(first.seeds) < 0:
        raise RoboprefError(f"seeds={list(first.seeds)}: give one or more numbers from 0 on, for example seeds=[0,1,2]")
    inputs = [offline.inputs(config) for config in configs]
    if first.labels is not None:
        check_origin(first.labels, first.data, EpisodeStore(first.data).env_id)
    if not first.overwrite and all(is_complete(one.out, one, files) for one, files in zip(configs, inputs, strict=True)):
        return
    for config in configs:
        offline.check_learned(config)
    started = time.time()
    with ExitStack() as held:
        for config, files in zip(configs, inputs, strict=True):
            writes = (*MODEL, f"{REWARD}/*")
            held.enter_context(run_folder(config.out, "train", config, files, overwrite=config.overwrite, writes=writes))
        seed_everything(first.seeds[0])
        try:
            learn(configs, inputs, out)
        finally:
            torch.set_flush_denormal(False)  # whoever called may count on the smallest numbers
        outputs = ["model.safetensors", "config.json"]
        for config, files in zip(configs, inputs, strict=True):
            write_manifest(config.out, "train", config, files, config.seeds, started, outputs=outputs)


def learn(configs: Sequence[TrainConfig], inputs: Sequence[Mapping[str, Path]], out: Path) -> None:
    """From the checkpoint on, if there is one, to the last step; the models go to the folders of the settings."""
    config = configs[0]
    if offline.is_own(config.data):
        torch.set_num_threads(config.threads)
    else:  # a million steps: what has shrunk to denormal numbers by then would slow them down
        online.prepare_processor(config.threads)
    device = choose_device(config.device)
    data, rewards, about = load(configs, device)
    pairs = None if config.labels is None else load_pairs(config.labels, data, config.data, device)

    learner = make_learner(config, data, pairs, rewards)
    rngs = member_rngs(config.seeds, "training") * len(configs)
    if config.policy.dropout > 0:  # whose masks are drawn member by member
        rngs = member_rngs([*config.seeds] * len(configs), "training")
    # What decides the result; a checkpoint of anything else cannot be continued.
    identity = plain(config.policy) | {"seeds": list(config.seeds)} | what_decides(config, inputs[0])
    if len(configs) > 1:
        identity["together"] = [what_decides(one, files) for one, files in zip(configs, inputs, strict=True)]
    checkpoint = out / "checkpoint.safetensors"
    first = load_checkpoint(checkpoint, learner, rngs, identity) if checkpoint.exists() else 0

    with MetricsLogger(out, first if first else -1, learner.steps) as logger, Stopping(config.checkpoint_every) as stopping:
        clock, last = time.perf_counter(), first
        for step in range(first + 1, learner.steps + 1):
            metrics = learner.update(step - 1, rngs)
            if step % config.log_every == 0 or step == learner.steps:
                rate = (step - last) / (time.perf_counter() - clock)
                logger.log(step, scalars(metrics, out) | {"charts/updates_per_second": rate})
                clock, last = time.perf_counter(), step
            if stopping.due(step) and step < learner.steps:
                save_checkpoint(checkpoint, learner, rngs, identity, step)
                stopping.leave(f"step {step} of {learner.steps}", checkpoint)

    for number, one in enumerate(configs):
        save(one, learner, data, about[number], number)
    checkpoint.unlink(missing_ok=True)


def what_decides(config: TrainConfig, inputs: Mapping[str, Path]) -> dict[str, Any]:
    """Of a run's result, beside policy and seeds."""
    return {name: digest(path) for name, path in inputs.items()} | offline.identity(config)


def load(configs: Sequence[TrainConfig], device: torch.device) -> tuple[Transitions, Tensor | None, list[dict[str, Any]]]:
    """The transitions, once; their rewards (R S, M) where there is more than one; and what is known about each of the R."""
    first = offline.load(configs[0], device)
    data, rewards, about = first.transitions, [first.transitions.rewards], [first.about]
    for config in configs[1:]:
        other = offline.load(config, device)
        if len(other.transitions) != len(data) or not torch.equal(other.transitions.actions, data.actions):
            raise RoboprefError("these rewards are of different transitions and cannot be learnt from in one program")
        rewards.append(other.transitions.rewards)
        about.append(other.about)
    together = torch.stack(rewards).repeat_interleave(len(configs[0].seeds), 0) if len(configs) > 1 else None
    return data, together, about


def make_learner(config: TrainConfig, data: Transitions, pairs: Pairs | None, rewards: Tensor | None = None) -> Learner:
    """The algorithm that config.policy asks for; rewards: (R S, M), the seeds once for each of R rewards."""
    policy = config.policy
    seeds = config.seeds if rewards is None else config.seeds * (len(rewards) // len(config.seeds))
    if isinstance(policy, PIQLConfig | IPLConfig | CPLConfig):
        if pairs is None:
            raise RoboprefError(f"policy={policy.name} learns from preferences: give labels=FILE (`robopref annotate` makes it)")
        if isinstance(policy, CPLConfig):
            return CPL(policy, data, pairs, config.seeds)
        if isinstance(policy, IPLConfig):
            return IPL(policy, data, pairs, config.seeds)
        return PIQL(policy, data, pairs, config.seeds)
    if isinstance(policy, IQLConfig):
        return IQL(policy, data, seeds, rewards)
    if isinstance(policy, TD3BCConfig):
        return TD3BC(policy, data, seeds, rewards)
    assert isinstance(policy, BCConfig)
    return BC(policy, data, config.seeds)


def scalars(metrics: dict[str, Tensor], where: Path) -> dict[str, float]:
    """Means over members, by log name; RoboprefError when a loss of any member is not finite any more."""
    check_losses(metrics, where)
    return {f"losses/{name}": float(value.mean()) for name, value in metrics.items()}


def save(
    config: TrainConfig, learner: Learner, data: Transitions, about: Mapping[str, Any] | None = None, number: int = 0
) -> None:
    """Write the policy, with what is known `about` its data, and P-IQL's reward as `reward/` beside it.

    number: of the reward, in the learner's order, whose members are meant.
    """
    settings = {
        "policy": plain(config.policy),
        "seeds": list(config.seeds),
        "data": str(config.data),
        "labels": plain(config.labels),
        **(about or {}),
    }
    if isinstance(learner, IQL):
        settings["precision"] = learner.precision
    members = slice(number * len(config.seeds), (number + 1) * len(config.seeds))
    save_policy(config.out, learner.actor, data.normaliser, settings, members)
    if isinstance(learner, PIQL):
        extra = {"hidden": learner.config.hidden, "action_dim": data.dims[1]}
        save_reward(config.out / "reward", learner.reward, data.normaliser.mean, data.normaliser.std, settings | extra)


def save_checkpoint(
    path: Path, learner: Learner, rngs: Sequence[np.random.Generator], identity: dict[str, Any], step: int
) -> None:
    """Everything that the next step depends on, in one file."""
    tensors, meta = pack_training(learner.modules, learner.optimizers)
    meta |= {"kind": CHECKPOINT, "step": step, "identity": identity, "rngs": [rng.bit_generator.state for rng in rngs]}
    save_tensors(path, tensors, meta)


def load_checkpoint(path: Path, learner: Learner, rngs: Sequence[np.random.Generator], identity: dict[str, Any]) -> int:
    """Put a checkpoint back and return its step; RoboprefError when it is of other settings, data or labels."""
    tensors, meta = load_tensors(path, CHECKPOINT)
    with resuming(path):
        check_identity(path, meta["identity"], identity)
        unpack_training(learner.modules, learner.optimizers, tensors, meta, path)
        for rng, state in zip(rngs, meta["rngs"], strict=True):
            rng.bit_generator.state = state
        return count_of(meta, "step")
