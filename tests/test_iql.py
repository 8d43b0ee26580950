from __future__ import annotations

import math
from dataclasses import replace

import point_reach
import pytest
import torch

from robopref.configs.policy import BCConfig, IPLConfig, IQLConfig, PIQLConfig
from robopref.policies import iql
from robopref.policies.bc import BC
from robopref.policies.ipl import IPL
from robopref.policies.iql import (
    IQL,
    PIQL,
    advantage_weight,
    cosine,
    critic_loss,
    expectile_loss,
    polyak,
    weighted_cloning_loss,
)
from robopref.policies.replay import Pairs, Transitions, stack_episodes, stack_pairs
from robopref.preference.members import member_rngs

SMALL = {"hidden": (16, 16), "batch": 16, "dropout": 0.25}


@pytest.fixture(scope="module")
def data() -> Transitions:
    return stack_episodes(point_reach.episodes(6))


@pytest.fixture(scope="module")
def pairs(data: Transitions) -> Pairs:
    return stack_pairs(point_reach.preferences(point_reach.episodes(6), 20), data.first)


def test_expectile_loss_by_hand() -> None:
    # u = 2 weighs 0.7, u = -1 weighs 0.3
    loss, _ = expectile_loss(torch.tensor([2.0, -1.0]), 0.7)
    assert loss.item() == pytest.approx((0.7 * 4 + 0.3 * 1) / 2)


def test_the_expectile_of_one_half_is_half_the_squared_error() -> None:
    loss, _ = expectile_loss(torch.tensor([2.0, -1.0]), 0.5)
    assert loss.item() == pytest.approx(0.5 * (4 + 1) / 2)


def test_advantage_weight_is_clipped_at_100() -> None:
    weight = advantage_weight(torch.tensor([0.0, 0.3333, -0.6666, 50.0, 1e6]), 0.3333, 100.0)
    assert weight.tolist() == pytest.approx([1.0, 2.718282, 0.135335, 100.0, 100.0], rel=1e-5)


def test_weighted_cloning_by_hand() -> None:
    loss, metrics = weighted_cloning_loss(torch.tensor([-1.0, -2.0]), torch.tensor([3.0, 0.5]))
    assert loss.item() == pytest.approx((3.0 + 1.0) / 2)
    assert metrics["weight"].item() == 1.75


def test_critic_loss_adds_both_critics() -> None:
    loss, metrics = critic_loss(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([1.0, 0.0]))
    assert loss.item() == pytest.approx((0 + 4) / 2 + (1 + 0) / 2)
    assert metrics["q"].item() == pytest.approx(0.75)


def test_polyak_moves_the_target_by_its_rate() -> None:
    target, source = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    for parameter, value in ((*target.parameters(),), 1.0), ((*source.parameters(),), 3.0):
        for p in parameter:
            torch.nn.init.constant_(p, value)
    polyak(target, source, 0.005)
    assert target.weight.item() == pytest.approx(1.01)


def test_the_cosine_falls_from_one_to_zero() -> None:
    assert [cosine(p) for p in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 0.5, 0.0])


def test_rewards_are_standardised_a_member_unless_told_not_to(data: Transitions) -> None:
    rewards = torch.stack([data.rewards, 5 + 3 * data.rewards])
    learner = IQL(IQLConfig(**SMALL, reward_std=0.5), data, (0, 1), rewards)
    torch.testing.assert_close(learner.rewards.std(1, correction=0), torch.full((2,), 0.5))
    torch.testing.assert_close(learner.rewards[0], learner.rewards[1], atol=1e-4, rtol=0)
    assert torch.equal(IQL(IQLConfig(**SMALL, reward_std=0.0), data, (0, 1), rewards).rewards, rewards)


def test_constant_rewards_do_not_become_nan(data: Transitions) -> None:
    learner = IQL(IQLConfig(**SMALL), data, (0,), torch.full((1, len(data)), 4.0))
    assert torch.equal(learner.rewards, torch.zeros(1, len(data)))


def test_values_bootstrap_through_the_end_of_an_episode(data: Transitions) -> None:
    """With reward 1 everywhere and no terminal state, every Q tends to 1 / (1 - discount), also at the last steps."""
    config = IQLConfig(
        steps=300, batch=32, hidden=(16,), dropout=0.0, learning_rate=1e-2, discount=0.5, polyak=0.1, reward_std=0.0
    )
    learner, rngs = IQL(config, data, (0,), torch.ones(1, len(data))), member_rngs((0,), "training")
    for step in range(config.steps):
        learner.update(step, rngs)
    last = torch.tensor(data.first[1:] - 1).unsqueeze(0)
    q = learner.networks.critic(*data.state_action(last))
    torch.testing.assert_close(q, torch.full_like(q, 2.0), atol=0.15, rtol=0)


@pytest.mark.parametrize("precision", ["float32", "mixed"])
def test_values_stop_where_an_episode_ends_for_good(data: Transitions, precision: str) -> None:
    """With reward 1 and an end everywhere Q is 1, not 2; ends at some transitions change only what they should."""
    ends = (torch.arange(len(data)) % 2).float()
    config = IQLConfig(
        steps=200, batch=32, hidden=(16,), dropout=0.0, learning_rate=1e-2, discount=0.5, polyak=0.1, reward_std=0.0
    )
    given = replace(data, rewards=torch.ones(len(data)), terminals=torch.ones(len(data)))
    learner, rngs = IQL(replace(config, precision=precision), given, (0,)), member_rngs((0,), "training")
    for step in range(config.steps):
        learner.update(step, rngs)
    q = learner.networks.critic(*data.state_action(torch.arange(len(data))[None]))
    torch.testing.assert_close(q, torch.full_like(q, 1.0), atol=0.2, rtol=0)

    some = IQL(replace(config, precision=precision), replace(given, terminals=ends), (0,))
    none, every = (IQL(replace(config, precision=precision), replace(given, terminals=e), (0,)) for e in (None, 0 * ends))
    metrics = [one.update(0, member_rngs((0,), "training"))["critic"] for one in (some, none, every)]
    assert torch.equal(metrics[1], metrics[2]) and not torch.equal(metrics[0], metrics[1])


