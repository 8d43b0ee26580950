from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import point_reach
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robopref.configs.errors import RoboprefError
from robopref.configs.policy import BCConfig, CPLConfig, IPLConfig, PIQLConfig
from robopref.embodied.evaluate import evaluate
from robopref.policies.bc import BC
from robopref.policies.cpl import CPL, contrastive_loss, segment_scores
from robopref.policies.ipl import IPL
from robopref.policies.iql import PIQL
from robopref.policies.networks import load_policy, save_policy
from robopref.policies.replay import PairBatch, Pairs, Transitions, stack_episodes, stack_pairs
from robopref.policies.train import Learner
from robopref.preference.members import member_rngs
from robopref.preference.reward import preference_loss

scores = st.floats(-20, 20)


def loss_of(a: float, b: float, label: float, bias: float) -> float:
    values = (torch.tensor([value], dtype=torch.float64) for value in (a, b, label))
    return contrastive_loss(*values, bias)[0].item()


def test_loss_by_hand() -> None:
    # y = 1: softplus(-(B - 0.5 A)) with A = -2, B = -1 is softplus(0) = ln 2
    assert loss_of(-2, -1, 1, 0.5) == pytest.approx(math.log(2))
    # y = 0: softplus(-(A - 0.5 B)) = softplus(1.5)
    assert loss_of(-2, -1, 0, 0.5) == pytest.approx(1.701413, abs=1e-6)
    assert loss_of(-2, -1, 0.5, 0.5) == pytest.approx((math.log(2) + 1.701413) / 2, abs=1e-6)
    _, metrics = contrastive_loss(torch.tensor([-2.0, -1.0]), torch.tensor([-1.0, -2.0]), torch.tensor([1.0, 1.0]), 0.5)
    assert metrics["accuracy"].item() == 0.5


@given(scores, scores, st.floats(0, 1), st.floats(0.01, 1))
def test_the_order_of_a_pair_does_not_matter(a: float, b: float, label: float, bias: float) -> None:
    assert loss_of(a, b, label, bias) == pytest.approx(loss_of(b, a, 1 - label, bias), abs=1e-9)


@given(scores, scores, st.floats(0, 1))
def test_without_bias_it_is_the_bradley_terry_loss(a: float, b: float, label: float) -> None:
    values = [torch.tensor([value], dtype=torch.float64) for value in (a, b, label)]
    assert loss_of(a, b, label, 1.0) == pytest.approx(preference_loss(*values)[0].item(), abs=1e-8)


@given(scores, scores, st.floats(0.01, 0.99), st.floats(0.1, 5))
def test_a_bias_prefers_likely_segments_over_unlikely_ones(a: float, b: float, bias: float, up: float) -> None:
    """Raising both scores alike, which bias 1 does not notice, lowers the loss of a decided pair."""
    assert loss_of(a + up, b + up, 1.0, bias) < loss_of(a, b, 1.0, bias) or loss_of(a, b, 1.0, bias) < 1e-7


def test_segment_scores_are_scaled_weighted_sums() -> None:
    batch = PairBatch(*[torch.zeros(1, 2, 3, dtype=torch.int64)] * 2, *[torch.full((1, 2, 1), 2.0)] * 2, torch.ones(1, 2))
    log_prob = -torch.arange(12.0).view(1, 4, 3)  # pairs 0 and 1 of a, then of b
    a, b = segment_scores(log_prob, batch, alpha=0.1)
    assert a.flatten().tolist() == pytest.approx([-0.6, -2.4])
    assert b.flatten().tolist() == pytest.approx([-4.2, -6.0])


@pytest.fixture(scope="module")
def data() -> Transitions:
    return stack_episodes(point_reach.episodes())


@pytest.fixture(scope="module")
def pairs(data: Transitions) -> Pairs:
    return stack_pairs(point_reach.preferences(point_reach.episodes(), 150), data.first)


SMALL = {"hidden": (16, 16), "batch": 16, "dropout": 0.25, "pairs": 8, "clone_steps": 4, "steps": 10}


