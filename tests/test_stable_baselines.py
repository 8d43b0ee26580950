"""The peer of our tables: what ours and theirs have in common, number for number."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import ReplayBufferSamples
from stable_baselines3.common.logger import configure
from torch import Tensor, nn

from robopref.configs.policy import CIRConfig
from robopref.policies.cir import CIR
from robopref.policies.experience import Experience
from robopref.policies.flat import FlatNetworks

OBS, ACTIONS, WIDTH, BATCH = 5, 3, 32, 64
# As configs/policy/sac.yaml.
PLAIN = CIRConfig(
    width=WIDTH, batch=BATCH, critic="mlp", low_share=1.0, actor_q="min", repeats=1, alpha_loss="log_alpha"
)  # fmt: skip


class Spaces(gym.Env[Any, Any]):
    observation_space = gym.spaces.Box(-np.inf, np.inf, (OBS,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (ACTIONS,), np.float32)


def matched(ours: CIR, theirs: SAC) -> list[tuple[Tensor, Tensor]]:
    """Every one of their parameters, with ours in their layout."""
    found = [(theirs.log_ent_coef.data, ours.actor.weights["log_alpha"])]

    def add(module: nn.Module, net: FlatNetworks, names: list[str], head: int = 0, outputs: slice = slice(None)) -> None:
        linears = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
        for linear, name in zip(linears, names, strict=True):
            found.append((linear.weight.data, net.weights[f"{name}.weight"][head, :, outputs].T))
            found.append((linear.bias.data, net.weights[f"{name}.bias"][head, 0, outputs]))

    add(theirs.actor.latent_pi, ours.actor, ["d0", "d1"])
    add(theirs.actor.mu, ours.actor, ["out"], outputs=slice(ACTIONS))
    add(theirs.actor.log_std, ours.actor, ["out"], outputs=slice(ACTIONS, None))
    for module, net in ((theirs.critic, ours.critic), (theirs.critic_target, ours.target)):
        for head, q in enumerate(module.q_networks):
            add(q, net, ["d0", "d1", "q"], head)
    return found


def test_our_soft_actor_critic_takes_the_very_steps_of_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = CIR(PLAIN, OBS, ACTIONS, seed=0)
    theirs = SAC("MlpPolicy", Spaces(), seed=0, device="cpu", policy_kwargs={"net_arch": [WIDTH, WIDTH]})
    theirs.set_logger(configure(None, []))
    before = [own.clone() for _, own in matched(ours, theirs)]
    for their, own in matched(ours, theirs):
        their.copy_(own)
    rng = torch.Generator().manual_seed(1)
    for _ in range(20):
        obs, next_obs = torch.randn(2, BATCH, OBS, generator=rng)
        actions = torch.rand(BATCH, ACTIONS, generator=rng) * 2 - 1
        rewards = torch.randn(BATCH, generator=rng)
        ended = (torch.rand(BATCH, generator=rng) < 0.1).float()
        noise = torch.randn(2 * BATCH, ACTIONS, generator=rng)
        draws = [noise[BATCH:], noise[:BATCH]]  # they draw for the observations first, we for the next ones
        monkeypatch.setattr(ours, "draw", lambda *_, noise=noise: noise)
        monkeypatch.setattr(torch.distributions.Normal, "rsample", lambda self, draws=draws: self.loc + self.scale * draws.pop(0))
        sampled = ReplayBufferSamples(obs, actions, next_obs, ended[:, None], rewards[:, None])
        monkeypatch.setattr(theirs.replay_buffer, "sample", lambda *_, sampled=sampled, **__: sampled)
        ours.update(Experience(obs, actions, rewards, ended, next_obs))
        theirs.train(1, BATCH)
    for (their, own), first in zip(matched(ours, theirs), before, strict=True):
        torch.testing.assert_close(own, their, atol=2e-5, rtol=1e-4)
        assert (own - first).abs().max() > 1e-4, "nothing was learnt"
