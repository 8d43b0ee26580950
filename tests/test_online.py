from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from robopref.configs.checkpoint import load_model
from robopref.configs.cli import main as robopref
from robopref.configs.errors import RoboprefError
from robopref.configs.hydra import compose, to_dataclass
from robopref.configs.policy import CIRConfig, FeedbackConfig, OnlineConfig
from robopref.configs.vlp import OrdersConfig
from robopref.policies import online
from robopref.policies.experience import ROWS, ExperienceMemory
from robopref.policies.networks import load_policy

SMALL = CIRConfig(width=16, batch=16)
STANDARDISED = replace(SMALL, standardise=True)


def settings(out: Path, **changes: object) -> OnlineConfig:
    config = OnlineConfig(
        out, "mujoco/InvertedPendulum-v5", SMALL, frames=150, action_repeat=1, warmup=40, capacity=100, eval_every=50,
        eval_episodes=2, checkpoint_every=60, device="cpu",
    )  # fmt: skip
    return replace(config, **changes)


@pytest.mark.parametrize(("policy", "seen"), [(SMALL, 0), (STANDARDISED, 7)])
def test_observations_are_counted_where_they_are_to_be_standardised(policy: CIRConfig, seen: int, tmp_path: Path) -> None:
    state = online.Run(settings(tmp_path, policy=policy), torch.device("cpu"))
    for number in range(7):
        state.decide(number)
    assert state.agent.normaliser.count == seen


ON_A_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]


