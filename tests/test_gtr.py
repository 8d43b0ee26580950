"""GTR's penalty, its gradients, and the switches that turn it into PPO and its relatives."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import lambertw
from torch import Tensor
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Normal, kl_divergence

from robopref.configs.errors import RoboprefError
from robopref.configs.policy import GTRConfig
from robopref.policies.actor_critics import Adam
from robopref.policies.gtr import GTR, Rollout, clipped, gaussian_kernel, lagged_kl

SMALL = GTRConfig(
    hidden=(8, 8), minibatch=16, epochs=2, clip=0.2, entropy=0.01, beta=0.7, sigma=0.1, bins=3, anchors=2, max_norm=1e9
)
OBS, ACTION, SEEDS = 5, 2, (3, 4)


def rollout(config: GTRConfig, seed: int = 0, count: int = 32) -> Rollout:
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal((len(SEEDS), count, *shape), np.float32)

    actions = (
        draw(ACTION) if config.actor == "gaussian" else rng.integers(config.bins, size=(2, count, ACTION)).astype(np.float32)
    )
    return Rollout(draw(OBS), actions, draw() * 0.1 - 2, draw(), draw())


def distance(*numbers: float) -> np.ndarray:
    return np.array(numbers).reshape(1, -1, 1)


def square(sigma: float) -> np.ndarray:
    return np.full((1, 1, 1), sigma**2)


ONE = np.ones(1)


@given(st.floats(0, 1e4), st.floats(0.05, 5))
def test_the_penalty_is_bounded_and_grows(d: float, sigma: float) -> None:
    loss, pull = gaussian_kernel(distance(d), ONE, square(sigma))
    assert 0 <= loss.item() <= sigma**2
    assert pull.item() == pytest.approx(math.exp(-d / sigma**2), abs=1e-12)
    assert loss.item() <= lagged_kl(distance(d), ONE)[0].item() + 1e-12, "never above the KL penalty"


def test_by_hand() -> None:
    # D = .5 and 2 at sigma = 1, weights .75 and .25: .75 (1 - e^-.5) + .25 (1 - e^-2) = .29510 + .21617
    both = np.array([[[0.5, 2.0]]])
    loss, pull = gaussian_kernel(both, np.array([0.75, 0.25]), square(1.0))
    assert loss.item() == pytest.approx(0.51127, abs=1e-5)
    assert pull.ravel().tolist() == pytest.approx([0.75 * 0.60653, 0.25 * 0.13534], abs=1e-5)
    assert lagged_kl(both, np.array([0.75, 0.25]))[0].item() == pytest.approx(0.875)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5])
def test_it_pulls_hardest_at_sigma(sigma: float) -> None:
    d = np.linspace(0, 6 * sigma, 6001)
    force = gaussian_kernel((d**2 / 2).reshape(1, -1, 1), ONE, square(sigma))[1].ravel() * len(d) * d  # dP/dd = dP/dD d
    losses = np.array([gaussian_kernel(distance(x**2 / 2), ONE, square(sigma))[0].item() for x in d])
    np.testing.assert_allclose(np.gradient(losses, d)[1:-1], force[1:-1], atol=1e-4 * sigma)
    assert d[force.argmax()] == pytest.approx(sigma, abs=1e-3 * sigma)
    assert force.max() == pytest.approx(sigma * math.exp(-0.5), rel=1e-6)
    assert force[-1] < 1e-6 * sigma, "and lets go"


@pytest.mark.parametrize("push", [0.2, 0.5, 0.6, 0.61, 1.0])
def test_a_push_is_held_or_escapes(push: float) -> None:
    """Gradient descent on -g x + beta sigma^2 (1 - exp(-x^2 / 2 sigma^2)): the mean of a Gaussian of deviation 1, pushed."""
    sigma = beta = 1.0
    x = 0.0
    for _ in range(20_000):
        _, pull = gaussian_kernel(distance(x**2 / 2), ONE, square(sigma))
        x += 0.01 * (push - beta * pull.item() * x)
    u = (push / (beta * sigma)) ** 2
    if push < beta * sigma * math.exp(-0.5):
        assert x == pytest.approx(sigma * math.sqrt(-lambertw(-u).real), abs=1e-3)
    else:
        assert x > 10 * sigma


@pytest.mark.parametrize("actor", ["gaussian", "categorical"])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("penalty", ["gaussian", "kl", "mean", "none"])
def test_the_gradient_is_that_of_the_loss(penalty: str, activation: str, actor: str) -> None:
    check_gradient(replace(SMALL, penalty=penalty, activation=activation, actor=actor))


@pytest.mark.parametrize("actor", ["gaussian", "categorical"])
@pytest.mark.parametrize("lenience", [0.0, 0.7])
@pytest.mark.parametrize("anchor", ["mixture", "moments", "mean"])
@pytest.mark.parametrize("distance", ["kl", "log_ratio"])
def test_and_with_what_the_abstract_leaves_open(distance: str, anchor: str, lenience: float, actor: str) -> None:
    check_gradient(replace(SMALL, distance=distance, anchor=anchor, lenience=lenience, actor=actor))


def check_gradient(config: GTRConfig) -> None:
    """What `step` computes is autograd's gradient of the loss as the docstring has it."""
    agent, one = GTR(config, OBS, ACTION, SEEDS), rollout(config)
    net = agent.net
    rng = np.random.default_rng(0)
    agent.anchors = [net.values[:2] + rng.normal(0, 0.2, net.values[:2].shape).astype(np.float32) for _ in range(2)]
    if config.anchor == "mean":
        del agent.anchors[1]
    told = [[torch.from_numpy(part) for part in net.outputs_of(anchor, one.obs)] for anchor in agent.anchors]
    parts = [part.reshape(*one.log_prob.shape, -1) for part in one]
    values = torch.tensor(net.values, requires_grad=True)
    agent.step(Rollout(*parts), agent.references(one.obs) if agent.penalised else None)
    by_hand = torch.tensor(net.gradient)

    one = Rollout(*map(torch.from_numpy, one))  # as torch sees it
    loss = torch.zeros(())
    for member in range(2):

        def layers(row: Tensor, member: int = member) -> Tensor:
            x, first = one.obs[member], 0
            for number, (i, o) in enumerate(net.shapes):
                x = x @ row[first : first + i * o].view(i, o) + row[first + i * o : first + i * o + o]
                x = x if number == 2 else torch.tanh(x) if config.activation == "tanh" else torch.relu(x)
                first += i * o + o
            return x

        def policy(outputs: Tensor, log_std: Tensor) -> Normal | TorchCategorical:
            if config.actor == "gaussian":
                return Normal(outputs, log_std.exp())
            return TorchCategorical(logits=outputs.unflatten(-1, (ACTION, config.bins)))

        outputs, value = layers(values[member]), layers(values[2 + member])[:, 0]
        pi = policy(outputs, values[member, -ACTION:])
        log_prob = pi.log_prob(one.actions[member]).sum(-1)
        advantages = (one.advantages[member] - one.advantages[member].mean()) / (one.advantages[member].std() + 1e-8)
        ratio = torch.exp(log_prob - one.log_prob[member])
        loss = loss - torch.min(ratio * advantages, ratio.clamp(1 - config.clip, 1 + config.clip) * advantages).mean()
        loss = loss - config.entropy * pi.entropy().sum(-1).mean() + 0.5 * (value - one.returns[member]).square().mean()
        mixture = torch.tensor([1 / 1.7, 0.7 / 1.7]) if len(told) == 2 else torch.ones(1)
        anchors = [
            (weight, old[member], policy(old[member], log_std[member, 0]))
            for weight, (old, log_std) in zip(mixture, told, strict=True)
        ]
        if config.anchor == "moments" and config.actor == "gaussian":
            means, squares = (sum(weight * part(pi) for weight, _, pi in anchors) for part in (mean, second_moment))
            anchors = [(torch.ones(()), means, Normal(means, (squares - means**2).sqrt()))]
        elif config.anchor == "moments":
            p = sum(weight * pi.probs for weight, _, pi in anchors)
            anchors = [(torch.ones(()), p, TorchCategorical(probs=p))]
        for weight, old, pi_k in anchors:
            divergence = kl_divergence(pi_k, pi).mean(-1)
            if config.distance == "log_ratio":
                divergence = (log_prob - pi_k.log_prob(one.actions[member]).sum(-1)).square() / (2 * ACTION)
            losses = {"kl": divergence.mean(), "none": torch.zeros(())}
            if config.penalty == "mean":
                losses["mean"] = (outputs - old).square().mean()
            width = config.sigma**2 * torch.exp(-config.lenience * advantages.clamp(-2, 2))
            losses["gaussian"] = (width * (1 - torch.exp(-divergence / width))).mean()
            loss = loss + config.beta * weight * losses[config.penalty]
    loss.backward()
    expected = values.grad
    assert expected is not None
    torch.testing.assert_close(by_hand, expected, rtol=1e-3, atol=1e-6)