def test_cpl_kl_with_bias_1_is_dpo(data: Transitions, pairs: Pairs) -> None:
    """-log sigmoid(alpha (log-ratio of the winner - log-ratio of the loser)), worked out apart from our loss."""
    config = CPLConfig(**SMALL | {"dropout": 0.0}, reference=True, bias=1.0, alpha=0.3)
    learner, rngs = CPL(config, data, pairs, (0,)), member_rngs((0,), "training")
    for step in range(8):
        learner.update(step, rngs)
    states = [rng.bit_generator.state for rng in rngs]
    batch = pairs.sample(rngs, config.pairs)
    with torch.no_grad():
        ratios = [
            sum(
                learner.actor.log_prob(*data.state_action(side[..., k]))
                - learner.reference.log_prob(*data.state_action(side[..., k]))
                for k in range(side.shape[-1])
            )
            for side in (batch.a, batch.b)
        ]
        winner = torch.where(batch.label == 1, ratios[1], ratios[0])
        loser = torch.where(batch.label == 1, ratios[0], ratios[1])
        expected = -torch.nn.functional.logsigmoid(config.alpha * (winner - loser)).mean()
    for rng, state in zip(rngs, states, strict=True):
        rng.bit_generator.state = state
    assert learner.update(8, rngs)["cpl"].item() == pytest.approx(expected.item(), abs=1e-5)


def test_the_reference_is_the_cloned_policy(data: Transitions, pairs: Pairs) -> None:
    learner, rngs = CPL(CPLConfig(**SMALL, reference=True), data, pairs, (0,)), member_rngs((0,), "training")
    for step in range(4):
        learner.update(step, rngs)
    cloned = [p.clone() for p in learner.actor.parameters()]
    first = learner.update(4, rngs)["cpl"].item()
    assert first == pytest.approx(math.log(2), abs=0.05)  # all ratios are near 0 but for dropout
    for step in range(5, 9):
        learner.update(step, rngs)
    for reference, actor, was in zip(learner.reference.parameters(), learner.actor.parameters(), cloned, strict=True):
        assert torch.equal(reference, was)
        assert not torch.equal(actor, was)


@pytest.mark.parametrize("algorithm", ["piql", "cpl"])
def test_a_soft_label_is_learnt_as_a_probability(data: Transitions, pairs: Pairs, algorithm: str) -> None:
    """Three in four prefer b: what is learnt ends where it says so itself, at a log-ratio of ln 3, and not beyond."""
    said = Pairs(pairs.start[:1], pairs.length[:1], torch.tensor([0.75]))
    net = {"hidden": (16, 16), "dropout": 0.0, "batch": 16, "pairs": 4, "steps": 300}
    learner: PIQL | CPL
    if algorithm == "piql":
        learner = PIQL(PIQLConfig(**net, reward_steps=300, reward_learning_rate=1e-2), data, said, (0, 1))
    else:
        settings = {"alpha": 0.3, "bias": 1.0, "clone_steps": 0, "warmup": 0.0, "learning_rate": 3e-3}
        learner = CPL(CPLConfig(**net, **settings), data, said, (0, 1))
    rngs = member_rngs((0, 1), "training")
    for step in range(300):
        learner.update(step, rngs)
    batch = said.sample(rngs, 1)
    with torch.no_grad():
        if isinstance(learner, PIQL):
            a, b = (learner.reward(*data.state_action(side.flatten(1))).sum(1) for side in (batch.a, batch.b))
        else:
            a, b = (0.3 * learner.actor.log_prob(*data.state_action(side.flatten(1))).sum(1) for side in (batch.a, batch.b))
    torch.testing.assert_close(b - a, torch.full((2,), math.log(3)), atol=0.05, rtol=0)


