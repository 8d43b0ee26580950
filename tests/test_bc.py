from __future__ import annotations

import numpy as np
import point_reach
import pytest
import torch

from robopref.configs.policy import BCConfig
from robopref.policies.bc import BC, cloning_loss
from robopref.policies.replay import stack_episodes
from robopref.preference.members import member_rngs


def test_cloning_loss_is_the_mean_negative_log_likelihood() -> None:
    loss, metrics = cloning_loss(torch.tensor([[-1.0, -3.0], [0.0, -1.0]]))
    assert loss.tolist() == [2.0, 0.5]
    assert metrics["clone"].tolist() == [2.0, 0.5]


@pytest.mark.parametrize("actor", ["deterministic", "gaussian"])
def test_it_imitates_one_behaviour(actor: str) -> None:
    data = stack_episodes(point_reach.episodes(30)[::3])  # only those that go to the goal
    config = BCConfig(steps=300, batch=64, learning_rate=3e-3, hidden=(32, 32), dropout=0.0, actor=actor)
    learner, rngs = BC(config, data, (0, 1)), member_rngs((0, 1), "training")
    for step in range(learner.steps):
        learner.update(step, rngs)
    x, goal = np.random.default_rng(0).uniform(-0.8, 0.8, (2, 200))
    obs = data.normaliser(torch.tensor(np.stack([x, goal, 0 * x], 1), dtype=torch.float32)).expand(2, -1, -1)
    wanted = torch.tensor(np.clip(5 * (goal - x), -1, 1), dtype=torch.float32)
    with torch.no_grad():
        error = (learner.actor(obs).squeeze(-1) - wanted).abs().mean(1)
    assert error.max() < 0.25
