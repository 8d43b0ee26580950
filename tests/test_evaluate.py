from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import point_reach
import pytest
import torch

from robopref.configs.cli import main as robopref
from robopref.configs.errors import RoboprefError
from robopref.configs.files import read_json
from robopref.configs.policy import EvaluateConfig
from robopref.embodied.evaluate import ActPolicy, evaluate, table
from robopref.embodied.statistics import summarise
from robopref.policies import evaluate as command
from robopref.policies.networks import Actor, save_policy
from robopref.policies.replay import Normaliser
from robopref.policies.results import read_success
from robopref.preference.members import member_rngs


def towards(obs: np.ndarray) -> np.ndarray:
    return np.clip(5 * (obs[1:2] - obs[:1]), -1, 1)


def test_an_episode_stops_at_success_and_says_when() -> None:
    results = evaluate(ActPolicy(towards), point_reach.PointEnv(), [3, 4])
    assert [result.goal for result in results] == [3, 4]
    for result in results:
        assert result.success
        assert result.success_step == result.steps - 1 < point_reach.STEPS - 1


def test_a_failure_lasts_as_long_as_it_may() -> None:
    policy = ActPolicy(lambda obs: np.sign(obs[:1] - obs[1:2]))
    env = point_reach.PointEnv()
    (result,) = evaluate(policy, env, [3])
    assert (result.success, result.success_step, result.steps) == (False, -1, point_reach.STEPS)
    (result,) = evaluate(policy, env, [3], max_steps=7)
    assert result.steps == 7
    assert result.ret == pytest.approx(-7.0)  # each step leads 0.1 away and costs 1


class PaysOn(point_reach.PointEnv):
    """It pays 1 a step at the goal, and goes on there, as Adroit's tasks do."""

    def step(self, action):
        obs, _, terminated, truncated, info = super().step(action)
        return obs, float(info["success"]), terminated, truncated, info


def test_by_return_an_episode_goes_on_after_success_and_by_success_it_ends() -> None:
    (cut,), (whole,) = (evaluate(ActPolicy(towards), PaysOn(), [3], protocol=protocol) for protocol in ("success", "return"))
    assert cut.success and whole.success and cut.success_step == whole.success_step == cut.steps - 1
    assert (cut.ret, whole.steps) == (1.0, point_reach.STEPS)
    assert whole.ret == point_reach.STEPS - whole.success_step  # it stays at the goal
    (never,) = evaluate(ActPolicy(lambda obs: np.sign(obs[:1] - obs[1:2])), PaysOn(), [3], max_steps=5, protocol="return")
    assert (never.success, never.success_step, never.ret, never.steps) == (False, -1, 0.0, 5)


@pytest.mark.parametrize(
    ("env", "protocol"), [("metaworld/door-open", "success"), ("dmc/walker-walk", "return"), ("mujoco/hopper", "return"),
                          ("adroit/door", "return")],
)  # fmt: skip
def test_an_environment_says_how_its_episodes_are_counted(env: str, protocol: str) -> None:
    config = EvaluateConfig(policy=("random",), out=Path("out"), env=env)
    assert command.protocol_asked(config) == protocol
    assert command.protocol_asked(replace(config, protocol="return")) == "return"


def test_the_command_counts_returns_where_it_is_asked_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--policy", "expert", "--env", "metaworld/drawer-close", "--goals", "1", "--max-steps", "90", "--out"]
    robopref(["evaluate", *argv, str(tmp_path / "whole"), "--protocol", "return"])
    whole = pd.read_csv(tmp_path / "whole" / "success.csv").iloc[0]
    assert whole["steps"] == 90 and whole["success"] and 0 < whole["success_step"] < 89
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert summary["expert"]["mean"] == pytest.approx(whole["ret"])
    told = capsys.readouterr().out
    assert f"expert: return {whole['ret']:.1f}" in told and "success 1.00" in told
    robopref(["evaluate", *argv, str(tmp_path / "cut")])
    assert pd.read_csv(tmp_path / "cut" / "success.csv").iloc[0]["ret"] < whole["ret"]


def test_the_same_goal_gives_the_same_episode() -> None:
    env = point_reach.PointEnv()
    first = evaluate(ActPolicy(towards), env, [5, 6])
    assert evaluate(ActPolicy(towards), env, [6, 5])[::-1] == first