def test_the_actor_sees_the_value_after_its_update_and_the_target_moves_last(data: Transitions) -> None:
    learner, rngs = IQL(IQLConfig(**SMALL), data, (0,)), member_rngs((0,), "training")
    before = [p.clone() for p in learner.networks.target.parameters()]
    learner.update(0, rngs)
    expected = [b.lerp(c, 0.005) for b, c in zip(before, learner.networks.critic.parameters(), strict=True)]
    for ours, wanted in zip(learner.networks.target.parameters(), expected, strict=True):
        torch.testing.assert_close(ours, wanted)


@pytest.mark.parametrize("algorithm", ["bc", "iql", "piql"])
def test_a_member_learns_as_if_it_were_alone(data: Transitions, pairs: Pairs, algorithm: str) -> None:
    def trained(seeds: tuple[int, ...]) -> list[torch.Tensor]:
        if algorithm == "bc":
            learner = BC(BCConfig(**SMALL), data, seeds)
        elif algorithm == "iql":
            learner = IQL(IQLConfig(**SMALL), data, seeds)
        else:
            learner = PIQL(PIQLConfig(**SMALL, reward_steps=5, pairs=4), data, pairs, seeds)
        rngs = member_rngs(seeds, "training")
        for step in range(12):
            learner.update(step, rngs)
        return list(learner.actor.parameters())

    for together, alone in zip(trained((3, 7, 11)), trained((7,)), strict=True):
        torch.testing.assert_close(together[1], alone[0], atol=2e-6, rtol=0)


def test_p_iql_learns_from_what_its_reward_says(data: Transitions, pairs: Pairs) -> None:
    config = PIQLConfig(**SMALL, reward_steps=2, pairs=4)
    learner, rngs = PIQL(config, data, pairs, (0, 1)), member_rngs((0, 1), "training")
    for step in range(3):
        metrics = learner.update(step, rngs)
        assert ("reward" in metrics) == (step < 2)
    said = learner.label()
    assert said.shape == (2, len(data))
    torch.testing.assert_close(said[1, 40], learner.reward(*data.state_action(torch.tensor([[0], [40]])))[1, 0])
    expected = IQL(replace(config, name="iql"), data, (0, 1), said).rewards
    torch.testing.assert_close(learner.iql.rewards, expected)


@pytest.mark.parametrize("kind", ["iql", "ipl", "piql"])
@pytest.mark.parametrize("falls", [True, False])
def test_the_actors_learning_rate_falls_along_a_cosine_if_it_is_to(
    kind: str, falls: bool, data: Transitions, pairs: Pairs
) -> None:
    before = 0
    if kind == "iql":
        learner = IQL(replace(IQLConfig(**SMALL), steps=8, learning_rate=0.2, actor_cosine=falls), data, (0,))
    elif kind == "piql":
        before = 3  # of the reward
        config = PIQLConfig(**SMALL, steps=8, reward_steps=before, pairs=4, learning_rate=0.2, actor_cosine=falls)
        learner = PIQL(config, data, pairs, (0,))
    else:
        config = IPLConfig(**SMALL, pairs=4)
        learner = IPL(replace(config, steps=8, learning_rate=0.2, actor_cosine=falls), data, pairs, (0,))
    rngs, rates = member_rngs((0,), "training"), []
    for step in range(before + 8):
        learner.update(step, rngs)
        rates.append([learner.optimizers[name].param_groups[0]["lr"] for name in ("actor", "critic", "value")])
    expected = [0.2 * (1 + math.cos(math.pi * step / 8)) / 2 if falls else 0.2 for step in range(8)]
    assert [rate for rate, *_ in rates[before:]] == pytest.approx(expected)
    assert {rate for _, *others in rates for rate in others} == {0.2}, "the others' does not"


def test_weights_of_a_batch_reach_every_average() -> None:
    """The second transition alone counts."""
    share = torch.tensor([0.0, 1.0])
    assert expectile_loss(torch.tensor([5.0, -2.0]), 0.7, share)[0].item() == pytest.approx(0.3 * 4)
    loss, metrics = weighted_cloning_loss(torch.tensor([5.0, -2.0]), torch.tensor([7.0, 3.0]), share)
    assert loss.item() == pytest.approx(6.0) and metrics["weight"].item() == pytest.approx(3.0)


def test_a_learnt_reward_reaches_every_transition(data: Transitions, pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = PIQL(PIQLConfig(**SMALL, reward_steps=2, pairs=4), data, pairs, (0, 1))
    whole = learner.label()
    monkeypatch.setattr(iql, "RELABEL_CHUNK", 7)
    torch.testing.assert_close(learner.label(), whole)
    every = torch.arange(len(data)).expand(2, -1)
    torch.testing.assert_close(whole, learner.reward(*data.state_action(every)).detach())
    assert len(data) % 7 and whole[:, -1].ne(whole[:, 0]).all()
