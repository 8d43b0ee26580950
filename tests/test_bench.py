"""The benchmarks run, with fewer rounds, and their last line is the JSON that the README promises."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest
import torch

from robopref.configs import cli
from robopref.configs.errors import RoboprefError
from robopref.configs.policy import CIRConfig, CPLConfig, PIQLConfig
from robopref.policies.benchmarks import annotate, cir, collect, downstream, gtr, prof, render, vlp
from robopref.policies.cir import CIR
from robopref.policies.cpl import CPL
from robopref.policies.experience import Experience
from robopref.policies.iql import PIQL
from robopref.preference.members import member_rngs


def last_line(capsys, name):
    assert cli.main(["bench", name]) == 0
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


def test_vlp(capsys, monkeypatch):
    monkeypatch.setattr(vlp, "ROUNDS", 3)  # the median of three: one step alone is at the mercy of what runs beside it
    monkeypatch.setattr(vlp, "CACHED_STEPS", 2)
    measured = last_line(capsys, "vlp")
    assert set(measured) == {"ratio", "tuples_per_s"} and measured["ratio"] > 1


def test_prof(capsys, monkeypatch):
    monkeypatch.setattr(prof, "TRANSITIONS", 3000)
    monkeypatch.setattr(prof, "CANDIDATES", 2)
    measured = last_line(capsys, "prof")
    assert set(measured) == {"ratio_to_60s", "peak_mb", "seabo_ratio_to_60s"}
    assert measured["ratio_to_60s"] > 1 and measured["seabo_ratio_to_60s"] > 1 and 0 < measured["peak_mb"] < 3000


def test_a_table_holds_the_last_run_of_each(tmp_path, monkeypatch, capsys):
    runs = [{"ratio": {"64": 30.0, "224": 15.5}}, {"ratio": 12.4, "tuples_per_s": 857.1}, {"ratio": {"64": 31.0, "224": 16.0}}]
    measured = iter(runs)
    for module in (render, vlp):
        monkeypatch.setattr(module, "run", lambda: next(measured))
    table = tmp_path / "bench.csv"
    for name in ("render", "vlp", "render"):
        assert cli.main(["bench", name, "--csv", str(table)]) == 0
    assert table.read_text().splitlines() == [
        "benchmark,measure,value",
        "vlp,ratio,12.4",
        "vlp,tuples_per_s,857.1",
        "render,ratio.64,31.0",
        "render,ratio.224,16.0",
    ]
    table.write_text("task,seed\nreach,0\n")
    assert cli.main(["bench", "vlp", "--csv", str(table)]) == 1  # nothing is left to measure: it was told before
    assert "bench.csv: no table of `robopref bench`" in capsys.readouterr().err


def test_render(capsys, monkeypatch):
    monkeypatch.setattr(render, "ROUNDS", 1)
    measured = last_line(capsys, "render")
    assert set(measured["ratio"]) == {"64", "224"} and min(measured["ratio"].values()) > 1


def test_collect(capsys, monkeypatch):
    monkeypatch.setattr(collect, "TASKS", ("drawer-open", "reach"))
    monkeypatch.setattr(collect, "EPISODES", 1)
    measured = last_line(capsys, "collect")
    assert set(measured) == {"ratio", "scaling", "clips_per_s"} and measured["ratio"] > 1


def test_annotate(capsys, monkeypatch):
    for name, value in {"PAIRS": 20, "CLIPS": 8, "SAMPLE": 4, "FEW": 2, "MANY": 4}.items():
        monkeypatch.setattr(annotate, name, value)
    measured = last_line(capsys, "annotate")
    assert set(measured) == {"ratio", "peak_mb"} and measured["peak_mb"] > 0


def test_gtr(capsys, monkeypatch):
    for name, value in {"ROUNDS": 1, "TURN_S": 0.0, "THREADS": (1,)}.items():
        monkeypatch.setattr(gtr, name, value)
    measured = last_line(capsys, "gtr")
    assert set(measured["ratio"]) == {"halfcheetah", "button-press"} and min(measured["ratio"].values()) > 1


def test_downstream(capsys, monkeypatch):
    monkeypatch.setattr(downstream, "ROUNDS", 1)
    monkeypatch.setattr(downstream, "TURN_S", 0.0)
    monkeypatch.setattr(downstream, "THREADS", (1,))
    small = {"hidden": (8, 8), "batch": 8, "pairs": 4}
    monkeypatch.setattr(downstream, "PIQLConfig", lambda: PIQLConfig(**small))
    monkeypatch.setattr(downstream, "CPLConfig", lambda: CPLConfig(**small))
    measured = last_line(capsys, "downstream")
    assert set(measured) == {"ratio", "paper"} and min(measured.values()) > 0


SIZES = {"hidden": (16, 16), "batch": 16, "dropout": 0.0, "pairs": 4}


def put_into(plain: torch.nn.Module, batched: torch.nn.Module, member: int) -> None:
    """A member's weights into plain layers."""
    linear = [module for module in plain.modules() if isinstance(module, torch.nn.Linear)]
    with torch.no_grad():
        for ours, theirs in zip(linear, batched.mlp.layers if hasattr(batched, "mlp") else batched.layers, strict=True):
            ours.weight.copy_(theirs.weight[member].T)
            ours.bias.copy_(theirs.bias[member, 0])


