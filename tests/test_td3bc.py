from __future__ import annotations

import copy
from dataclasses import replace

import point_reach
import pytest
import torch

from robopref.configs.errors import UsageError
from robopref.configs.hydra import compose, to_dataclass
from robopref.configs.policy import TD3BCConfig, TrainConfig
from robopref.policies.networks import TwinCritic
from robopref.policies.replay import Transitions, stack_episodes
from robopref.policies.td3bc import TD3BC, actor_loss, bellman_target, first_q, smoothed
from robopref.preference.members import member_rngs

SMALL = {"hidden": (16, 16), "batch": 16}


@pytest.fixture(scope="module")
def data() -> Transitions:
    return stack_episodes(point_reach.episodes(6))


def test_target_actions_have_clipped_noise_and_stay_in_range() -> None:
    actions, noise = torch.tensor([0.0, 0.0, 0.9, -0.9]), torch.tensor([1.0, -9.0, 2.0, -9.0])
    assert smoothed(actions, noise, 0.2, 0.5).tolist() == pytest.approx([0.2, -0.5, 1.0, -1.0])


def test_the_target_is_the_smaller_q_and_nothing_after_an_end() -> None:
    q, reward = torch.tensor([[4.0, 5.0], [6.0, 3.0]]), torch.tensor([1.0, 2.0])
    assert bellman_target(reward, q, None, 0.5).tolist() == [3.0, 3.5]
    assert bellman_target(reward, q, torch.tensor([1.0, 0.0]), 0.5).tolist() == [1.0, 3.5]


def test_the_actor_loss_by_hand() -> None:
    # mean |Q| = 2, so lambda = 1.25 for alpha 2.5; mean Q = -1; squared distances 1, 0, 0, 4
    q = torch.tensor([[1.0, -3.0]], requires_grad=True)
    proposed = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    loss, metrics = actor_loss(q, proposed, torch.zeros(1, 2, 2), 2.5)
    assert loss.tolist() == pytest.approx([1.25 * 1 + 5 / 4])
    assert metrics["lambda"].tolist() == [1.25] and metrics["clone"].tolist() == [1.25]
    loss.sum().backward()
    assert q.grad is not None
    assert q.grad.tolist() == [[-0.625, -0.625]]  # of -lambda mean Q alone: no gradient goes through lambda


def test_the_first_critic_is_the_first_of_each_member_and_only_actions_have_a_gradient() -> None:
    critic = TwinCritic(member_rngs((3, 4), "weights"), 3, 2, (8, 8))
    obs, actions = torch.randn(2, 5, 3), torch.randn(2, 5, 2, requires_grad=True)
    said, expected = first_q(critic, obs, actions), critic(obs, actions)[0]
    torch.testing.assert_close(said, expected)
    (slope,) = torch.autograd.grad(said.sum(), actions)
    torch.testing.assert_close(slope, torch.autograd.grad(expected.sum(), actions)[0])
    assert all(parameter.grad is None for parameter in critic.parameters())


def test_actor_and_targets_move_at_every_second_step(data: Transitions) -> None:
    learner, rngs = TD3BC(TD3BCConfig(**SMALL), data, (0,)), member_rngs((0,), "training")
    before = {name: copy.deepcopy(list(module.parameters())) for name, module in learner.modules.items()}

    def moved() -> set[str]:
        return {
            name
            for name, module in learner.modules.items()
            if not all(torch.equal(now, then) for now, then in zip(module.parameters(), before[name], strict=True))
        }

    assert "actor" not in learner.update(0, rngs)
    assert moved() == {"critic"}
    assert "actor" in learner.update(1, rngs)
    assert moved() == set(learner.modules)
    expected = [old.lerp(new, 0.005) for old, new in zip(before["target_actor"], learner.actor.parameters(), strict=True)]
    for ours, wanted in zip(learner.target_actor.parameters(), expected, strict=True):
        torch.testing.assert_close(ours, wanted)


def test_a_member_learns_as_if_it_were_alone(data: Transitions) -> None:
    def trained(seeds: tuple[int, ...]) -> list[torch.Tensor]:
        learner, rngs = TD3BC(TD3BCConfig(**SMALL, dropout=0.25), data, seeds), member_rngs(seeds, "training")
        for step in range(12):
            learner.update(step, rngs)
        return list(learner.actor.parameters())

    for together, alone in zip(trained((3, 7, 11)), trained((7,)), strict=True):
        torch.testing.assert_close(together[1], alone[0], atol=2e-6, rtol=0)


def test_values_stop_where_an_episode_ends_for_good(data: Transitions) -> None:
    """With reward 1 and an end at every episode's last step, Q there is 1, and 1 + discount one step before."""
    ends = torch.zeros(len(data))
    ends[data.first[1:] - 1] = 1.0
    config = TD3BCConfig(steps=400, batch=64, hidden=(32,), learning_rate=1e-2, discount=0.5, polyak=0.1, alpha=0.0)
    always = replace(data, terminals=torch.ones(len(data)))
    for given, wanted in ((always, 1.0), (data, 2.0)):
        learner, rngs = TD3BC(config, replace(given, rewards=torch.ones(len(data))), (0,)), member_rngs((0,), "training")
        for step in range(config.steps):
            learner.update(step, rngs)
        q = learner.critic(*data.state_action(torch.arange(0, len(data), 7)[None]))
        torch.testing.assert_close(q, torch.full_like(q, wanted), atol=0.15, rtol=0)


def test_it_leaves_bad_data_behind() -> None:
    """A third of the data runs away from the goal, a third anywhere: with alpha 0, cloning, it stands nearly still."""
    data = stack_episodes(point_reach.episodes(60))
    config = TD3BCConfig(steps=600, batch=64, hidden=(32, 32), learning_rate=3e-3, discount=0.5, polyak=0.1)
    x, goal = torch.rand(2, 400) * 1.6 - 0.8
    obs = data.normaliser(torch.stack([x, goal, torch.zeros(400)], 1))
    towards = {}
    for alpha in (0.0, 2.5):
        learner, rngs = TD3BC(replace(config, alpha=alpha), data, (0,)), member_rngs((0,), "training")
        for step in range(config.steps):
            learner.update(step, rngs)
        with torch.no_grad():
            towards[alpha] = float((learner.actor(obs[None])[0, :, 0] * (goal - x).sign()).mean())
    assert abs(towards[0.0]) < 0.15 and towards[2.5] > 0.5


def test_a_gaussian_actor_is_refused(data: Transitions) -> None:
    with pytest.raises(UsageError, match="deterministic"):
        TD3BC(TD3BCConfig(**SMALL, actor="gaussian"), data, (0,))


def test_the_file_and_the_dataclass_have_the_same_defaults() -> None:
    assert to_dataclass(TrainConfig, compose("train", ["policy=td3bc"])).policy == TD3BCConfig()


def test_the_actor_moves_with_every_delayed_step(data: Transitions) -> None:
    learner, rngs = TD3BC(TD3BCConfig(hidden=(8,), batch=8, delay=3), data, (0,)), member_rngs((0,), "training")
    assert ["actor" in learner.update(step, rngs) for step in range(7)] == [False, False, True, False, False, True, False]
