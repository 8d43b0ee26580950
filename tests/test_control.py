from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from robopref.configs.cli import main as robopref
from robopref.configs.errors import RoboprefError
from robopref.configs.files import read_json
from robopref.embodied.control import ControlEnv, full_name, make_control, same_environment

ENVIRONMENTS = [
    "mujoco/InvertedPendulum-v5",
    "mujoco/HalfCheetah-v5",
    "metaworld/drawer-close",
    "dmc/walker-walk",
    "dmc/finger-turn-hard",
]


def made(env_id: str, repeat: int = 1) -> ControlEnv:
    if env_id.startswith("dmc/"):
        pytest.importorskip("dm_control", reason="the extra dmc is not installed")
    return make_control(env_id, repeat)


def trajectory(env: ControlEnv, seed: int, actions: np.ndarray) -> np.ndarray:
    rows = [np.append(env.reset(seed=seed)[0], 0.0)]
    for action in actions:
        obs, reward, *_ = env.step(action)
        rows.append(np.append(obs, reward))
    return np.stack(rows)


@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_seed_and_actions_decide_everything_that_happens(env_id: str) -> None:
    env, other = made(env_id), made(env_id)
    actions = np.random.default_rng(0).uniform(-0.1, 0.1, (6, *env.action_space.shape))
    first = trajectory(env, 3, actions)
    assert first.shape == (7, env.sizes[0] + 1)
    trajectory(env, 4, actions)
    assert np.array_equal(trajectory(env, 3, actions), first)
    assert np.array_equal(trajectory(other, 3, actions), first)
    assert not np.array_equal(trajectory(env, 4, actions)[0], first[0])


@pytest.mark.parametrize("env_id", ["mujoco/HalfCheetah-v5", "dmc/walker-walk"])
def test_a_repeated_action_sums_its_rewards(env_id: str) -> None:
    env, twice = made(env_id), made(env_id, 2)
    actions = np.random.default_rng(0).uniform(-1, 1, (4, *env.action_space.shape))
    frames, steps = trajectory(env, 0, actions.repeat(2, 0)), trajectory(twice, 0, actions)
    np.testing.assert_allclose(steps[1:, :-1], frames[2::2, :-1])
    np.testing.assert_allclose(steps[1:, -1], frames[1::2, -1] + frames[2::2, -1])


def test_time_limits_truncate_and_falls_terminate() -> None:
    env = made("mujoco/InvertedPendulum-v5")
    env.reset(seed=0)
    while not (result := env.step(np.ones(1)))[2]:
        assert not result[3]
    env = made("mujoco/HalfCheetah-v5", 300)
    env.reset(seed=0)
    ends = [env.step(np.zeros(6))[2:4] for _ in range(4)]
    assert ends == [(False, False)] * 3 + [(False, True)]


def test_actions_are_scaled_to_the_environments_own() -> None:
    env = made("mujoco/InvertedPendulum-v5")
    env.reset(seed=0)
    env.step(np.full(1, -1.0))
    assert env.unwrapped.data.ctrl[0] == env.unwrapped.action_space.low[0] == -3.0


@pytest.mark.parametrize("action", [np.array([np.nan]), np.array([1.5]), np.zeros(2)])
def test_wrong_actions_are_refused_by_their_frame(action: np.ndarray) -> None:
    env = made("mujoco/InvertedPendulum-v5")
    env.reset(seed=0)
    env.step(np.zeros(1))
    with pytest.raises(RoboprefError, match=r"InvertedPendulum-v5, frame 1: an action must be \(1,\) numbers in \[-1, 1\]"):
        env.step(action)


def test_an_unstable_simulation_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    env = made("mujoco/InvertedPendulum-v5")
    env.reset(seed=0)
    monkeypatch.setattr(env.env, "step", lambda action: (np.array([np.nan]), 1.0, False, False, {}))
    with pytest.raises(RoboprefError, match="frame 1: observation or reward is not finite"):
        env.step(np.zeros(1))


def test_actions_that_are_no_box_are_refused() -> None:
    with pytest.raises(RoboprefError, match="CartPole-v1: its actions are Discrete"):
        ControlEnv(gym.make("CartPole-v1"), "mujoco/CartPole-v1")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mujco/Ant-v5", "'mujoco'"),
        ("mujoco/HalfCheeta-v5", "'HalfCheetah-v5'"),
        ("metaworld/drawer-clse", "'drawer-close'"),
        ("walker", "SUITE|dmc"),
    ],
)
def test_unknown_names_have_a_hint(name: str, hint: str) -> None:
    with pytest.raises(RoboprefError, match=hint):
        make_control(name)


def test_a_short_name_is_the_newest_version() -> None:
    env = make_control("mujoco/halfcheetah")
    assert env.spec is not None and env.spec.id == "HalfCheetah-v5" and env.sizes == (17, 6)


def test_unknown_dmc_tasks_have_a_hint() -> None:
    pytest.importorskip("dm_control", reason="the extra dmc is not installed")
    with pytest.raises(RoboprefError, match="Did you mean 'walker-walk'"):
        make_control("dmc/waker-walk")


