from __future__ import annotations

from pathlib import Path
from typing import Any

import fuzz_models
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal

from robopref.configs.checkpoint import load_model, save_model, save_tensors
from robopref.configs.errors import RoboprefError
from robopref.policies.networks import Actor, NumpyPolicy, TwinCritic, load_policy, save_policy
from robopref.policies.replay import Normaliser
from robopref.preference import members
from robopref.preference.members import Layers, MemberMLP, adam, descend, draw_kept, member_rngs


def trained(seeds: list[int], steps: int = 20) -> tuple[MemberMLP, torch.Tensor]:
    """Members fitted with dropout to targets of their own batches, and their last losses."""
    mlp = MemberMLP(member_rngs(seeds, "weights"), [3, 16, 16, 2], dropout=0.25)
    optimizer, rngs = adam(mlp, 1e-2), member_rngs(seeds, "training")
    for _ in range(steps):
        x = torch.tensor(np.stack([rng.normal(size=(8, 3)) for rng in rngs]), dtype=torch.float32)
        loss = (mlp(x, rngs) - x[..., :2]).square().mean((1, 2))
        descend(optimizer, loss)
    return mlp, loss.detach()


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(0, 2**31), min_size=2, max_size=4, unique=True), st.data())
def test_a_member_is_trained_as_if_it_were_alone(seeds: list[int], data: st.DataObject) -> None:
    member = data.draw(st.integers(0, len(seeds) - 1))
    together, losses = trained(seeds)
    alone, loss = trained([seeds[member]])
    assert losses[member] == pytest.approx(float(loss[0]), abs=1e-6)
    for ours, theirs in zip(together.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(ours[member], theirs[0], atol=1e-6, rtol=0)


def test_members_of_different_seeds_differ() -> None:
    mlp = MemberMLP(member_rngs([0, 1], "weights"), [3, 4, 1])
    assert not torch.equal(mlp.layers[0].weight[0], mlp.layers[0].weight[1])


def test_a_member_layer_is_a_linear_layer() -> None:
    mlp = MemberMLP(member_rngs([0, 1], "weights"), [3, 2])
    x = torch.randn(2, 5, 3)
    for m in range(2):
        expected = x[m] @ mlp.layers[0].weight[m] + mlp.layers[0].bias[m]
        torch.testing.assert_close(mlp(x)[m], expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_draws_a_members_masks_from_its_generator() -> None:
    together = draw_kept(member_rngs([0, 1], "mask"), (400, 500), 64, torch.device("cuda"))
    assert together.unique().tolist() == [0, 1]
    torch.testing.assert_close((together == 0).float().mean((1, 2)).cpu(), torch.full((2,), 0.25), atol=0.005, rtol=0)
    rngs = member_rngs([1], "mask")
    assert torch.equal(draw_kept(rngs, (400, 500), 64, torch.device("cuda"))[0], together[1])  # as if it were alone
    assert not torch.equal(draw_kept(rngs, (400, 500), 64, torch.device("cuda"))[0], together[1])  # and the next is another


def test_dropout_keeps_the_mean_and_drops_the_rate() -> None:
    kept = draw_kept(member_rngs([0, 1], "mask"), (400, 500), 64, torch.device("cpu"))
    assert kept.unique().tolist() == [0, 1]
    torch.testing.assert_close((kept == 0).float().mean((1, 2)), torch.full((2,), 0.25), atol=0.005, rtol=0)
    assert not torch.equal(kept[0], kept[1])
    mlp = MemberMLP(member_rngs([0, 1], "weights"), [1, 500, 1], dropout=0.25)
    with torch.no_grad():
        for parameter, value in zip(mlp.parameters(), (0.0, 1.0, 1 / 500, 0.0), strict=True):
            parameter.fill_(value)  # every hidden unit is 1, the output their mean
        out = mlp(torch.zeros(2, 400, 1), member_rngs([0, 1], "mask"))
    torch.testing.assert_close(out.squeeze(-1), kept.float().mean(-1) * 4 / 3)


@pytest.mark.parametrize("block", [2**18, 70, 12])  # all at once; a member and all its rows; a few of its rows
@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_layers_are_differentiated_as_autograd_does(block: int, dropout: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "BLOCK", block)
    mlp = MemberMLP(member_rngs([0, 1, 2], "weights"), [3, 6, 5, 2]).double()
    x = torch.randn(3, 11, 3, dtype=torch.float64, requires_grad=True)

    def ours(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        return Layers.apply(x, dropout, member_rngs([0, 1, 2], "mask"), True, *parameters)

    def plain(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        rngs = member_rngs([0, 1, 2], "mask")
        for layer in range(2):
            x = torch.relu(x @ parameters[2 * layer] + parameters[2 * layer + 1])
            if dropout:
                drawn = np.stack([np.frombuffer(rng.bytes(x[0].numel()), np.uint8).reshape(x.shape[1:]) for rng in rngs])
                x = x * torch.from_numpy(drawn >= 64) * 256 / 192
        return x @ parameters[4] + parameters[5]

    inputs = (x, *mlp.parameters())
    torch.testing.assert_close(ours(*inputs), plain(*inputs))
    weights = torch.randn(3, 11, 2, dtype=torch.float64)
    grads = (torch.autograd.grad((weights * function(*inputs)).sum(), inputs) for function in (ours, plain))
    torch.testing.assert_close(*grads)


def test_dropout_is_off_without_generators() -> None:
    mlp = MemberMLP(member_rngs([0], "weights"), [3, 8, 1], dropout=0.5)
    x = torch.randn(1, 4, 3)
    assert torch.equal(mlp(x), mlp(x))


def test_log_prob_of_the_deterministic_actor_is_the_negative_squared_distance() -> None:
    actor = Actor(member_rngs([0], "weights"), 3, 2, [4])
    for parameter in actor.parameters():
        torch.nn.init.zeros_(parameter)  # mean action 0
    log_prob = actor.log_prob(torch.randn(1, 1, 3), torch.tensor([[[0.5, -1.0]]]))
    assert log_prob.item() == pytest.approx(-1.25)


def test_log_prob_of_the_gaussian_actor() -> None:
    actor = Actor(member_rngs([0, 1], "weights"), 3, 2, [4], kind="gaussian")
    with torch.no_grad():
        actor.log_std.fill_(-0.7)
    obs, actions = torch.randn(2, 6, 3), torch.rand(2, 6, 2)
    expected = Normal(actor(obs), np.exp(-0.7)).log_prob(actions).sum(-1)
    torch.testing.assert_close(actor.log_prob(obs, actions), expected)


def test_twin_critics_are_two_networks_a_member() -> None:
    critic = TwinCritic(member_rngs([0, 1], "weights"), 3, 2, [8])
    q = critic(torch.randn(2, 5, 3), torch.randn(2, 5, 2))
    assert q.shape == (2, 2, 5)
    assert not torch.allclose(q[0], q[1])


def test_an_unknown_actor_names_the_nearest() -> None:
    with pytest.raises(RoboprefError, match="gaussian"):
        Actor(member_rngs([0], "weights"), 3, 2, [4], kind="gausian")


def saved(folder: Path, kind: str = "deterministic") -> tuple[Actor, Normaliser]:
    actor = Actor(member_rngs([5, 6], "weights"), 3, 2, [16, 16], kind)
    normaliser = Normaliser(torch.tensor([0.5, -1.0, 2.0]), torch.tensor([0.1, 1.0, 3.0]))
    save_policy(folder, actor, normaliser, {"seeds": [5, 6], "policy": {"hidden": [16, 16], "actor": kind}})
    return actor, normaliser


@pytest.mark.parametrize("kind", ["deterministic", "gaussian"])
def test_a_saved_member_acts_as_the_actor_it_was(tmp_path: Path, kind: str) -> None:
    actor, normaliser = saved(tmp_path, kind)
    obs = np.random.default_rng(0).normal(size=(7, 3))
    with torch.no_grad():
        expected = actor(normaliser(torch.tensor(obs, dtype=torch.float32)).expand(2, -1, -1))
    for member in range(2):
        actions = load_policy(tmp_path, member).act(obs)
        assert actions.dtype == np.float32
        np.testing.assert_allclose(actions, expected[member], atol=1e-5)
        np.testing.assert_allclose(load_policy(tmp_path, member).act(obs[:1])[0], actions[0], atol=1e-6)


def test_only_the_gaussian_actor_has_chance(tmp_path: Path) -> None:
    obs = np.zeros((4, 3))
    saved(tmp_path / "g", "gaussian")
    policy = load_policy(tmp_path / "g")
    assert not np.array_equal(policy.act(obs, deterministic=False), policy.act(obs, deterministic=False))
    assert np.array_equal(load_policy(tmp_path / "g").act(obs, False), load_policy(tmp_path / "g").act(obs, False))
    saved(tmp_path / "d")
    policy = load_policy(tmp_path / "d")
    assert np.array_equal(policy.act(obs, deterministic=False), policy.act(obs))


@pytest.mark.parametrize("ending", ["tanh", "clip", "bins"])
def test_observations_that_hold_nan_or_are_of_another_width_are_refused(ending: str) -> None:
    layers = [np.ones((3, 4)), np.ones((4, 4))]
    within = None if ending == "tanh" else (np.zeros(3), np.ones(3), 10.0)
    policy = NumpyPolicy(layers, [np.zeros(4)] * 2, ending=ending, bins=2, within=within)
    obs = np.zeros((5, 3))
    assert policy.act(obs).shape == (5, 2 if ending == "bins" else 4)
    obs[3, 1] = np.nan
    with pytest.raises(RoboprefError, match="the observation holds NaN, for which the policy has no action"):
        policy.act(obs)
    with pytest.raises(RoboprefError, match=r"sees 3 numbers an observation, it was given \(5, 1\)"):
        policy.act(obs[:, :1])


def test_a_member_that_is_not_there_is_named(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(RoboprefError, match="members 0 to 1, not 2"):
        load_policy(tmp_path, 2)


def test_a_policy_of_another_architecture_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    tensors, config = load_model(tmp_path, "policy")
    save_model(tmp_path, "policy", tensors, config | {"policy": {"hidden": [8, 8], "actor": "deterministic"}})
    with pytest.raises(RoboprefError, match="another architecture"):
        load_policy(tmp_path)


def test_nan_weights_are_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    tensors, config = load_model(tmp_path, "policy")
    tensors["actor.mlp.layers.0.weight"][0, 0, 0] = float("nan")
    with pytest.raises(RoboprefError, match=r"weights hold NaN or infinity \(actor.mlp.layers.0.weight\); train again"):
        save_model(tmp_path, "policy", tensors, config)
    save_tensors(tmp_path / "model.safetensors", tensors, {"kind": "policy", "config": config})
    with pytest.raises(RoboprefError, match="member 0: its weights hold NaN"):
        load_policy(tmp_path, 0)
    load_policy(tmp_path, 1)


WRONG = {
    "seeds": [None, 3, [], [3], ["a", "b"], [3, -8]],
    "obs_dim": ["3", 4, 2**40, None],
    "action_dim": [2**40, 0, 1.5],
    "policy": [None, {}, {"hidden": [8, 2**40], "actor": "deterministic"}, {"hidden": 8, "actor": "deterministic"}],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_a_policys_settings_of_another_kind_are_one_line(tmp_path: Path, key: str, value: object) -> None:
    fuzz_models.policy(tmp_path)
    state, config = load_model(tmp_path, "policy")
    save_model(tmp_path, "policy", state, config | {key: value})
    with pytest.raises(RoboprefError) as caught:
        load_policy(tmp_path)
    assert str(caught.value).startswith(str(tmp_path)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [{"ending": "other"}, {"activation": 3}, {"ending": "bins", "bins": 3}, {"ending": "bins"}])
def test_a_policys_ending_of_another_kind_is_one_line(tmp_path: Path, change: dict[str, Any]) -> None:
    fuzz_models.policy(tmp_path, **change)
    with pytest.raises(RoboprefError, match="holds other values than robopref writes"):
        load_policy(tmp_path)
