from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from robopref.configs.errors import RoboprefError
from robopref.configs.policy import CIRConfig
from robopref.policies.cir import CIR, SquashedGaussian, convex_q
from robopref.policies.critics import ConstrainedCritics, Critics, TwinMLP, rescaling
from robopref.policies.experience import Experience
from robopref.policies.graphs import Graphed
from robopref.preference.members import member_rngs

SMALL = CIRConfig(width=16, batch=8)
SAC = replace(SMALL, critic="mlp", low_share=1.0, actor_q="min", repeats=1, alpha_loss="log_alpha")


def experience(count: int = 8, seed: int = 0) -> Experience:
    rng = torch.Generator().manual_seed(seed)
    obs, next_obs = torch.randn(2, count, 3, generator=rng)
    actions = torch.rand(count, 2, generator=rng) * 2 - 1
    return Experience(obs, actions, torch.randn(count, generator=rng), (torch.arange(count) % 4 == 0).float(), next_obs)


def critics(config: CIRConfig = SMALL, seed: int = 0) -> ConstrainedCritics:
    return ConstrainedCritics(member_rngs([seed, seed + 1], "critics"), 3, 2, config)


def test_the_first_representation_has_a_deviation_of_one_eighth_before_it_is_squashed() -> None:
    x = F.layer_norm(torch.randn(400, 512), (512,))
    assert (x * rescaling(x, 0.1)).std().item() == pytest.approx(0.125, abs=0.002)  # 0.1 / E|N(0, 1)|
    pair = torch.tensor([1.0, -3.0])
    assert (pair * rescaling(pair, 0.1)).tolist() == pytest.approx([0.05, -0.15])


def test_the_target_is_the_mean_and_a_fifth_of_the_distance() -> None:
    q = torch.tensor([[1.0, 4.0, -2.0], [3.0, 0.0, -2.0]])
    expected = q.mean(0) + 0.2 * (q[0] - q[1]).abs()
    torch.testing.assert_close(convex_q(q, 0.3), expected)
    torch.testing.assert_close(convex_q(q, 1.0), q.amin(0))