def mean(pi: Normal) -> Tensor:
    return pi.mean


def second_moment(pi: Normal) -> Tensor:
    return pi.variance + pi.mean**2


def learnt(config: GTRConfig, iterations: int = 4) -> np.ndarray:
    """Weights after some iterations on the same numbers."""
    agent = GTR(config, OBS, ACTION, SEEDS)
    for number in range(iterations):
        agent.learn(rollout(config, number))
    return agent.net.values


def test_without_weight_it_is_ppo() -> None:
    assert np.array_equal(learnt(replace(SMALL, beta=0.0)), learnt(replace(SMALL, penalty="none")))
    assert not np.array_equal(learnt(SMALL), learnt(replace(SMALL, penalty="none")))


def test_with_a_wide_kernel_it_is_a_lagged_kl_penalty() -> None:
    fast = replace(SMALL, learning_rate=0.01)
    kl = learnt(replace(fast, penalty="kl"))
    np.testing.assert_allclose(learnt(replace(fast, sigma=300.0)), kl, rtol=1e-3, atol=1e-4)
    assert not np.allclose(learnt(replace(fast, sigma=0.05)), kl, atol=1e-3)


def test_the_first_iteration_has_no_anchor_and_later_ones_the_last_few() -> None:
    agent = GTR(SMALL, OBS, ACTION, SEEDS)
    starts = []
    for number in range(4):
        starts.append(agent.net.values[:2].copy())
        agent.learn(rollout(SMALL, number))
    assert len(agent.anchors) == 2
    assert np.array_equal(agent.anchors[0], starts[3]) and np.array_equal(agent.anchors[1], starts[2])
    assert agent.mixture().tolist() == pytest.approx([1 / 1.7, 0.7 / 1.7])