def assert_same(plain: torch.nn.Module, batched: torch.nn.Module, member: int) -> None:
    linear = [module for module in plain.modules() if isinstance(module, torch.nn.Linear)]
    for ours, theirs in zip(linear, batched.mlp.layers if hasattr(batched, "mlp") else batched.layers, strict=True):
        torch.testing.assert_close(ours.weight, theirs.weight[member].T, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours.bias, theirs.bias[member, 0], atol=1e-5, rtol=1e-5)


def test_plain_and_batched_p_iql_take_the_same_step():
    data, pairs = downstream.noise()
    config, seeds, member = PIQLConfig(**SIZES, learning_rate=1e-3, segment_steps=5), (3, 4), 1
    batched, rngs = PIQL(config, data, pairs, seeds), member_rngs(seeds, "training")
    plain = downstream.PlainPIQL(config, data, pairs, seeds[member])
    networks = batched.iql.networks
    put_into(plain.actor, batched.actor, member)
    put_into(plain.value, networks.value, member)
    put_into(plain.reward, batched.reward, member)
    for critic in range(2):  # networks 0 and 1 are the first critics of both members, 2 and 3 the second
        put_into(plain.critics[critic], networks.critic, 2 * critic + member)
        put_into(plain.targets[critic], networks.critic, 2 * critic + member)

    said = [batched.update_reward(rngs)["reward"][member], plain.update_reward()]
    torch.testing.assert_close(*said)
    assert_same(plain.reward, batched.reward, member)
    plain.rewards = batched.iql.rewards[member]
    ours, theirs = batched.iql.update(7, rngs), plain.update(7)
    for name, loss in theirs.items():
        torch.testing.assert_close(ours[name][member], loss)
    assert_same(plain.actor, batched.actor, member)
    assert_same(plain.value, networks.value, member)
    for critic in range(2):
        assert_same(plain.critics[critic], networks.critic, 2 * critic + member)
        assert_same(plain.targets[critic], networks.target, 2 * critic + member)


def test_plain_and_batched_cpl_take_the_same_steps():
    data, pairs = downstream.noise()
    config, seeds, member = CPLConfig(**SIZES, clone_weight=0.3, clone_from="transitions"), (3, 4), 1
    batched, rngs = CPL(replace(config, steps=10), data, pairs, seeds), member_rngs(seeds, "training")
    plain = downstream.PlainCPL(replace(config, steps=10), data, pairs, seeds[member])
    put_into(plain.actor, batched.actor, member)
    torch.testing.assert_close(batched.clone(rngs)["clone"][member], plain.clone())
    assert_same(plain.actor, batched.actor, member)
    torch.testing.assert_close(batched.prefer(0, rngs)["cpl"][member], plain.prefer(0))
    assert_same(plain.actor, batched.actor, member)