def plainly(model: Critics, config: CIRConfig, obs: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """The paper's equations, one critic after the other, as autograd can differentiate them: (2, B)."""
    parameters = model.weights

    def one(head: int) -> torch.Tensor:
        def layer(name: str, x: torch.Tensor) -> torch.Tensor:
            return x @ parameters[f"{name}.weight"][head] + parameters[f"{name}.bias"][head]

        def norm(site: str, x: torch.Tensor) -> torch.Tensor:
            if config.norm == "none":
                return x
            where, row = ("all", 0) if config.norm == "shared" else (site, head)
            scale, shift = (parameters[f"{where}.{kind}"][row, 0] for kind in ("scale", "shift"))
            return F.layer_norm(x, x.shape[-1:], scale, shift)

        x = torch.cat([obs, actions], 1)
        if config.critic == "mlp":
            return layer("q", F.relu(layer("d1", F.relu(layer("d0", x)))))[:, 0]
        x = norm("d0", layer("d0", x))
        x = config.kappa * x / x.abs().mean(1, keepdim=True) if config.kappa > 0 else x
        x0 = F.elu(torch.tanh(x) if config.tanh else x)
        x1 = F.elu(norm("d1", layer("d1", x0)))
        x2 = F.elu(norm("d2", layer("d2", x1)))
        x3 = norm("m1", layer("m1", F.elu(norm("u1", layer("u1", x2)))) + (x2 if config.skip else 0))
        x4 = norm("m2", layer("m2", F.elu(norm("u2", layer("u2", x3)))) + (x1 if config.skip else 0))
        return layer("q", x4)[:, 0]

    return torch.stack([one(0), one(1)])


CHANGES: list[dict[str, object]] = [
    {}, {"norm": "own"}, {"norm": "none"}, {"kappa": 0.0}, {"tanh": False}, {"skip": False},
    {"norm": "own", "skip": False, "tanh": False}, {"critic": "mlp"},
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_values_and_gradients_are_those_of_the_equations(change: dict[str, object]) -> None:
    config = replace(SMALL, **change)
    model = (TwinMLP if config.critic == "mlp" else ConstrainedCritics)(member_rngs([0, 1], "critics"), 3, 2, config)
    batch, target = experience(), torch.randn(8)
    with torch.no_grad():  # LayerNorms that do something
        for name, value in model.weights.items():
            if name.endswith(("scale", "shift")):
                value.add_(torch.linspace(-0.5, 0.5, value.numel()).view(value.shape))
    for value in model.weights.values():
        value.requires_grad_()
    actions = batch.actions.clone().requires_grad_()
    expected = plainly(model, config, batch.obs, actions)
    q, loss = model.regress(batch.obs, batch.actions, target)
    torch.testing.assert_close(q, expected)
    theirs = (expected - target).square().mean(1).sum()
    torch.testing.assert_close(loss, theirs)
    for _ in range(2):  # the second time nothing of the first is left
        for name, gradient in zip(
            model.weights, torch.autograd.grad(theirs, list(model.weights.values()), retain_graph=True), strict=True
        ):
            torch.testing.assert_close(model.gradients[name], gradient, msg=lambda text, name=name: f"{name}: {text}")
        model.regress(batch.obs, batch.actions, target)

    for kind, reduce in (("mean", lambda q: q.mean(0)), ("min", lambda q: q.amin(0))):
        value, slope = model.climb(batch.obs, batch.actions, kind)
        torch.testing.assert_close(value, reduce(expected))
        (theirs,) = torch.autograd.grad(reduce(expected).sum(), actions, retain_graph=True)
        torch.testing.assert_close(slope, theirs)


def test_one_layernorm_serves_both_critics_and_is_averaged_into_the_target() -> None:
    agent = CIR(SMALL, 3, 2, seed=0)
    names = [name for name in agent.critic.weights if name.endswith(("scale", "shift"))]
    assert names == ["all.scale", "all.shift"]
    assert agent.critic.weights["all.scale"].numel() == SMALL.width
    agent.critic.weights["all.scale"].fill_(3.0)
    agent.optimizers["critic"].param_groups[0]["lr"] = 0.0
    agent.update(experience())
    torch.testing.assert_close(agent.target.weights["all.scale"], torch.full((1, 1, 16), 1 + 0.005 * 2))


def test_the_switches_leave_their_part_out() -> None:
    batch = experience()
    whole = critics()(batch.obs, batch.actions)
    for change in ({"tanh": False}, {"kappa": 0.0}, {"skip": False}, {"norm": "none"}):
        assert not torch.allclose(critics(replace(SMALL, **change))(batch.obs, batch.actions), whole), change
    own = critics(replace(SMALL, norm="own"))
    torch.testing.assert_close(own(batch.obs, batch.actions), whole)  # the same before anything is learnt
    assert own.weights["d0.scale"].shape == (2, 1, 16)
    plain = CIR(SAC, 3, 2, seed=0)
    assert plain.critic(batch.obs, batch.actions).shape == (2, 8)
    assert sum(p.numel() for p in plain.critic.parameters()) == 2 * ((5 * 16 + 16) + (16 * 16 + 16) + (16 + 1))


@pytest.mark.parametrize("precision", ["mixed", "bfloat16"])
def test_lower_precision_rounds_the_hidden_layers_and_keeps_weights_and_values(precision: str) -> None:
    batch, whole, rounded = experience(), critics(), critics(replace(SMALL, precision=precision))
    q, theirs = whole(batch.obs, batch.actions), rounded(batch.obs, batch.actions)
    assert theirs.dtype == torch.float32
    if precision == "bfloat16":  # small products, as these are, torch may compute whole where it is free to
        assert not torch.equal(q, theirs)
    torch.testing.assert_close(theirs, q, atol=0.05, rtol=0.05)
    for model in (whole, rounded):
        model.regress(batch.obs, batch.actions, batch.rewards)
    for name, gradient in rounded.gradients.items():
        exact = whole.gradients[name]
        assert gradient.dtype == torch.float32
        assert (gradient - exact).norm() < 0.1 * exact.norm(), name


def test_mixed_precision_is_the_hidden_products_alone() -> None:
    model = critics(replace(SMALL, width=256, precision="mixed"))
    a, b = torch.randn(2, 64, 256), torch.randn(2, 256, 256)
    whole = torch.bmm(a, b)
    torch.set_float32_matmul_precision("medium")  # what this processor makes of it
    lower = torch.bmm(a, b)
    torch.set_float32_matmul_precision("highest")
    assert torch.equal(model.product("d1", a, b), lower)
    assert torch.equal(model.product("d0", a, b), whole)
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("critic", ["constrained", "mlp"])
def test_rounded_weights_never_lag_behind(critic: str) -> None:
    agent, other = (CIR(replace(SMALL, critic=critic, precision="bfloat16"), 3, 2, seed) for seed in (0, 1))
    for number in range(2):
        agent.update(experience(seed=number))
    other.critic.load_state_dict(agent.critic.state_dict())
    for model in (agent.critic, agent.target, agent.actor, other.critic):
        assert len(model.low) > 0
        assert torch.equal(model.low, model.values[: len(model.low)].bfloat16())
    assert torch.equal(agent.critic.values, other.critic.values)
    assert not torch.equal(agent.critic.values, agent.target.values)


def test_the_pair_of_critics_has_the_papers_size() -> None:
    model = ConstrainedCritics(member_rngs([0, 1], "critics"), 24, 6, CIRConfig())
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(3.2e6, rel=0.02)


def test_log_pi_and_the_actors_gradients_are_those_of_a_squashed_gaussian() -> None:
    torch.manual_seed(0)
    actor = SquashedGaussian(member_rngs([0], "actor"), 3, 2, SMALL)
    obs, noise = torch.randn(5, 3), torch.randn(5, 2)
    with torch.no_grad():
        actor.weights["out.bias"][0, 0, 3] = 3.0  # one deviation is cut off, e^3 -> e^2
    for value in actor.weights.values():
        value.requires_grad_()
    actions, log_prob = actor.sample(obs, noise)
    mean, log_std = actor(obs)
    assert (log_std[:, 1] == 2).all()
    reference = TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform(cache_size=1)])
    expected = torch.tanh(mean + log_std.exp() * noise)
    torch.testing.assert_close(actions, expected)
    torch.testing.assert_close(log_prob, reference.log_prob(expected).sum(-1), atol=1e-3, rtol=1e-3)

    of_actions, of_log_prob = torch.randn(5, 2), torch.tensor([0.3])
    layers = {name: value for name, value in actor.weights.items() if name != "log_alpha"}
    loss = (of_actions * actions).sum() + (of_log_prob * log_prob).sum()
    gradients = dict(zip(layers, torch.autograd.grad(loss, list(layers.values())), strict=True))
    with torch.no_grad():
        tape: dict[str, object] = {}
        actor.sample(obs, noise, tape)
        actor.backward(of_actions, of_log_prob, tape)
    for name, gradient in gradients.items():
        torch.testing.assert_close(actor.gradients[name], gradient, msg=lambda text, name=name: f"{name}: {text}")


