from __future__ import annotations

import math

import point_reach
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robopref.configs.errors import RoboprefError
from robopref.configs.policy import IPLConfig
from robopref.policies.ipl import IPL, inverse_loss, shares
from robopref.policies.iql import average, expectile_loss, weighted_cloning_loss
from robopref.policies.replay import PairBatch, Pairs, Transitions, stack_episodes, stack_pairs
from robopref.preference.members import member_rngs

SMALL = {"hidden": (16, 16), "batch": 16, "dropout": 0.25, "pairs": 4, "segment_steps": 5}


@pytest.fixture(scope="module")
def data() -> Transitions:
    return stack_episodes(point_reach.episodes(6))


@pytest.fixture(scope="module")
def pairs(data: Transitions) -> Pairs:
    return stack_pairs(point_reach.preferences(point_reach.episodes(6), 20), data.first)


def pair_batch(count: int, steps: int, weight: float, label: list[float]) -> PairBatch:
    numbers = torch.zeros(1, count, steps, dtype=torch.int64)
    weights = torch.full((1, count, 1), weight)
    return PairBatch(numbers, numbers, weights, weights, torch.tensor([label]))


def test_loss_by_hand() -> None:
    # Two critics, one pair of two steps a side, one other transition; a, a, b, b, other.
    reward = torch.tensor([[[1.0, 2.0, 0.5, 0.5, 3.0]], [[0.0, 0.0, 0.0, 0.0, 1.0]]])
    share = torch.tensor([0.125, 0.125, 0.125, 0.125, 0.5])
    loss, metrics = inverse_loss(reward, pair_batch(1, 2, 2.0, [1.0]), share, penalty=3.0)
    # First critic: scores 2 (1 + 2) = 6 and 2 (0.5 + 0.5) = 2, b preferred: softplus(6 - 2); second: ln 2.
    choice = math.log1p(math.exp(4.0)) + math.log(2.0)
    size = (1 + 4 + 0.25 + 0.25) / 8 + 9 / 2 + 1 / 2
    assert loss.shape == (1,)
    assert loss.item() == pytest.approx(choice + 3.0 * size, rel=1e-6)
    assert metrics["preference"].item() == pytest.approx(choice / 2)
    assert metrics["reward_size"].item() == pytest.approx(size / 2)
    assert metrics["accuracy"].item() == 0.0  # the first is wrong; a score of 0 is no vote for b


@settings(deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=5, max_size=5), st.floats(0, 1), st.floats(0, 5))
def test_the_order_of_a_pair_does_not_matter(values: list[float], label: float, penalty: float) -> None:
    reward = torch.tensor(values, dtype=torch.float64).expand(2, 1, 5)
    share = torch.full((5,), 0.2, dtype=torch.float64)
    turned = reward[..., [2, 3, 0, 1, 4]]
    losses = [
        inverse_loss(r, pair_batch(1, 2, 1.0, [y])._replace(label=torch.tensor([[y]], dtype=torch.float64)), share, penalty)[0]
        for r, y in ((reward, label), (turned, 1 - label))
    ]
    torch.testing.assert_close(*losses)


def test_segments_are_told_apart_as_they_were_sampled(data: Transitions, pairs: Pairs) -> None:
    """The reward of a transition of segment a enters a's score: that of batch rows 0 to P K, in this order."""
    batch = pairs.sample(member_rngs((0,), "training"), 3, 5)
    truth = data.rewards[torch.cat([batch.a.flatten(1), batch.b.flatten(1)], 1)].expand(2, -1, -1)
    truth = torch.cat([truth, torch.zeros(2, 1, 4)], -1)
    loss, _ = inverse_loss(truth, batch, torch.full((34,), 1 / 34), penalty=0.0)
    logit = sum(data.rewards[batch.b[0, :, k]] - data.rewards[batch.a[0, :, k]] for k in range(5)) * batch.weight_a[0, 0]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logit, batch.label[0])
    assert loss.item() == pytest.approx(2 * expected.item(), rel=1e-5)


def test_pairs_and_other_transitions_share_the_losses() -> None:
    share = shares(4, 2, 0.25, torch.device("cpu"))
    assert share.tolist() == pytest.approx([0.1875] * 4 + [0.125] * 2)
    values = torch.tensor([1.0, 1.0, 1.0, 1.0, 2.0, 4.0])
    assert average(values, share).item() == pytest.approx(0.75 * 1 + 0.25 * 3)
    assert average(values).item() == pytest.approx(10 / 6)
    error = torch.tensor([2.0, 2.0, 2.0, 2.0, -1.0, -1.0])
    assert expectile_loss(error, 0.75, share)[0].item() == pytest.approx(0.75 * 0.75 * 4 + 0.25 * 0.25 * 1)
    loss, metrics = weighted_cloning_loss(-values, torch.full((6,), 2.0), share)
    assert loss.item() == pytest.approx(2 * (0.75 * 1 + 0.25 * 3))
    assert metrics["weight"].item() == pytest.approx(2.0)


def test_a_share_outside_0_and_1_is_refused(data: Transitions, pairs: Pairs) -> None:
    with pytest.raises(RoboprefError, match=r"data_share is 1\.5"):
        IPL(IPLConfig(**SMALL, data_share=1.5), data, pairs, (0,))


def test_a_member_learns_as_if_it_were_alone(data: Transitions, pairs: Pairs) -> None:
    def trained(seeds: tuple[int, ...]) -> list[torch.Tensor]:
        learner, rngs = IPL(IPLConfig(**SMALL), data, pairs, seeds), member_rngs(seeds, "training")
        for step in range(12):
            learner.update(step, rngs)
        return [*learner.actor.parameters(), *learner.networks.value.parameters()]

    for together, alone in zip(trained((3, 7, 11)), trained((7,)), strict=True):
        torch.testing.assert_close(together[1], alone[0], atol=2e-6, rtol=0)


def test_only_differences_of_scores_move_q(data: Transitions, pairs: Pairs) -> None:
    """A step without penalty, on a tie of each segment with itself, changes no critic."""
    same = Pairs(pairs.start[:, :1].expand(-1, 2), pairs.length, torch.full_like(pairs.label, 0.5))
    learner = IPL(IPLConfig(**SMALL | {"segment_steps": 0, "dropout": 0.0}, penalty=0.0), data, same, (0,))
    before = [p.clone() for p in learner.networks.critic.parameters()]
    metrics = learner.update(0, member_rngs((0,), "training"))
    assert metrics["preference"].item() == pytest.approx(math.log(2))
    for was, now in zip(before, learner.networks.critic.parameters(), strict=True):
        torch.testing.assert_close(was, now, atol=1e-6, rtol=0)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_pairs_alone_or_data_alone_are_allowed(share: float, data: Transitions, pairs: Pairs) -> None:
    learner = IPL(IPLConfig(**SMALL, data_share=share), data, pairs, (0,))
    metrics = learner.update(0, member_rngs((0,), "training"))
    assert all(value.isfinite().all() for value in metrics.values())


def test_the_implied_reward_is_q_less_the_discounted_next_value(
    data: Transitions, pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = IPL(IPLConfig(**SMALL, discount=0.25), data, pairs, (0,))

    def asked(batch, q_loss, rngs, share):
        count = batch.obs.shape[1]
        return q_loss(torch.full((2, 1, count), 3.0), torch.full((1, count), 4.0))[1]

    monkeypatch.setattr(learner.networks, "learn", asked)
    metrics = learner.update(0, member_rngs((0,), "training"))
    assert metrics["reward_size"].item() == pytest.approx((3 - 0.25 * 4) ** 2)