def test_cloning_can_look_at_the_segments_or_at_everything(data: Transitions, pairs: Pairs) -> None:
    few = Pairs(pairs.start[:2], pairs.length[:2], pairs.label[:2])
    assert len(CPL(CPLConfig(**SMALL, clone_from="segments"), data, few, (0,)).shown) <= 40
    assert len(CPL(CPLConfig(**SMALL, clone_from="transitions"), data, few, (0,)).shown) == len(data)
    with pytest.raises(RoboprefError, match="transitions"):
        CPL(CPLConfig(**SMALL, clone_from="transition"), data, few, (0,))
    with pytest.raises(RoboprefError, match="bias is 0"):
        CPL(CPLConfig(**SMALL, bias=0.0), data, few, (0,))


def test_a_member_learns_as_if_it_were_alone(data: Transitions, pairs: Pairs) -> None:
    def trained(seeds: tuple[int, ...]) -> list[torch.Tensor]:
        learner, rngs = CPL(CPLConfig(**SMALL, reference=True), data, pairs, seeds), member_rngs(seeds, "training")
        for step in range(12):
            learner.update(step, rngs)
        return list(learner.actor.parameters())

    for together, alone in zip(trained((3, 7)), trained((7,)), strict=True):
        torch.testing.assert_close(together[1], alone[0], atol=2e-6, rtol=0)


def test_preferences_beat_cloning_a_mixture(data: Transitions, pairs: Pairs, tmp_path) -> None:
    """A third of the data runs away from the goal: cloning halts between, P-IQL, IPL and CPL learn to go there."""
    seeds, net = (0, 1), {"hidden": (32, 32), "dropout": 0.0, "batch": 64, "learning_rate": 2e-3}
    learners: dict[str, Learner] = {
        "bc": BC(BCConfig(**net, steps=300), data, seeds),
        "piql": PIQL(
            PIQLConfig(**net, steps=500, reward_steps=150, pairs=24, reward_learning_rate=3e-3, discount=0.9, polyak=0.02),
            data,
            pairs,
            seeds,
        ),
        "ipl": IPL(
            IPLConfig(**net, steps=500, pairs=24, segment_steps=0, discount=0.9, polyak=0.02, penalty=0.1, temperature=0.1),
            data,
            pairs,
            seeds,
        ),
        "cpl": CPL(
            CPLConfig(**net, clone_steps=150, steps=300, pairs=24, reference=True, alpha=0.2, bias=1.0), data, pairs, seeds
        ),
    }
    success = {}
    for name, learner in learners.items():
        rngs = member_rngs(seeds, "training")
        for step in range(learner.steps):
            learner.update(step, rngs)
        settings = {"seeds": seeds, "policy": {"hidden": learner.config.hidden, "actor": learner.config.actor}}
        save_policy(tmp_path / name, learner.actor, data.normaliser, settings)
        results = [evaluate(load_policy(tmp_path / name, m), point_reach.PointEnv(), range(25)) for m in range(2)]
        success[name] = np.mean([[result.success for result in member] for member in results])
    assert success["piql"] > success["bc"] + 0.2, success
    assert success["ipl"] > success["bc"] + 0.2, success
    assert success["cpl"] > success["bc"] + 0.2, success


def test_preference_steps_come_after_cloning_and_warm_up(data: Transitions, pairs: Pairs) -> None:
    config = CPLConfig(hidden=(8,), batch=8, pairs=4, clone_steps=2, steps=10, learning_rate=0.01, warmup=0.3, dropout=0.0)
    learner, rngs, rates = CPL(config, data, pairs, (0,)), member_rngs((0,), "training"), []
    for step in range(7):
        metrics = learner.update(step, rngs)
        assert ("cpl" in metrics) == (step >= 2)
        rates.append(learner.optimizers["prefer"].param_groups[0]["lr"])
    assert rates[2:] == pytest.approx([0.01 / 3, 0.02 / 3, 0.01, 0.01, 0.01]) and learner.steps == 12
    at_once = CPL(replace(config, warmup=0.0, clone_steps=0, clone_weight=0.5), data, pairs, (0,))
    metrics = at_once.update(0, rngs)
    assert at_once.optimizers["prefer"].param_groups[0]["lr"] == 0.01
    assert {"cpl", "clone"} <= metrics.keys(), "what cloning costs is told beside it"
