from __future__ import annotations

import itertools
import os
from collections.abc import Callable
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
from robopref.embodied.control import ControlEnv, make_control
from robopref.policies import experience, online
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (Path.unlink, "does not hold what the checkpoint of this run goes on from"),
        (lambda path: os.truncate(path, 2000), "is damaged"),
        (lambda path: path.write_bytes(b"x" * 10_000), "is damaged"),
        (lambda path: path.write_bytes(b""), "is damaged"),
        (lambda path: np.save(path, np.zeros_like(np.load(path))), "does not hold what the checkpoint"),
    ],
)
def test_without_its_experience_a_run_does_not_go_on(
    change: Callable[[Path], None], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = online.Run.save

    def killed(state: online.Run, path: Path, decided: int) -> None:
        save(state, path, decided)
        raise KeyboardInterrupt

    config = settings(tmp_path / "run")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(online.Run, "save", killed)
        online.run(config)
    kept = (config.out / ROWS).read_bytes()
    change(config.out / ROWS)
    for _ in range(2):  # what the first attempt leaves is refused too
        with pytest.raises(RoboprefError, match=rf"{ROWS} {message}.*: restore it, or begin anew with overwrite=true"):
            online.run(config)
    (config.out / ROWS).write_bytes(kept)
    assert (online.run(config) / "model.safetensors").exists()


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
    with pytest.raises(RoboprefError, match=r"other settings .seed=0 there, 1 asked for"):
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


@pytest.mark.parametrize(("warmup", "told"), [(9, False), (10, True)])
def test_a_warm_up_as_long_as_the_run_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], warmup: int, told: bool
) -> None:
    words = (
        f"train policy=sac env=mujoco/InvertedPendulum-v5 frames=20 action_repeat=2 warmup={warmup} eval_every=20 eval_episodes=1"
    )
    assert robopref([*words.split(), "policy.width=8", f"out={tmp_path / 'run'}"]) == 0
    shown = capsys.readouterr()
    warning = "warning: the warm-up, warmup=10 decisions, is not less than the run's 10 (frames=20, action_repeat=2): "
    warning += "nothing will be learnt; set warmup= or frames=\n"
    assert (warning in shown.err) == told and ("warning" in shown.err) == told
    assert shown.out.startswith(f"{tmp_path / 'run'}: sac, seed 0; next: ")


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