class Countdown(gym.Env):
    """Pays 1, 2, 3, ... and ends after `last` frames, for good or by time; a frame after that is an error."""

    observation_space, action_space = gym.spaces.Box(-9, 9, (1,)), gym.spaces.Box(-1, 1, (1,))

    def __init__(self, last: int, terminated: bool) -> None:
        self.last, self.terminated = last, terminated

    def reset(self, *, seed=None, options=None):
        self.frames = 0
        return np.zeros(1), {}

    def step(self, action):
        assert self.frames < self.last, "it went on after the end"
        self.frames += 1
        ended = self.frames == self.last
        return np.full(1, self.frames), float(self.frames), ended and self.terminated, ended and not self.terminated, {}


@pytest.mark.parametrize("terminated", [True, False])
def test_a_repeated_action_stops_at_an_end_of_either_kind(terminated: bool) -> None:
    env = ControlEnv(Countdown(6, terminated), "toy", repeat=4)
    env.reset(seed=0)
    obs, reward, *ends, _ = env.step(np.zeros(1))
    assert (obs.item(), reward, ends, env.frame) == (4, 1 + 2 + 3 + 4, [False, False], 4)
    obs, reward, *ends, _ = env.step(np.zeros(1))
    assert (obs.item(), reward, ends, env.frame) == (6, 5 + 6, [terminated, not terminated], 6)
    env.reset()
    assert env.frame == 0, "an error names the frame of its own episode"


def test_dmc_ends_by_time_alone_and_an_end_for_good_is_told() -> None:
    env = made("dmc/walker-walk", 250)
    env.reset(seed=0)
    ends = [env.step(np.zeros(6))[2:4] for _ in range(4)]
    assert ends == [(False, False)] * 3 + [(False, True)]

    import dm_env

    inner = env.env
    inner.reset(seed=0)
    shown = inner._env.step(np.zeros(6))
    inner._env.step = lambda action: dm_env.termination(1.0, shown.observation)  # discount 0
    assert inner.step(np.zeros(6))[2:4] == (True, False)
    inner._env.step = lambda action: dm_env.truncation(1.0, shown.observation)
    assert inner.step(np.zeros(6))[2:4] == (False, True)
    inner._env.step = lambda action: dm_env.transition(1.0, shown.observation, 0.0)  # not the last one
    assert inner.step(np.zeros(6))[2:4] == (False, False)


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("door-close", "metaworld/door-close"),
        ("door-close-v3", "metaworld/door-close"),
        ("hopper", "mujoco/hopper"),
        ("HalfCheetah-v5", "mujoco/HalfCheetah-v5"),
        ("pen", "adroit/pen"),
        ("metaworld/door-close", "metaworld/door-close"),
        ("nonsense/x", "nonsense/x"),  # whoever makes it says what is wrong
    ],
)
def test_a_suite_may_be_left_out_where_only_one_has_the_name(name: str, full: str) -> None:
    assert full_name(name) == full


def test_a_task_of_dmc_may_be_named_without_its_suite() -> None:
    pytest.importorskip("dm_control")
    assert full_name("walker-walk") == "dmc/walker-walk"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hammer", "there are several environments 'hammer': give metaworld/hammer or adroit/hammer"),
        (
            "dor-close",
            "Unknown environment 'dor-close': expected dmc, mujoco, metaworld, adroit/TASK. Near it are metaworld/door-close, ",
        ),
        ("CartPole-v1", "Unknown environment 'CartPole-v1': expected "),  # gymnasium has it, but MuJoCo does not simulate it
        ("", "Unknown environment '': expected "),
    ],
)
def test_other_names_without_a_suite_are_refused_with_what_is_near(name: str, said: str) -> None:
    with pytest.raises(RoboprefError) as caught:
        full_name(name)
    assert str(caught.value).startswith(said)


def test_one_environment_may_have_two_names() -> None:
    assert same_environment("mujoco/hopper", "mujoco/Hopper-v5") and same_environment("metaworld/reach-v3", "metaworld/reach")
    assert not same_environment("mujoco/hopper", "mujoco/Hopper-v4") and not same_environment("metaworld/hammer", "adroit/hammer")


def test_commands_take_the_short_name(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--policy", "random", "--goals", "1", "--references", "1", "--max-steps", "2", "--out", "out"]
    assert robopref(["evaluate", "--env", "door-close", *words]) == 0
    assert robopref(["evaluate", "--env", "metaworld/door-close", *words]) == 0, "the same run"
    assert read_json("out/manifest.json")["config"]["env"] == "metaworld/door-close"
    assert robopref(["train", "policy=sac", "env=hammer", "out=run"]) == 1
    assert capsys.readouterr().err == "error: there are several environments 'hammer': give metaworld/hammer or adroit/hammer\n"
    assert robopref(["video", "--policy", "random", "--env", "dor-close", "--out", "film"]) == 1
    assert "Near it are metaworld/door-close" in capsys.readouterr().err
    assert sorted(path.name for path in inside.iterdir()) == ["out"]
