from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from robopref.configs.errors import RoboprefError
from robopref.configs.policy import CIRConfig
from robopref.policies.cir import CIR, ConstrainedCritics, SquashedGaussian, convex_q, rescale
from robopref.policies.experience import Experience
from robopref.preference.members import member_rngs

SMALL = CIRConfig(width=16, batch=8)
SAC = replace(SMALL, critic="mlp", low_share=1.0, actor_q="min", repeats=1)


def experience(count: int = 8, seed: int = 0) -> Experience:
    rng = torch.Generator().manual_seed(seed)
    obs, next_obs = torch.randn(2, count, 3, generator=rng)
    actions = torch.rand(count, 2, generator=rng) * 2 - 1
    return Experience(obs, actions, torch.randn(count, generator=rng), (torch.arange(count) % 4 == 0).float(), next_obs)


def critics(config: CIRConfig = SMALL, seed: int = 0) -> ConstrainedCritics:
    return ConstrainedCritics(member_rngs([seed, seed + 1], "critics"), 3, 2, config)


def test_the_first_representation_has_a_deviation_of_one_eighth_before_it_is_squashed() -> None:
    x = F.layer_norm(torch.randn(400, 512), (512,))
    assert rescale(x, 0.1).std().item() == pytest.approx(0.125, abs=0.002)  # 0.1 / E|N(0, 1)|
    assert rescale(torch.tensor([1.0, -3.0]), 0.1).tolist() == pytest.approx([0.05, -0.15])


def test_the_target_is_the_mean_and_a_fifth_of_the_distance() -> None:
    q = torch.tensor([[1.0, 4.0, -2.0], [3.0, 0.0, -2.0]])
    expected = q.mean(0) + 0.2 * (q[0] - q[1]).abs()
    torch.testing.assert_close(convex_q(q, 0.3), expected)
    torch.testing.assert_close(convex_q(q, 1.0), q.amin(0))


def test_the_critics_compute_the_papers_equations() -> None:
    config = replace(SMALL, width=4)
    model = critics(config)
    norm = nn.LayerNorm(4)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 0.5, -1.0]))
        norm.bias.copy_(torch.tensor([0.1, 0.0, -0.2, 0.3]))
        model.scales["all"].copy_(norm.weight.view(1, 1, 4))
        model.shifts["all"].copy_(norm.bias.view(1, 1, 4))
    batch = experience()
    q = model(batch.obs, batch.actions)
    for head in range(2):

        def layer(name: str, x: torch.Tensor, head: int = head) -> torch.Tensor:
            return x @ model.layers[name].weight[head] + model.layers[name].bias[head]

        x = norm(layer("d0", torch.cat([batch.obs, batch.actions], 1)))
        x0 = F.elu(torch.tanh(0.1 * x / x.abs().mean(1, keepdim=True)))
        x1 = F.elu(norm(layer("d1", x0)))
        x2 = F.elu(norm(layer("d2", x1)))
        x3 = norm(layer("m1", F.elu(norm(layer("u1", x2)))) + x2)
        x4 = norm(layer("m2", F.elu(norm(layer("u2", x3)))) + x1)
        torch.testing.assert_close(q[head], layer("q", x4)[:, 0])


def test_one_layernorm_serves_both_critics_and_is_averaged_into_the_target() -> None:
    agent = CIR(SMALL, 3, 2, seed=0)
    names = [name for name, _ in agent.critic.named_parameters() if name.startswith(("scales", "shifts"))]
    assert names == ["scales.all", "shifts.all"]
    assert agent.critic.scales["all"].numel() == SMALL.width
    with torch.no_grad():
        agent.critic.scales["all"].fill_(3.0)
    agent.optimizers["critic"].param_groups[0]["lr"] = 0.0
    agent.update(experience())
    torch.testing.assert_close(agent.target.scales["all"], torch.full((1, 1, 16), 1 + 0.005 * 2))


def test_the_switches_leave_their_part_out() -> None:
    batch = experience()
    whole = critics()(batch.obs, batch.actions)
    for change in ({"tanh": False}, {"kappa": 0.0}, {"skip": False}, {"norm": "none"}):
        assert not torch.allclose(critics(replace(SMALL, **change))(batch.obs, batch.actions), whole), change
    own = critics(replace(SMALL, norm="own"))
    torch.testing.assert_close(own(batch.obs, batch.actions), whole)  # the same before anything is learnt
    assert own.scales["d0"].shape == (2, 1, 16)
    plain = CIR(SAC, 3, 2, seed=0)
    assert plain.critic(batch.obs, batch.actions).shape == (2, 8)
    assert sum(p.numel() for p in plain.critic.parameters()) == 2 * ((5 * 16 + 16) + (16 * 16 + 16) + (16 + 1))