def test_what_time_ends_is_no_end_in_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values go on through a time limit and stop where the pole fell."""
    monkeypatch.setattr(online, "make_control", lambda env_id, repeat: TimeLimited(env_id, repeat))
    state = online.Run(settings(tmp_path), torch.device("cpu"))
    returns = [metrics["return"] for number in range(60) if "return" in (metrics := state.decide(number))]
    told, count = np.array(state.env.told), state.memory.added
    last = np.flatnonzero(told.any(1))
    assert returns == (np.diff([0, *last + 1]) - told[last, 0]).tolist(), "a pendulum pays 1 a decision, and nothing for its fall"
    rows = state.memory.rows[:count]
    assert count == 60 and told[:, 1].sum() > 3 and told[:, 0].sum() > 3, "both kinds of end came"
    assert np.array_equal(rows[:, -5].astype(bool), told[:, 0])
    # What follows an end is the first observation of the next episode, not the successor of the last one.
    ended = told.any(1)[:-1]
    follows = (rows[1:, :4] == rows[:-1, -4:]).all(1)
    assert np.array_equal(follows, ~ended)


class TimeLimited(online.ControlEnv):
    """A pendulum whose even episodes are cut after three decisions; `told` is (terminated, truncated) of every decision."""

    def __init__(self, env_id: str, repeat: int) -> None:
        super().__init__(make_control(env_id, repeat).env, env_id, repeat)
        self.told: list[tuple[bool, bool]] = []
        self.episodes = self.decided = 0

    def reset(self, **how: object):
        self.episodes, self.decided = self.episodes + 1, 0
        return super().reset(**how)

    def step(self, action: np.ndarray):
        obs, reward, terminated, _, info = super().step(action)
        self.decided += 1
        truncated = self.episodes % 2 == 0 and self.decided == 3 and not terminated
        self.told.append((terminated, truncated))
        return obs, reward, terminated, truncated, info


@pytest.mark.parametrize("fresh", [True, False])
def test_every_update_of_a_decision_has_a_batch_of_its_own_where_it_is_to_be_fresh(
    fresh: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = online.Run(settings(tmp_path, policy=replace(SMALL, repeats=3, fresh=fresh), warmup=20), torch.device("cpu"))
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(state, "update", lambda *batch: seen.append(batch[0]) or {})
    for number in range(22):
        state.decide(number)
    assert len(seen) == 6, "two decisions after the warm-up"
    same = [torch.equal(one, other) for one, other in itertools.pairwise(seen)]
    assert same == ([False] * 5 if fresh else [True, True, False, True, True])


def test_evaluation_draws_nothing_and_begins_where_no_episode_of_training_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: dict[str, list[bytes]] = {"training": [], "testing": [], "other": []}
    state = online.Run(settings(tmp_path, eval_episodes=3), torch.device("cpu"))

    def watched(env: ControlEnv, kind: str) -> None:
        """Note every start of `env` from now on."""
        reset = env.reset
        monkeypatch.setattr(env, "reset", lambda **how: starts[kind].append((out := reset(**how))[0].tobytes()) or out)

    watched(state.env, "training"), watched(state.testing, "testing")
    for number in range(60):
        state.decide(number)
    before = [rng.get_state() for rng in (state.agent.noise,)], state.rng.bit_generator.state
    first, second = state.evaluate(60), state.evaluate(60)
    assert first == second and len(set(starts["testing"])) == 3 and starts["testing"][:3] == starts["testing"][3:]
    assert len(starts["training"]) > 3 and not set(starts["training"]) & set(starts["testing"])
    assert torch.equal(before[0][0], state.agent.noise.get_state()) and before[1] == state.rng.bit_generator.state
    other = online.Run(settings(tmp_path / "other", seed=1), torch.device("cpu"))
    watched(other.testing, "other")
    other.evaluate(0)
    assert len(starts["other"]) == 2 and not set(starts["other"]) & set(starts["testing"]), "a run's own"


def test_the_return_and_success_of_an_evaluation_are_the_environments(tmp_path: Path) -> None:
    """By hand: three episodes of 2, 3 and 4 steps that pay 1 each, of which the second succeeds at its first step."""

    class Toy:
        episode = 1

        def reset(self, seed: int):
            self.episode, self.left = self.episode + 1, self.episode + 1
            return np.zeros(1), {}

        def step(self, action: np.ndarray):
            assert self.left > 0, "it went on after the end"
            first, self.left = self.left == self.episode, self.left - 1
            return (
                np.zeros(1),
                1.0,
                self.left == 0 and self.episode == 2,
                self.left == 0,
                {"success": self.episode == 3 and first},
            )

    told = online.judge(lambda obs: np.zeros(1), Toy(), settings(tmp_path, eval_episodes=3))
    assert told == {"return": 3.0, "sd": pytest.approx((2 / 3) ** 0.5), "success": pytest.approx(1 / 3)}


def test_a_new_reward_reaches_everything_that_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experience, "RELABEL_CHUNK", 8)
    memory = ExperienceMemory(tmp_path, "mujoco/x", 2, 1, capacity=21, spare=4)
    for number in range(30):  # the file is full: what is remembered begins in the middle of it, and not at a chunk
        memory.add(np.full(2, number), np.full(1, number / 100), -1.0, False, np.full(2, number + 1))
    memory.relabel(lambda obs, actions, next_obs: obs[:, 0] + actions[:, 0] + 1000 * next_obs[:, 1])
    batch = memory.sample(np.random.default_rng(0), 2000)
    numbers = batch.obs[:, 0]
    assert set(numbers.tolist()) == set(range(9, 30))
    torch.testing.assert_close(batch.rewards, numbers * 1.01 + 1000 * (numbers + 1))
    with pytest.raises(RoboprefError, match="step 9: the reward is not finite"):
        memory.relabel(lambda obs, actions, next_obs: np.where(obs[:, 0] == 15, np.nan, 0.0))
    assert torch.equal(memory.sample(np.random.default_rng(0), 2000).rewards, batch.rewards), "the old reward is untouched"


def test_observations_are_standardised_by_all_that_came_before() -> None:
    normaliser = experience.RunningNormaliser(3)
    x = torch.from_numpy(np.random.default_rng(0).normal([1.0, -2.0, 5.0], [0.5, 3.0, 0.0], (50, 3)))
    assert torch.equal(normaliser(x[:4].float()), x[:4].float()), "before the first one nothing changes"
    for row in x:
        normaliser.add(row)
    std = x.std(0, correction=0).clamp(min=experience.MIN_STD)
    torch.testing.assert_close(normaliser(x.float()), ((x - x.mean(0)) / std).float(), atol=1e-4, rtol=1e-4)


def test_a_memory_is_found_again_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    where = tmp_path / "deep" / "run"
    memory = ExperienceMemory(where, "mujoco/x", 2, 1, capacity=3, spare=2)
    for number in range(7):
        memory.add(np.full(2, number), np.full(1, 0.5), float(number), False, np.full(2, number + 1))
    memory.flush()
    again = ExperienceMemory(where, "mujoco/x", 2, 1, capacity=3, spare=2)
    assert len(again) == 0, "how much of it counts is its checkpoint's to say"
    again.added = 7
    assert set(again.sample(np.random.default_rng(0), 100).rewards.tolist()) == {4.0, 5.0, 6.0}
    obs, actions = again.segments(np.array([3, 4]), 3)
    assert obs[..., 0].tolist() == [[3, 4, 5], [4, 5, 6]] and actions.shape == (2, 3, 1) and (actions == 0.5).all()
    del memory, again
    np.save(where / ROWS, np.zeros((5, 9), np.float32))
    with pytest.raises(RoboprefError, match=r"experience\.npy is damaged \(shape \(5, 9\)\)"):
        ExperienceMemory(where, "mujoco/x", 2, 1, capacity=3, spare=2)