def test_cir(capsys, monkeypatch):
    for name, value in {"ROUNDS": 1, "TURN_S": 0.0, "THREADS": (1,), "WARMUP": 110}.items():
        monkeypatch.setattr(cir, name, value)
    monkeypatch.setattr(cir.shutil, "which", lambda name: None)  # compiling takes half a minute
    monkeypatch.setattr(cir, "compose", lambda name, words: {"policy": {"width": 16, "batch": 16}})
    measured = last_line(capsys, "cir")
    assert list(measured) == ["ratio_256", "ratio_512"] and min(measured.values()) > 0


def put_flat(plain: torch.nn.Module, flat: torch.nn.Module, names: list[str], head: int) -> None:
    """Weights of one network of a flat array into plain layers."""
    linear = [module for module in plain.modules() if isinstance(module, torch.nn.Linear)]
    with torch.no_grad():
        for layer, name in zip(linear, names, strict=True):
            layer.weight.copy_(flat.weights[f"{name}.weight"][head].T)
            layer.bias.copy_(flat.weights[f"{name}.bias"][head, 0])


def test_the_peer_in_jax_runs_under_its_own_python(tmp_path, monkeypatch):
    """Here with a stand-in for sbx, which is not a dependency: it writes down what it is asked to learn."""
    log = tmp_path / "log"
    (tmp_path / "sbx.py").write_text(
        "import os\n"
        "class SAC:\n"
        "    def __init__(self, *_, **settings): self.settings = settings\n"
        "    def learn(self, count, **_):\n"
        f"        line = f'{{count}} of {{self.settings[\"learning_starts\"]}} on {{len(os.sched_getaffinity(0))}}'\n"
        f"        print(line, file=open({str(log)!r}, 'a'))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    steps = cir.in_jax(sys.executable, 7)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        steps(3)
        steps(5)
    finally:
        torch.set_num_threads(before)
    assert log.read_text().splitlines() == ["7 of 7 on 1", "3 of 7 on 1", "5 of 7 on 1"]

    (tmp_path / "sbx.py").write_text("raise ImportError\n")
    with pytest.raises(RoboprefError, match="needs sbx-rl"):
        cir.in_jax(sys.executable, 7)(1)
    with pytest.raises(RoboprefError, match="No such file"):
        cir.in_jax(str(tmp_path / "python"), 7)(1)


def test_plain_and_our_cir_take_the_same_step():
    config = CIRConfig(width=16)
    fast, plain = CIR(config, 3, 2, seed=0), cir.PlainCIR(config, 3, 2, seed=0)
    layers, actor = ["d0", "d1", "d2", "u1", "m1", "u2", "m2", "q"], ["d0", "d1", "out"]
    for head in range(2):
        put_flat(plain.critics[head], fast.critic, layers, head)
        put_flat(plain.targets[head], fast.target, layers, head)
    put_flat(plain.actor, fast.actor, actor, 0)
    rng = torch.Generator().manual_seed(0)
    for _ in range(3):
        obs, next_obs = torch.randn(2, 8, 3, generator=rng)
        actions, rewards = torch.rand(8, 2, generator=rng) * 2 - 1, torch.randn(8, generator=rng)
        batch = Experience(obs, actions, rewards, torch.zeros(8), next_obs)
        ours, theirs = fast.update(batch), plain.update(batch)
        for name, loss in theirs.items():
            torch.testing.assert_close(ours[name], loss, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(plain.log_alpha.detach(), fast.actor.weights["log_alpha"], atol=1e-5, rtol=1e-3)
    norm = plain.critics[0].norm
    torch.testing.assert_close(norm.weight.detach(), fast.critic.weights["all.scale"].view(-1), atol=1e-4, rtol=1e-4)
    for plains, flat in ((plain.critics, fast.critic), (plain.targets, fast.target)):
        for head in range(2):
            linear = [module for module in plains[head].modules() if isinstance(module, torch.nn.Linear)]
            theirs = torch.cat([value.detach().flatten() for layer in linear for value in (layer.weight.T, layer.bias)])
            ours = torch.cat([flat.weights[f"{name}.{kind}"][head].flatten() for name in layers for kind in ("weight", "bias")])
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)


def test_a_mistyped_name_is_an_error_that_lists_the_choices(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["bench", "rendr"])
    said = capsys.readouterr()
    assert stopped.value.code == 2 and "render" in said.out + said.err