def test_anchors_may_lie_further_apart() -> None:
    agent = GTR(replace(SMALL, anchor_every=3), OBS, ACTION, SEEDS)
    starts, newest = [], []
    for number in range(8):
        starts.append(agent.net.values[:2].copy())
        agent.learn(rollout(SMALL, number))
        newest.append(next(index for index, start in enumerate(starts) if np.array_equal(start, agent.anchors[0])))
    assert newest == [0, 0, 0, 3, 3, 3, 6, 6]
    assert len(agent.anchors) == 2 and np.array_equal(agent.anchors[1], starts[3])


def test_sigma_follows_the_distances_if_it_is_asked_to() -> None:
    agent = GTR(replace(SMALL, adapt=1.5, learning_rate=0.01), OBS, ACTION, SEEDS)
    agent.learn(rollout(SMALL))
    assert (agent.sigma == np.float32(SMALL.sigma)).all(), "there was no anchor to be far from"
    metrics = agent.learn(rollout(SMALL, 1))
    np.testing.assert_allclose(agent.sigma.ravel(), 1.5 * metrics["distance"], rtol=1e-6)
    assert agent.sigma[0] != agent.sigma[1]


def test_an_anchor_that_is_a_running_mean() -> None:
    agent = GTR(replace(SMALL, anchor="mean", anchor_decay=0.75), OBS, ACTION, SEEDS)
    starts = []
    for number in range(3):
        starts.append(agent.net.values[:2].copy())
        agent.learn(rollout(SMALL, number))
    assert len(agent.anchors) == 1
    np.testing.assert_allclose(agent.anchors[0], 0.5625 * starts[0] + 0.1875 * starts[1] + 0.25 * starts[2], rtol=1e-5, atol=1e-7)


