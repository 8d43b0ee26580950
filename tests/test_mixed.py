"""IQL's update with gradients written down: what autograd computes, and with bfloat16 products nearly that."""

from __future__ import annotations

from dataclasses import replace

import point_reach
import pytest
import torch

from robopref.configs.errors import UsageError
from robopref.configs.policy import IQLConfig
from robopref.policies.iql import IQL, MixedActorCritic
from robopref.policies.mixed import OneArray, Pass, adam_step, has_bfloat16, is_mixed
from robopref.policies.replay import Transitions, stack_episodes
from robopref.preference.members import MemberMLP, member_rngs

SMALL = {"hidden": (16, 24, 16), "batch": 16, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def data() -> Transitions:
    data = stack_episodes(point_reach.episodes(6))
    return replace(data, terminals=(torch.arange(len(data)) % 5 == 0).float())


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_pass_is_autograds(outputs: int, dropout: float) -> None:
    recorded, written = (MemberMLP(member_rngs((3, 4), "weights"), [5, 8, 6, outputs], dropout) for _ in range(2))
    array = OneArray(written)
    forward = Pass(written, array.gradients, mixed=False)
    for rows in (7, 12, 7):
        x, slope = torch.randn(2, rows, 5), torch.randn(2, rows, outputs)
        expected = recorded(x, member_rngs((3, 4), "masks"))
        torch.testing.assert_close(forward(x, member_rngs((3, 4), "masks")), expected.detach())
        recorded.zero_grad()
        expected.backward(slope)
        forward.backward(slope)
        for name, parameter in recorded.named_parameters():
            torch.testing.assert_close(array.gradients[name], parameter.grad)


def test_the_kernel_alone_is_adam() -> None:
    modules = [torch.nn.Linear(5, 3) for _ in range(2)]
    modules[1].load_state_dict(modules[0].state_dict())
    optimizers = [torch.optim.Adam([OneArray(module).values], 1e-2, fused=True) for module in modules]
    for step in range(4):
        for optimizer, act in zip(optimizers, (torch.optim.Adam.step, adam_step), strict=True):
            (group,) = optimizer.param_groups
            group["lr"] = 1e-2 / (1 + step)
            group["params"][0].grad = torch.arange(18.0).sin() + step
            act(optimizer)
    for name, parameter in modules[0].named_parameters():
        assert torch.equal(parameter, modules[1].get_parameter(name))
    states = [optimizer.state_dict()["state"][0] for optimizer in optimizers]
    assert all(torch.equal(states[0][name], states[1][name]) for name in ("step", "exp_avg", "exp_avg_sq"))


@pytest.mark.parametrize("actor", ["deterministic", "gaussian"])
@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_steps_written_down_are_those_of_autograd(data: Transitions, actor: str, dropout: float) -> None:
    config, seeds = IQLConfig(**SMALL, actor=actor, dropout=dropout, steps=100), (3, 4)
    recorded, written = IQL(config, data, seeds), IQL(config, data, seeds)
    written.networks = MixedActorCritic(config, data, seeds, mixed=False)
    rngs = [member_rngs(seeds, "training") for _ in range(2)]
    for step in range(20):
        metrics = [learner.update(step, own) for learner, own in zip((recorded, written), rngs, strict=True)]
    assert metrics[0].keys() == metrics[1].keys()
    for name in metrics[0]:
        torch.testing.assert_close(metrics[1][name], metrics[0][name], atol=1e-5, rtol=1e-4)
    for name, module in recorded.modules.items():
        for ours, wanted in zip(written.networks.modules[name].parameters(), module.parameters(), strict=True):
            torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=0)


def test_mixed_precision_stays_close_and_a_member_is_itself_in_any_company(data: Transitions) -> None:
    def trained(precision: str, seeds: tuple[int, ...]) -> IQL:
        learner = IQL(IQLConfig(**SMALL, dropout=0.25, precision=precision, actor="gaussian"), data, seeds)
        rngs = member_rngs(seeds, "training")
        for step in range(30):
            learner.update(step, rngs)
        return learner

    whole, mixed, alone = (trained(p, seeds) for p, seeds in (("float32", (3, 7)), ("mixed", (3, 7)), ("mixed", (7,))))
    assert (whole.precision, mixed.precision) == ("float32", "mixed")
    obs = data.obs[:50].expand(2, -1, -1)
    with torch.no_grad():
        actions = [learner.actor(obs) for learner in (whole, mixed)]
    rounding = (actions[0] - actions[1]).abs().mean()
    assert 0 < rounding < 0.1 * (actions[0][0] - actions[0][1]).abs().mean()  # a tenth of what a seed changes
    for together, own in zip(mixed.actor.parameters(), alone.actor.parameters(), strict=True):
        torch.testing.assert_close(together[1], own[0], atol=2e-6, rtol=0)


def test_what_auto_means_is_told_by_the_machine() -> None:
    cpu = torch.device("cpu")
    assert has_bfloat16(cpu) == torch.cpu._is_avx512_bf16_supported()
    assert is_mixed("auto", cpu) == has_bfloat16(cpu) and is_mixed("mixed", cpu) and not is_mixed("float32", cpu)
    assert not has_bfloat16(torch.device("meta"))
    with pytest.raises(UsageError, match=r"policy.precision=mixd.*Did you mean 'mixed'"):
        is_mixed("mixd", cpu)