def test_an_action_is_drawn_from_the_policy_or_its_middle() -> None:
    agent, same = (CIR(SMALL, 3, 2, seed=0) for _ in range(2))
    obs = np.array([0.3, -1.0, 2.0])
    row = torch.from_numpy(obs).float()[None]
    with torch.no_grad():
        expected = same.actor.sample(row, same.draw(1, 2))[0][0].numpy()
        middle = torch.tanh(same.actor(row)[0])[0].numpy()
    np.testing.assert_allclose(agent.act(obs), expected, rtol=1e-6)
    np.testing.assert_array_equal(agent.act(obs, deterministic=True), middle)
    assert not np.allclose(agent.act(obs), expected), "the next draw is another"


def test_observations_are_standardised_by_those_so_far() -> None:
    obs = np.random.default_rng(0).normal([3.0, -1.0, 5.0], [2.0, 0.5, 0.0], (50, 3))
    agent, other = (CIR(replace(SMALL, standardise=True), 3, 2, seed=0) for _ in range(2))
    assert agent.see(torch.ones(1, 3)).tolist() == [[1, 1, 1]], "nothing is known yet"
    for row in obs:
        agent.observe(row)
    seen = agent.see(torch.from_numpy(obs).float())
    torch.testing.assert_close(
        seen, torch.from_numpy((obs - obs.mean(0)) / [*obs[:, :2].std(0), 0.01]).float(), atol=1e-4, rtol=0
    )

    batch = experience()
    standardised = batch._replace(obs=agent.see(batch.obs), next_obs=agent.see(batch.next_obs))
    agent.update(batch)
    other.update(standardised)  # knows nothing, so it takes them as they are
    assert torch.equal(agent.critic.values, other.critic.values) and torch.equal(agent.actor.values, other.actor.values)
    assert "normaliser" in agent.modules and "normaliser" not in CIR(SMALL, 3, 2, seed=0).modules


