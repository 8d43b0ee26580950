from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import fuzz_models
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robopref.configs.checkpoint import load_model, save_model
from robopref.configs.errors import RoboprefError
from robopref.preference.members import adam, descend, member_rngs
from robopref.preference.reward import BradleyTerryReward, LearnedReward, preference_loss, save_reward

scores = st.floats(-20, 20)


def test_a_tie_between_equal_scores_costs_ln_2() -> None:
    loss, metrics = preference_loss(torch.tensor([3.0]), torch.tensor([3.0]), torch.tensor([0.5]))
    assert loss.item() == pytest.approx(math.log(2))
    assert math.isnan(metrics["accuracy"])


def test_loss_by_hand() -> None:
    # softplus(-2) where b won by 2, softplus(1) where the loser leads by 1
    a, b, label = torch.tensor([0.0, 1.0]), torch.tensor([2.0, 0.0]), torch.tensor([1.0, 1.0])
    loss, metrics = preference_loss(a, b, label)
    assert loss.item() == pytest.approx((0.126928 + 1.313262) / 2, abs=1e-5)
    assert metrics["accuracy"].item() == 0.5


def test_soft_labels_have_their_entropy_as_floor() -> None:
    loss, _ = preference_loss(torch.tensor([0.0]), torch.tensor([math.log(3)]), torch.tensor([0.75]))
    assert loss.item() == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25), abs=1e-6)


@given(scores, scores, st.floats(0, 1), scores)
def test_order_of_the_pair_and_a_common_shift_do_not_matter(a: float, b: float, label: float, shift: float) -> None:
    def loss(a: float, b: float, y: float) -> float:
        values = (torch.tensor([value], dtype=torch.float64) for value in (a, b, y))
        return preference_loss(*values)[0].item()

    assert loss(a, b, label) == pytest.approx(loss(b, a, 1 - label), abs=1e-9)
    assert loss(a, b, label) == pytest.approx(loss(a + shift, b + shift, label), abs=1e-9)


def test_members_are_averaged_one_by_one() -> None:
    a, b, label = torch.zeros(2, 3), torch.tensor([[1.0] * 3, [-1.0] * 3]), torch.ones(2, 3)
    loss, metrics = preference_loss(a, b, label)
    assert loss.tolist() == pytest.approx([0.313262, 1.313262], abs=1e-5)
    assert metrics["accuracy"].tolist() == [1.0, 0.0]


def test_segment_score_is_the_weighted_sum_of_rewards() -> None:
    net = BradleyTerryReward(member_rngs([0, 1], "reward"), 3, 2, [8])
    obs, actions = torch.randn(2, 4, 5, 3), torch.randn(2, 4, 5, 2)
    score = net.segment_score(obs, actions, torch.full((2, 4, 1), 2.0))
    expected = 2 * sum(net(obs[:, :, k], actions[:, :, k]) for k in range(5))
    torch.testing.assert_close(score, expected)


def test_it_learns_which_segments_were_preferred() -> None:
    rngs = member_rngs([0, 1], "pairs")
    net = BradleyTerryReward(member_rngs([0, 1], "reward"), 2, 1, [16])
    optimizer = adam(net, 1e-2)
    for _ in range(150):
        obs = torch.tensor(np.stack([rng.normal(size=(2, 32, 4, 2)) for rng in rngs]), dtype=torch.float32)
        actions, weight = torch.zeros(2, 32, 4, 1), torch.ones(2, 32, 1)
        label = (obs[:, 1, ..., 0].sum(-1) > obs[:, 0, ..., 0].sum(-1)).float()  # true reward: the first coordinate
        a, b = (net.segment_score(obs[:, side], actions, weight) for side in range(2))
        loss, metrics = preference_loss(a, b, label)
        descend(optimizer, loss)
    assert metrics["accuracy"].min() > 0.85


def test_a_saved_reward_takes_raw_observations(tmp_path: Path) -> None:
    net = BradleyTerryReward(member_rngs([0, 1], "reward"), 3, 2, [8])
    mean, std = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 1.0, 2.0])
    save_reward(tmp_path, net, mean, std, {"seeds": [0, 1], "hidden": [8], "action_dim": 2})
    obs, actions = np.random.default_rng(0).normal(size=(6, 3)), np.zeros((6, 2), np.float32)
    reward = LearnedReward(tmp_path, member=1)(obs, actions, obs)
    with torch.no_grad():
        x = (torch.tensor(obs, dtype=torch.float32) - mean) / std
        expected = net(x.expand(2, -1, -1), torch.zeros(2, 6, 2))[1]
    np.testing.assert_allclose(reward, expected, atol=1e-6)
    with pytest.raises(RoboprefError, match="members 0 to 1, not 2"):
        LearnedReward(tmp_path, member=2)


def test_a_reward_is_that_of_its_first_member_unless_asked_for_another(tmp_path: Path) -> None:
    net = BradleyTerryReward(member_rngs([0, 1], "reward"), 3, 2, [8])
    save_reward(tmp_path, net, torch.zeros(3), torch.ones(3), {"seeds": [0, 1], "hidden": [8], "action_dim": 2})
    obs, actions = np.random.default_rng(0).normal(size=(6, 3)), np.ones((6, 2), np.float32)
    first, zeroth, second = (LearnedReward(tmp_path, *which)(obs, actions, obs) for which in ((), (0,), (1,)))
    assert np.array_equal(first, zeroth) and not np.allclose(first, second)
    for wrong in (-1, 2):
        with pytest.raises(RoboprefError, match=f"members 0 to 1, not {wrong}"):
            LearnedReward(tmp_path, wrong)


def test_a_reward_of_other_widths_is_refused_instead_of_repeated(tmp_path: Path) -> None:
    net = BradleyTerryReward(member_rngs([0], "reward"), 3, 2, [8])
    save_reward(tmp_path, net, torch.zeros(3), torch.ones(3), {"seeds": [0], "hidden": [8], "action_dim": 2})
    reward, rows = LearnedReward(tmp_path), np.zeros((6, 4))
    for do, da in ((1, 2), (4, 2), (3, 1)):
        with pytest.raises(RoboprefError, match=rf"of 3 numbers .* 2 an action was given \(6, {do}\) and \(6, {da}\)"):
            reward(rows[:, :do], rows[:, :da], rows)


def test_a_choice_is_right_by_the_sign_of_the_scores_however_small() -> None:
    a, b = torch.tensor([0.0, 0.4, 0.0, 0.0]), torch.tensor([0.4, 0.0, 0.4, 9.0])
    _, metrics = preference_loss(a, b, torch.tensor([0.7, 0.2, 0.1, 0.5]))
    assert metrics["accuracy"].item() == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": 3},
        {"seeds": ["a", "b"]},
        {"hidden": [2**40]},
        {"hidden": "8"},
        {"action_dim": 2**40},
        {"action_dim": None},
        {"env": 3},
    ],
)
def test_settings_of_another_kind_are_one_line(tmp_path: Path, change: dict[str, Any]) -> None:
    fuzz_models.reward(tmp_path)
    state, config = load_model(tmp_path, "reward")
    save_model(tmp_path, "reward", state, config | change)
    with pytest.raises(RoboprefError) as caught:
        LearnedReward(tmp_path)
    assert str(caught.value).startswith(str(tmp_path)) and "\n" not in str(caught.value)
