"""The benchmark of IQL runs, and its plain side takes the step that ours takes."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest
import torch

from robopref.configs import cli
from robopref.configs.policy import IQLConfig
from robopref.policies import mixed
from robopref.policies.benchmarks import iql
from robopref.policies.iql import IQL
from robopref.preference.members import member_rngs


@pytest.mark.parametrize(("fast", "precision"), [(True, "bfloat16 products"), (False, "float32")])
def test_the_last_line_is_the_ratios(
    fast: bool, precision: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured_here(
        group, threads, rounds, seconds, twice
    ):  # processes, which tests of other benchmarks start, take 40 seconds
        rates = {}
        for name, make in group.items():
            steps = make()
            steps(1)
            started = time.perf_counter()
            steps(3)
            rates[name] = dict.fromkeys(threads, 3 / (time.perf_counter() - started))
        return rates

    monkeypatch.setattr(mixed, "has_bfloat16", lambda device: fast)
    monkeypatch.setattr(iql, "measure", measured_here)
    monkeypatch.setattr(iql, "prepare_processor", lambda threads: None)
    monkeypatch.setattr(iql, "compose", lambda name, words: {"policy": {"name": "iql", "hidden": [16, 16], "batch": 16}})
    assert cli.main(["bench", "iql"]) == 0
    measured = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert measured.pop("precision") == precision
    assert list(measured) == ["ratio", "ratio_float32", "ratio_one_seed", "fair"] and min(measured.values()) > 0
    assert (measured["ratio"] == measured["ratio_float32"]) != fast


def test_plain_and_batched_iql_take_the_same_step() -> None:
    data = replace(iql.noise(), terminals=(torch.arange(iql.EPISODES * iql.STEPS) % 3 == 0).float())
    config = IQLConfig(hidden=(16, 16), batch=32, dropout=0.0, actor="gaussian", reward_std=0.0, learning_rate=1e-3)
    seeds, member = (3, 4), 1
    batched, plain = IQL(config, data, seeds), iql.PlainIQL(config, data)
    networks = batched.networks

    def pairs() -> list[tuple[torch.nn.Module, torch.nn.Module, int]]:
        twins = [(networks.critic.mlp, plain.critics), (networks.target.mlp, plain.targets)]
        return [
            (plain.actor, batched.actor.mlp, member),
            (plain.value, networks.value, member),
            *((theirs[i], ours, 2 * i + member) for ours, theirs in twins for i in range(2)),
        ]

    def linear(module: torch.nn.Module) -> list[torch.nn.Linear]:
        return [layer for layer in module.modules() if isinstance(layer, torch.nn.Linear)]

    with torch.no_grad():
        for theirs, ours, number in pairs():
            for layer, own in zip(linear(theirs), ours.layers, strict=True):
                layer.weight.copy_(own.weight[number].T)
                layer.bias.copy_(own.bias[number, 0])
    (rng,) = member_rngs(seeds[member : member + 1], "training")
    numbers = torch.from_numpy(rng.integers(len(data), size=config.batch))
    losses = plain.train([column[numbers] for column in plain.buffer.columns])
    metrics = batched.update(0, member_rngs(seeds, "training"))
    for name, loss in losses.items():
        assert metrics[name][member].item() == pytest.approx(loss, rel=1e-5)
    for theirs, ours, number in pairs():
        for layer, own in zip(linear(theirs), ours.layers, strict=True):
            torch.testing.assert_close(layer.weight, own.weight[number].T, atol=1e-5, rtol=0)
            torch.testing.assert_close(layer.bias, own.bias[number, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(plain.log_std, batched.actor.log_std[member, 0], atol=1e-5, rtol=0)