def test_the_temperature_follows_the_entropy_that_is_wanted() -> None:
    for target, change in ((-5.0, -3e-4), (5.0, 3e-4)):
        agent = CIR(replace(SMALL, target_entropy=target), 3, 2, seed=0)
        agent.update(experience())
        assert agent.actor.weights["log_alpha"].item() == pytest.approx(change, rel=1e-3)


@pytest.mark.parametrize("config", [SMALL, SAC])
def test_an_update_by_hand(config: CIRConfig) -> None:
    agent, batch = CIR(config, 3, 2, seed=0), experience()
    same = CIR(config, 3, 2, seed=0)
    alpha = 1.0
    with torch.no_grad():
        noise = same.draw(16, 2)
        next_actions, next_log_prob = same.actor.sample(batch.next_obs, noise[:8])
        low, high = torch.aminmax(same.target(batch.next_obs, next_actions), dim=0)
        bar = config.low_share * low + (1 - config.low_share) * high
        y = batch.rewards + 0.99 * (1 - batch.terminated) * (bar - alpha * next_log_prob)
        expected = (same.critic(batch.obs, batch.actions) - y).square().mean(1).sum()
    metrics = agent.update(batch)
    assert metrics["critic"].item() == pytest.approx(expected.item(), rel=1e-5)
    # entropy above the target of -2: the temperature falls by one step of Adam
    assert metrics["entropy"] > -2
    assert agent.actor.weights["log_alpha"].item() == pytest.approx(-3e-4, rel=1e-3)


@pytest.mark.parametrize("alpha_loss", ["alpha", "log_alpha"])
def test_the_temperature_climbs_down_what_it_is_told(alpha_loss: str) -> None:
    config = replace(SMALL, alpha_loss=alpha_loss, initial_temperature=0.25)
    agent = CIR(config, 3, 2, seed=0)
    entropy = agent.update(experience())["entropy"].item()
    slope = entropy + 2  # of log alpha (entropy - target) in log alpha; of alpha (entropy - target) alpha times that
    expected = 0.25 * slope if alpha_loss == "alpha" else slope
    assert agent.actor.gradients["log_alpha"].item() == pytest.approx(expected, rel=1e-5)