def test_a_policy_is_judged_by_what_it_does_when_it_does_not_explore() -> None:
    class Exploring:
        def act(self, obs: np.ndarray, deterministic: bool = True) -> np.ndarray:
            assert deterministic, "it was asked to explore"
            return np.stack([towards(row) for row in obs]).astype(np.float32)

    env = point_reach.PointEnv()
    assert evaluate(Exploring(), env, [3, 4]) == evaluate(ActPolicy(towards), env, [3, 4])


def test_a_nan_action_names_goal_and_step() -> None:
    with pytest.raises(RoboprefError, match=r"goal 3, step 0: the policy returned \[nan\]"):
        evaluate(ActPolicy(lambda obs: obs[:1] * np.nan), point_reach.PointEnv(), [3])


def test_summary_has_a_row_a_policy_in_the_order_given() -> None:
    results = evaluate(ActPolicy(towards), point_reach.PointEnv(), [0, 1, 2])
    outcomes = pd.concat([table("b", 0, results), table("b", 1, results), table("a", 0, results)])
    summary = summarise(outcomes)
    assert list(summary) == ["b", "a"]
    assert summary["b"] == {"iqm": 1.0, "low": 1.0, "high": 1.0, "mean": 1.0, "n": 6, "members": 2, "goals": 3}


def learned(folder: Path, **about: str) -> Path:
    actor = Actor(member_rngs([0, 1], "weights"), 39, 4, [8])
    normaliser = Normaliser(torch.zeros(39), torch.ones(39))
    save_policy(folder, actor, normaliser, {"seeds": [0, 1], "policy": {"hidden": [8], "actor": "deterministic"}, **about})
    return folder


def test_the_command_writes_the_table_and_the_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy, out = learned(tmp_path / "cpl-vlp"), tmp_path / "evaluation"
    argv = ["--policy", "random", str(policy), "expert", "--env", "metaworld/drawer-close"]
    argv += ["--goals", "2", "--references", "1", "--max-steps", "120", "--out", str(out)]
    robopref(["evaluate", *argv])
    outcomes = pd.read_csv(out / "success.csv")
    assert list(outcomes.columns) == ["policy", "member", "goal", "success", "success_step", "ret", "steps"]
    assert outcomes.groupby("policy", sort=False).size().to_dict() == {"random": 2, "cpl-vlp": 4, "expert": 2}
    summary = json.loads((out / "summary.json").read_text())
    assert summary["expert"]["mean"] == 1.0
    assert set(summary["cpl-vlp"]) == {"iqm", "low", "high", "mean", "n", "members", "goals"}
    assert "expert: success 1.00 [1.00, 1.00], range over goals; 2 goals x 1 seed" in capsys.readouterr().out
    before = (out / "success.csv").stat().st_mtime_ns
    robopref(["evaluate", *argv])
    assert (out / "success.csv").stat().st_mtime_ns == before  # a finished evaluation is kept


def test_policies_keep_their_names_whatever_they_look_like(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["NA", "null", "None", "nan", "001", "1.0"]
    policies = [str(learned(tmp_path / name, env="metaworld/drawer-close")) for name in names]
    argv = ["evaluate", "--goals", "1", "--max-steps", "2", "--out"]
    assert robopref([*argv, str(tmp_path / "all"), "--policy", *policies]) == 0
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()][: len(names)] == names
    assert read_success(tmp_path / "all" / "success.csv") == {name: {"members": 2, "goals": 1} for name in names}
    assert robopref([*argv, str(tmp_path / "one"), "--policy", policies[4]]) == 0
    assert capsys.readouterr().out.startswith("001: success 0.00")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": ("exprt",)}, "no such folder.*Did you mean 'expert'"),
        ({"policy": ("random", "random")}, "two are called 'random'"),
        ({"policy": ()}, "at least one policy"),
        ({"goals": 0}, "--goals 0"),
        ({}, "--env auto: random and expert act anywhere; name one environment"),
        ({"env": "dmc/walker-walk", "protocol": "success"}, "dmc/walker-walk knows no success; give --protocol return"),
        ({"env": "metaworld/drawer-clse"}, "Did you mean 'drawer-close'"),
    ],
)
def test_bad_settings_say_what_to_do(tmp_path: Path, change: dict[str, object], message: str) -> None:
    settings = {"policy": ("random",), "out": tmp_path / "out"} | change
    with pytest.raises(RoboprefError, match=message):
        command.run(EvaluateConfig(**settings))
    assert not (tmp_path / "out").exists()