def test_bfloat16_rounds_the_hidden_layers_and_keeps_weights_and_values() -> None:
    batch, whole, rounded = experience(), critics(), critics(replace(SMALL, bf16=True))
    q, theirs = whole(batch.obs, batch.actions), rounded(batch.obs, batch.actions)
    assert theirs.dtype == torch.float32 and not torch.equal(q, theirs)
    torch.testing.assert_close(theirs, q, atol=0.05, rtol=0.05)
    gradients = torch.autograd.grad(theirs.sum(), list(rounded.parameters()))
    assert all(gradient.dtype == torch.float32 for gradient in gradients)


def test_the_pair_of_critics_has_the_papers_size() -> None:
    model = ConstrainedCritics(member_rngs([0, 1], "critics"), 24, 6, CIRConfig())
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(3.2e6, rel=0.02)


def test_log_pi_is_that_of_a_squashed_gaussian() -> None:
    torch.manual_seed(0)
    actor = SquashedGaussian(3, 2, [8, 8])
    obs, noise = torch.randn(5, 3), torch.randn(5, 2)
    actions, log_prob = actor.sample(obs, noise)
    mean, log_std = actor(obs)
    reference = TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform(cache_size=1)])
    torch.testing.assert_close(actions, torch.tanh(mean + log_std.exp() * noise))
    torch.testing.assert_close(log_prob, reference.log_prob(actions).sum(-1), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("config", [SMALL, SAC])
def test_an_update_by_hand(config: CIRConfig) -> None:
    agent, batch = CIR(config, 3, 2, seed=0), experience()
    same = CIR(config, 3, 2, seed=0)
    alpha = 1.0
    with torch.no_grad():
        next_actions, next_log_prob = same.actor.sample(batch.next_obs, same.draw(8, 2))
        low, high = torch.aminmax(same.target(batch.next_obs, next_actions), dim=0)
        bar = config.low_share * low + (1 - config.low_share) * high
        y = batch.rewards + 0.99 * (1 - batch.terminated) * (bar - alpha * next_log_prob)
        expected = (same.critic(batch.obs, batch.actions) - y).square().mean(1).sum()
    metrics = agent.update(batch)
    assert metrics["critic"].item() == pytest.approx(expected.item(), rel=1e-5)
    # entropy above the target of -2: the temperature falls by one step of Adam
    assert metrics["entropy"] > -2
    assert agent.temperature.log_alpha.item() == pytest.approx(-3e-4, rel=1e-3)


def test_the_actor_climbs_what_it_is_told_and_leaves_the_critics_alone() -> None:
    batch = experience()
    for kind, reduce in (("mean", lambda q: q.mean(0)), ("min", lambda q: q.amin(0))):
        agent, same = (CIR(replace(SMALL, actor_q=kind, learning_rate=0.0), 3, 2, seed=0) for _ in range(2))
        metrics = agent.update(batch)
        same.draw(8, 2)
        with torch.no_grad():
            actions, log_prob = same.actor.sample(batch.obs, same.draw(8, 2))
            expected = (log_prob - reduce(same.critic(batch.obs, actions))).mean()
        assert metrics["actor"].item() == pytest.approx(expected.item(), rel=1e-5)
        for ours, before in zip(agent.critic.parameters(), same.critic.parameters(), strict=True):
            assert torch.equal(ours, before)


def test_the_seed_decides_everything() -> None:
    agents = [CIR(SMALL, 3, 2, seed) for seed in (1, 1, 2)]
    for number in range(3):
        for agent in agents:
            agent.update(experience(seed=number))
    weights = [torch.cat([p.flatten() for m in agent.modules.values() for p in m.parameters()]) for agent in agents]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_critics_learn_a_reward() -> None:
    """No future: Q of both critics becomes the reward, here the first number of the observation."""
    agent = CIR(replace(SMALL, discount=0.0, learning_rate=3e-3), 3, 2, seed=0)
    rng = np.random.default_rng(0)
    for _ in range(300):
        obs = torch.from_numpy(rng.normal(size=(32, 3)).astype(np.float32))
        actions = torch.from_numpy(rng.uniform(-1, 1, (32, 2)).astype(np.float32))
        metrics = agent.update(Experience(obs, actions, obs[:, 0], torch.zeros(32), obs))
    assert metrics["critic"].item() < 0.1  # of 2 at first


@pytest.mark.parametrize("change", [{"norm": "sharde"}, {"critic": "deep"}, {"actor_q": "max"}])
def test_unknown_parts_are_named(change: dict[str, str]) -> None:
    with pytest.raises(RoboprefError, match="one of"):
        CIR(replace(SMALL, **change), 3, 2, seed=0)