def test_the_actor_climbs_what_it_is_told_and_leaves_the_critics_alone() -> None:
    batch = experience()
    for kind, reduce in (("mean", lambda q: q.mean(0)), ("min", lambda q: q.amin(0))):
        agent, same = (CIR(replace(SMALL, actor_q=kind, learning_rate=0.0), 3, 2, seed=0) for _ in range(2))
        metrics = agent.update(batch)
        with torch.no_grad():
            actions, log_prob = same.actor.sample(batch.obs, same.draw(16, 2)[8:])
            expected = (log_prob - reduce(same.critic(batch.obs, actions))).mean()
        assert metrics["actor"].item() == pytest.approx(expected.item(), rel=1e-5)
        for ours, before in zip(agent.critic.parameters(), same.critic.parameters(), strict=True):
            assert torch.equal(ours, before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize(
    "change", [*CHANGES, *({"precision": p, "norm": n} for p in ("mixed", "bfloat16") for n in ("shared", "own"))]
)
def test_a_gpu_computes_what_a_processor_does(change: dict[str, object]) -> None:
    config = replace(SMALL, **change)
    there = CIR(config, 3, 2, seed=0, device="cuda")
    here = CIR(config, 3, 2, seed=0)
    noise = torch.randn(3, 16, 2)
    for agent, device in ((here, "cpu"), (there, "cuda")):
        draws = iter(noise.to(device))
        agent.draw = lambda count, action_dim, draws=draws: next(draws)  # type: ignore[method-assign]
        for number in range(3):
            agent.update(Experience(*(value.to(device) for value in experience(seed=number))))
    for name, module in here.modules.items():
        torch.testing.assert_close(there.modules[name].values.cpu(), module.values, atol=2e-3, rtol=1e-2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize(
    "change", [{}, {"precision": "bfloat16"}, {"precision": "mixed"}, {"critic": "mlp"}, {"standardise": True}]
)
def test_a_cuda_graph_computes_the_same(change: dict[str, object]) -> None:
    eager, graphed = (CIR(replace(SMALL, **change, cuda_graph=True), 3, 2, seed=0, device="cuda") for _ in range(2))
    update = Graphed(lambda *batch: graphed.update(Experience(*batch)), graphed.noise)
    for number in range(8):
        for agent in (eager, graphed):  # counted where observations are standardised: what a graph reads goes on changing
            agent.observe(np.arange(3.0) * number)
        batch = Experience(*(value.cuda() for value in experience(seed=number)))
        ours, theirs = update(*batch), eager.update(batch)
        for name, value in theirs.items():
            torch.testing.assert_close(ours[name], value)
        np.testing.assert_allclose(graphed.act(np.ones(3)), eager.act(np.ones(3)), rtol=1e-5)  # draws between updates
    assert update.graph is not None
    for name, module in eager.modules.items():
        torch.testing.assert_close(graphed.modules[name].state_dict(), module.state_dict())


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


@pytest.mark.parametrize(
    "change",
    [{"norm": "sharde"}, {"critic": "deep"}, {"actor_q": "max"}, {"alpha_loss": "beta"}, {"precision": "bf16"}],
)
def test_unknown_parts_are_named(change: dict[str, str]) -> None:
    with pytest.raises(RoboprefError, match="one of"):
        CIR(replace(SMALL, **change), 3, 2, seed=0)


def test_an_action_is_the_mean_where_nothing_is_to_be_drawn() -> None:
    agent = CIR(SMALL, 3, 2, seed=0)
    obs = np.array([0.3, -1.0, 2.0])
    drawn = [agent.act(obs) for _ in range(2)]
    assert not np.array_equal(*drawn)
    state = agent.noise.get_state()
    means = [agent.act(obs, deterministic=True) for _ in range(2)]
    assert np.array_equal(*means) and torch.equal(agent.noise.get_state(), state)
    mean, _ = agent.actor(torch.tensor(obs, dtype=torch.float32)[None])
    np.testing.assert_allclose(means[0], torch.tanh(mean[0]).detach().numpy(), atol=1e-6)