@pytest.mark.parametrize(
    ("policy", "device"),
    [
        (SMALL, "cpu"),
        (STANDARDISED, "cpu"),
        pytest.param(SMALL, "cuda", marks=ON_A_GPU),
        pytest.param(replace(SMALL, cuda_graph=False), "cuda", marks=ON_A_GPU),
    ],
)
def test_killed_and_continued_is_the_same_as_uninterrupted(
    policy: CIRConfig, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = online.run(settings(tmp_path / "whole", policy=policy, device=device))
    save = online.Run.save

    def killed(state: online.Run, path: Path, decided: int) -> None:
        save(state, path, decided)
        for _ in range(7):  # what a process does between its last checkpoint and its end
            state.decide(decided)
        raise KeyboardInterrupt

    config = settings(tmp_path / "parts", policy=policy, device=device)
    for _ in range(2):  # at decision 60, and continued from there, at 120
        monkeypatch.setattr(online.Run, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            online.run(config)
        torch.manual_seed(99)
        np.random.seed(99)
    monkeypatch.setattr(online.Run, "save", save)
    parts = online.run(config)

    models = [load_model(folder, "policy")[0] for folder in (whole, parts)]
    for key, tensor in models[0].items():
        assert torch.equal(tensor, models[1][key]), key
    assert np.array_equal(*(np.load(folder / ROWS) for folder in (whole, parts)))
    tables = [pd.read_csv(folder / online.EVALUATION) for folder in (whole, parts)]
    pd.testing.assert_frame_equal(*tables)
    assert tables[0]["frame"].tolist() == [50, 100, 150]
    logs = [pd.read_csv(folder / "metrics.csv").drop(columns="charts/decisions_per_second") for folder in (whole, parts)]
    pd.testing.assert_frame_equal(*logs)
    told = logs[0][["step", "evaluation/return"]].dropna().to_numpy()
    np.testing.assert_allclose(told, tables[0][["frame", "return"]], atol=1e-4)
    assert not (parts / "checkpoint.safetensors").exists()


def test_denormal_numbers_are_flushed_only_while_it_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    evaluate = online.Run.evaluate

    def watched(state: online.Run, frame: int) -> dict[str, float]:
        seen.append((torch.tensor(1e-38) / 16).item())
        return evaluate(state, frame)

    monkeypatch.setattr(online.Run, "evaluate", watched)
    online.run(settings(tmp_path, frames=50))
    assert seen == [0.0]
    assert (torch.tensor(1e-38) / 16).item() > 0


def test_the_memory_keeps_the_last_transitions(tmp_path: Path) -> None:
    memory = ExperienceMemory(tmp_path, "mujoco/x", 2, 1, capacity=3)
    for number in range(5):
        memory.add(np.full(2, number), np.array([0.5]), float(number), number == 4, np.full(2, number + 1))
    assert len(memory) == 3
    batch = memory.sample(np.random.default_rng(0), 200)
    assert set(batch.rewards.tolist()) == {2.0, 3.0, 4.0}
    torch.testing.assert_close(batch.next_obs, batch.obs + 1)
    torch.testing.assert_close(batch.obs[:, 0], batch.rewards)
    assert torch.equal(batch.terminated, (batch.rewards == 4).float())
    assert batch.actions.unique().tolist() == [0.5]


def test_a_memory_of_another_environment_is_refused(tmp_path: Path) -> None:
    ExperienceMemory(tmp_path, "mujoco/x", 2, 1, capacity=3)
    with pytest.raises(RoboprefError, match=r"experience\.npy holds experience of .*mujoco/x"):
        ExperienceMemory(tmp_path, "mujoco/y", 2, 1, capacity=3)


def test_a_reward_that_is_no_number_is_refused_by_its_step(tmp_path: Path) -> None:
    memory = ExperienceMemory(tmp_path, "mujoco/x", 2, 1, capacity=3)
    memory.add(np.zeros(2), np.zeros(1), 0.0, False, np.zeros(2))
    with pytest.raises(RoboprefError, match="step 1: the reward is nan"):
        memory.add(np.zeros(2), np.zeros(1), float("nan"), False, np.zeros(2))
    assert len(memory) == 1


def test_a_checkpoint_of_other_settings_is_not_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = online.Run.save

    def killed(*args: object) -> None:
        save(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(online.Run, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        online.run(settings(tmp_path))
    with pytest.raises(RoboprefError, match="another seed"):
        online.run(settings(tmp_path, seed=1))


@pytest.mark.parametrize("policy", [SMALL, STANDARDISED])
def test_the_saved_policy_acts_as_the_agent_does(policy: CIRConfig, tmp_path: Path) -> None:
    config = settings(tmp_path, policy=policy)
    state = online.Run(config, torch.device("cpu"))
    for number in range(40):
        state.decide(number)
    online.save(config, state.agent)
    obs = np.random.default_rng(0).normal(size=(5, 4))
    expected = np.stack([state.agent.act(row, deterministic=True) for row in obs])
    np.testing.assert_allclose(load_policy(tmp_path).act(obs), expected, atol=1e-6)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "train policy=sac env=mujoco/InvertedPendulum-v5 frames=60 action_repeat=1 warmup=40 eval_every=30 eval_episodes=1"
    assert robopref([*words.split(), "policy.width=8", f"out={tmp_path / 'run'}"]) == 0
    assert (tmp_path / "run" / "model.safetensors").exists()
    assert robopref(["train", "policy=cir", "env=mujoco/InvertedPendulm-v5", f"out={tmp_path / 'other'}"]) == 1
    assert "Did you mean 'InvertedPendulum-v5'?" in capsys.readouterr().err


def test_a_sweep_over_agents_and_the_papers_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "env=mujoco/InvertedPendulum-v5 frames=60 action_repeat=1 warmup=40 eval_every=60 eval_episodes=1 policy.width=8"
    assert robopref(["train", "-m", "policy=cir,sac", *words.split(), f"out={tmp_path}"]) == 0
    kinds = [load_model(tmp_path / f"policy={name}", "policy")[1]["policy"]["critic"] for name in ("cir", "sac")]
    assert kinds == ["constrained", "mlp"]
    assert robopref(["train", "-m", "policy=cir,bc", *words.split(), f"out={tmp_path}"]) == 2
    assert "sweep over cir, sac alone" in capsys.readouterr().err

    assert robopref(["train", "experiment=cir_paper", "-h"]) == 0
    assert "experiment/cir_paper.yaml" in capsys.readouterr().out
    found = to_dataclass(OnlineConfig, compose("train_online", ["experiment=cir_paper", "env=dmc/walker-walk"]))
    assert found.policy == CIRConfig(), "the paper's setting is what the dataclass says, whatever becomes the default"
    assert (found.frames, found.action_repeat, found.warmup, found.eval_every) == (500_000, 2, 2500, 5000)
    usual = to_dataclass(OnlineConfig, compose("train_online", ["policy=cir", "env=dmc/walker-walk"]))
    assert usual.policy == replace(found.policy, fresh=True, initial_temperature=0.1)
    sac = to_dataclass(OnlineConfig, compose("train_online", ["policy=sac", "env=dmc/walker-walk"]))
    assert (sac.policy.fresh, sac.policy.initial_temperature, sac.policy.repeats) == (False, 1.0, 1)
    asking = to_dataclass(OnlineConfig, compose("train_online", ["experiment=cir_vlp", "env=metaworld/drawer-close"]))
    assert (asking.reward, asking.action_repeat, asking.hold) == ("vlp", 1, 20)
    assert asking.policy == CIRConfig(width=256, precision="mixed") and asking.feedback == FeedbackConfig(tie_margin=0.2)
    told = compose("train_online", ["experiment=cir_vlp", "env=metaworld/drawer-close", "reward=true"])
    assert to_dataclass(OnlineConfig, told) == replace(asking, reward="true")


def test_a_random_action_is_held(tmp_path: Path) -> None:
    state = online.Run(settings(tmp_path, hold=5.0), torch.device("cpu"))
    actions = []
    for _ in range(2000):
        actions.append(state.explore())
        state.actions = actions
    drawn = np.array(actions)
    changes = (drawn[1:] != drawn[:-1]).any(1).mean()
    assert 0.16 < changes < 0.24, "every fifth decision, on average"
    assert 0.4 < (np.abs(drawn) == 1).mean() < 0.6
    state.actions = []
    assert not np.array_equal(state.explore(), actions[-1]), "an episode begins with another one"


def test_every_setting_can_be_given_on_the_command_line() -> None:
    """Hydra refuses a key that its file does not have, whatever the dataclass says."""
    known = compose("train_online", ["env=dmc/walker-walk"])
    for part, kind in ((known, OnlineConfig), (known["policy"], CIRConfig), (known["feedback"], FeedbackConfig)):
        assert set(part) == {one.name for one in fields(kind)}
    assert set(compose("train_vlp")["orders"]) == {one.name for one in fields(OrdersConfig)}


@pytest.mark.parametrize(
    "changes", [{"action_repeat": 0}, {"eval_every": 1, "action_repeat": 2}, {"frames": 0}, {"seed": -1}, {"hold": 0.5}]
)
def test_sizes_that_cannot_be_are_refused(tmp_path: Path, changes: dict[str, int]) -> None:
    with pytest.raises(RoboprefError, match=next(iter(changes))):
        online.run(settings(tmp_path, **changes))
    assert not list(tmp_path.iterdir())