def test_a_member_learns_what_it_would_alone() -> None:
    both = GTR(SMALL, OBS, ACTION, SEEDS)
    alone = GTR(SMALL, OBS, ACTION, SEEDS[1:])
    for number in range(3):
        one = rollout(SMALL, number)
        both.learn(one)
        alone.learn(Rollout(*(part[1:] for part in one)))
    np.testing.assert_allclose(both.net.values[[1, 3]], alone.net.values, rtol=1e-4, atol=1e-6)


def test_clipping_by_hand() -> None:
    ratio, advantages = np.array([[1.5, 0.5, 1.5, 0.5]]), np.array([[1.0, 1.0, -1.0, -1.0]])
    loss, slope = clipped(ratio, advantages, 0.2)
    assert loss.item() == pytest.approx(-(1.2 + 0.5 - 1.5 - 0.8) / 4)
    np.testing.assert_allclose(slope, [[0.0, -0.125, 0.375, 0.0]])  # dL/dlog pi = -r A / 4 where r is not held


def test_adam_takes_the_steps_of_torchs() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 5)).astype(np.float32)
    theirs = torch.tensor(values, requires_grad=True)
    ours, peer = Adam(values.shape, 1e-2), torch.optim.Adam([theirs], lr=1e-2, eps=1e-5)
    for _ in range(50):
        gradient = rng.normal(size=(2, 5)).astype(np.float32)
        theirs.grad = torch.tensor(gradient)
        ours.step(values, gradient)
        peer.step()
    np.testing.assert_allclose(values, theirs.detach().numpy(), atol=2e-6)


def test_weights_begin_orthogonal() -> None:
    agent = GTR(replace(SMALL, hidden=(16, 16)), OBS, ACTION, SEEDS)
    first, second, last = agent.net.weights
    np.testing.assert_allclose(first[0] @ first[0].T, 2 * np.eye(OBS), atol=1e-5)
    np.testing.assert_allclose(second[1] @ second[1].T, 2 * np.eye(16), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(last[:2], axis=(1, 2)), 0.01 * math.sqrt(2), rtol=1e-4)


def test_an_unknown_switch_is_named() -> None:
    with pytest.raises(RoboprefError, match=r"policy.sigma=0: a number"):
        GTR(replace(SMALL, sigma=0), OBS, ACTION, SEEDS)
    with pytest.raises(RoboprefError, match=r"policy.penalty=gausian: one of gaussian, kl, mean, none.*gaussian"):
        GTR(replace(SMALL, penalty="gausian"), OBS, ACTION, SEEDS)


@pytest.mark.parametrize("lenience", [0.0, 0.7])
def test_released_is_the_share_beyond_the_peak_of_the_force(lenience: float) -> None:
    """d = sqrt(2 D) > sigma, whatever the kernel's value: checked with d a little below and a little above it."""
    config = replace(SMALL, distance="kl", lenience=lenience, anchors=1)
    agent, one = GTR(config, OBS, ACTION, SEEDS), rollout(config)
    parts = [part.reshape(*one.log_prob.shape, -1) for part in one]
    rows = one.log_prob.shape[1]
    far = np.random.default_rng(1).normal(0, 0.2, agent.net.values[:2].shape).astype(np.float32)
    agent.anchors = [agent.net.values[:2] + far]
    outputs, log_std, weights = agent.references(one.obs)
    mine, _ = agent.net.both(one.obs)
    policy = agent.policy(mine, agent.net.log_std)
    d = np.sqrt(2 * policy.divergence(*(part.reshape(*part.shape[:2], 1, -1) for part in (outputs, log_std))))[..., 0]
    advantages = one.advantages - one.advantages.mean(1, keepdims=True)
    advantages /= one.advantages.std(1, ddof=1, keepdims=True)
    reach = np.exp(-lenience * advantages.clip(-2, 2) / 2)  # of sigma: a good action is let go sooner
    for member, share in ((0, 0.25), (1, 0.75)):
        agent.sigma[member] = np.quantile(d[member] / reach[member], 1 - share, method="midpoint")
    metrics = agent.step(Rollout(*parts), (outputs, log_std, weights))
    assert (metrics["released"] * rows).tolist() == pytest.approx([0.25 * rows, 0.75 * rows])
    np.testing.assert_allclose(metrics["sigma"], agent.sigma.ravel())
    np.testing.assert_allclose(metrics["distance"], d.mean(1), rtol=1e-5)