def test_a_policy_acts_where_it_was_trained_and_elsewhere_only_when_forced(tmp_path: Path, capsys) -> None:
    one, two, old = (learned(tmp_path / name, **about) for name, about in (
        ("one", {"env": "metaworld/drawer-close"}), ("two", {"env": "metaworld/door-open"}), ("old", {})
    ))  # fmt: skip
    settings = {"goals": 1, "max_steps": 3, "references": 1}
    out = command.run(EvaluateConfig((str(one), str(old), "random"), tmp_path / "out", **settings))
    assert read_json(out / "manifest.json")["config"]["env"] == "metaworld/drawer-close"
    elsewhere = EvaluateConfig((str(one),), tmp_path / "elsewhere", env="metaworld/door-open", **settings)
    with pytest.raises(
        RoboprefError, match=r"one was trained in metaworld/drawer-close, and --env is metaworld/door-open.*--force"
    ):
        command.run(elsewhere)
    assert not elsewhere.out.exists()
    command.run(replace(elsewhere, force=True))
    assert "note: " in capsys.readouterr().err and (elsewhere.out / "success.csv").exists()
    for policies, told in (((one, two), "two was trained in metaworld/door-open"), ((old,), "old does not say where")):
        with pytest.raises(RoboprefError, match=rf"--env auto: .*{told}"):
            command.run(EvaluateConfig(tuple(map(str, policies)), tmp_path / "no", **settings))


def test_force_does_not_let_a_policy_see_other_numbers(tmp_path: Path) -> None:
    policy = learned(tmp_path / "p", env="metaworld/drawer-close")
    config = EvaluateConfig((str(policy),), tmp_path / "out", env="mujoco/hopper", goals=1, max_steps=3, force=True)
    with pytest.raises(RoboprefError, match=r"39 numbers an observation, mujoco/hopper gives 11"):
        command.run(config)
    assert not config.out.exists()


def test_a_policy_for_other_observations_is_refused(tmp_path: Path) -> None:
    actor = Actor(member_rngs([0], "weights"), 7, 4, [8])
    normaliser = Normaliser(torch.zeros(7), torch.ones(7))
    save_policy(tmp_path / "p", actor, normaliser, {"seeds": [0], "policy": {"hidden": [8], "actor": "deterministic"}})
    with pytest.raises(RoboprefError, match=r"7 numbers.*39"):
        command.run(EvaluateConfig(policy=(str(tmp_path / "p"),), out=tmp_path / "out", env="metaworld/drawer-close", goals=1))


class Scripted:
    """An environment that succeeds at the given steps and ends after `last`, for good or by time; each step pays 1."""

    def __init__(self, at: set[int], last: int, terminated: bool = False) -> None:
        self.at, self.last, self.terminated = at, last, terminated

    def reset(self, seed: int) -> tuple[np.ndarray, dict]:
        self.taken = 0
        return np.zeros(1), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert self.taken < self.last, "it went on after the end"
        self.taken += 1
        ended = self.taken == self.last
        return np.zeros(1), 1.0, ended and self.terminated, ended and not self.terminated, {"success": self.taken - 1 in self.at}


@pytest.mark.parametrize("terminated", [True, False])
def test_the_first_success_counts_by_either_protocol_and_an_end_of_either_kind_ends(terminated: bool) -> None:
    def one(at: set[int], protocol: str) -> tuple:
        (result,) = evaluate(ActPolicy(lambda obs: obs), Scripted(at, 5, terminated), [0], protocol=protocol)
        return result.success, result.success_step, result.ret, result.steps

    assert one({0, 2}, "success") == (True, 0, 1, 1) and one({0, 2}, "return") == (True, 0, 5, 5)
    assert one({3, 4}, "success") == (True, 3, 4, 4) and one({3, 4}, "return") == (True, 3, 5, 5)
    assert one(set(), "success") == one(set(), "return") == (False, -1, 5, 5)


def test_a_table_begins_with_policy_and_member() -> None:
    rows = table("bc", 3, evaluate(ActPolicy(lambda obs: obs), Scripted(set(), 2), [7, 8]))
    assert list(rows) == ["policy", "member", "goal", "success", "success_step", "ret", "steps"]
    assert rows[["policy", "member", "goal"]].to_numpy().tolist() == [["bc", 3, 7], ["bc", 3, 8]]
