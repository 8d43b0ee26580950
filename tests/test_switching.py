"""Worlds that change: what is switched, when, and that nothing else is."""

from __future__ import annotations

import numpy as np
import pytest

from robopref.configs.errors import RoboprefError, UsageError
from robopref.configs.policy import SwitchConfig
from robopref.embodied.control import make_control
from robopref.embodied.fleet import Fleet
from robopref.embodied.switching import SwitchingEnv, model_of

SEQUENCE = ("walker-stand", "walker-walk", "walker-run")


def episode(env: SwitchingEnv, phase: int, seed: int = 7, steps: int = 30) -> np.ndarray:
    """Observations and rewards (steps, do + 1) of fixed actions."""
    env.enter(phase)
    env.reset(seed=seed)
    rows = []
    for action in np.random.default_rng(0).uniform(-1, 1, (steps, env.sizes[1])):
        obs, reward, terminated, *_ = env.step(action)
        rows.append(np.append(obs, reward))
        assert not terminated
    return np.stack(rows)


@pytest.mark.parametrize(
    ("env_id", "switch"),
    [
        ("mujoco/HalfCheetah-v5", SwitchConfig("friction")),
        ("mujoco/HalfCheetah-v5", SwitchConfig("observation")),
        ("metaworld/button-press", SwitchConfig("goal")),
        ("metaworld/button-press", SwitchConfig("tasks", tasks=("button-press", "drawer-open"))),
        ("dmc/walker-walk", SwitchConfig("tasks", tasks=SEQUENCE)),
        ("dmc/walker-walk", SwitchConfig("friction")),
    ],
)
def test_a_phase_is_a_function_of_its_number_and_the_seed(env_id: str, switch: SwitchConfig) -> None:
    if env_id.startswith("dmc/"):
        pytest.importorskip("dm_control", reason="the extra dmc is not installed")
    env, other = SwitchingEnv(env_id, 1, switch), SwitchingEnv(env_id, 1, switch)
    first, second = episode(env, 0), episode(env, 1)
    assert not np.array_equal(first, second)
    assert np.array_equal(episode(env, 0), first), "and back"
    assert np.array_equal(episode(other, 1), second), "whatever came before"


def test_friction_is_scaled_everywhere_and_at_first_left_alone() -> None:
    env = SwitchingEnv("mujoco/Hopper-v5", 1, SwitchConfig("friction", low=0.1, high=0.2))
    usual = model_of(make_control("mujoco/Hopper-v5")).geom_friction
    assert np.array_equal(model_of(env).geom_friction, usual)
    factors = []
    for phase in range(1, 30):
        episode(env, phase, steps=2)
        factors.append(env.factor)
        np.testing.assert_allclose(model_of(env).geom_friction[:, 0], usual[:, 0] * env.factor)
        assert np.array_equal(model_of(env).geom_friction[:, 1:], usual[:, 1:])
    assert 0.1 <= min(factors) < 0.12 and 0.18 < max(factors) <= 0.2 and len(set(factors)) == 29
    episode(env, 0, steps=2)
    assert np.array_equal(model_of(env).geom_friction, usual)


def test_a_phase_in_words() -> None:
    env = SwitchingEnv("mujoco/Hopper-v5", 1, SwitchConfig("friction", low=0.27, high=0.27))
    assert env.told == "phase 0, friction x 1"
    episode(env, 3, steps=1)
    assert env.told == "phase 3, friction x 0.27"
    assert SwitchingEnv("mujoco/Hopper-v5", 1, SwitchConfig("observation")).told == "phase 0"


def test_a_switch_waits_for_the_next_episode() -> None:
    env = SwitchingEnv("mujoco/HalfCheetah-v5", 1, SwitchConfig("friction"))
    whole = episode(env, 0, steps=20)
    env.reset(seed=7)
    env.enter(1)
    for number, action in enumerate(np.random.default_rng(0).uniform(-1, 1, (20, 6))):
        obs, reward, *_ = env.step(action)
        assert np.array_equal(np.append(obs, reward), whole[number])
    assert env.phase == 0
    env.reset(seed=7)
    assert env.phase == 1


def test_a_shifted_observation_changes_nothing_behind_it() -> None:
    env = SwitchingEnv("mujoco/HalfCheetah-v5", 1, SwitchConfig("observation", spread=0.3))
    first, second = episode(env, 0), episode(env, 4)
    assert np.array_equal(first[:, -1], second[:, -1]), "rewards"
    gain = (second[1:, :-1] - second[:-1, :-1]) / (first[1:, :-1] - first[:-1, :-1])
    np.testing.assert_allclose(gain, np.broadcast_to(gain[0], gain.shape), rtol=1e-6)
    assert (np.abs(np.log(gain[0])) <= 0.3).all() and gain[0].std() > 0.01


def test_goals_of_a_phase_are_one() -> None:
    env = SwitchingEnv("metaworld/drawer-close", 1, SwitchConfig("goal"))
    assert np.array_equal(env.reset(seed=1)[0], env.reset(seed=2)[0])
    env.enter(1)
    assert not np.array_equal(env.reset(seed=1)[0], env.reset(seed=1)[0] * 0)


@pytest.mark.parametrize(
    ("env_id", "switch", "told"),
    [
        ("mujoco/HalfCheetah-v5", SwitchConfig("frction"), "switch.kind=frction: one of none, friction"),
        ("mujoco/HalfCheetah-v5", SwitchConfig("goal"), "switch=goal is for metaworld/TASK"),
        ("mujoco/HalfCheetah-v5", SwitchConfig("friction", low=0.0), "0 < low <= high"),
        ("mujoco/HalfCheetah-v5", SwitchConfig("tasks"), r"give switch.tasks=\[A,B,...\]"),
        ("mujoco/HalfCheetah-v5", SwitchConfig("tasks", tasks=("HalfCheetah-v5", "Hopper-v5")), "give tasks of the same robot"),
    ],
)
def test_what_cannot_be_switched_is_told(env_id: str, switch: SwitchConfig, told: str) -> None:
    with pytest.raises((RoboprefError, UsageError), match=told):
        SwitchingEnv(env_id, 1, switch)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_fleet_goes_on_where_it_was(processes: int) -> None:
    def fleet(processes: int = 1) -> Fleet:
        return Fleet("mujoco/Hopper-v5", 1, SwitchConfig("friction"), (0, 5), 2, processes)

    actions = np.random.default_rng(0).uniform(-1, 1, (150, 2, 2, 3)).astype(np.float32)
    whole, part = fleet(), fleet(processes)
    for number, action in enumerate(actions):
        for one in (whole, part):
            one.enter(number // 50)
        step = whole.step(action)
        if number < 120:
            part.step(action)
        if number == 119:
            with part:
                packed = part.pack()
            part = fleet(processes)
            part.unpack(*packed)
            part.enter(2)
        if number >= 120:
            again = part.step(action)
            assert all(np.array_equal(a, b) for a, b in zip(step, again, strict=True))
    with part:
        assert whole.ended[-len(part.ended) :] == part.ended and len(part.ended) > 0
        assert len({row[1] for row in whole.ended}) == 3, "episodes of all phases"
        assert np.array_equal(whole.obs, part.obs)
    assert not np.array_equal(whole.obs[0], whole.obs[1]), "members and copies start differently"


def test_a_fleet_tells_the_end_of_an_episode_from_the_start_of_the_next() -> None:
    fleet = Fleet("mujoco/Hopper-v5", 1, SwitchConfig(), (0,), 1)
    while True:
        step = fleet.step(np.ones((1, 1, 3), np.float32))
        if step.done.any():
            break
        assert np.array_equal(step.next_obs, fleet.obs)
    assert step.terminated.all() and not np.array_equal(step.next_obs, fleet.obs)
    ((seed, phase, decisions, success, total),) = fleet.take()
    assert (seed, phase, success) == (0, 0, 0) and decisions > 5 and total > 5 and fleet.take() == []
    assert fleet.pack()[1] == [[1, 0, 0]], "the second episode, of which nothing has happened"


def test_an_error_in_another_process_is_told() -> None:
    with (
        Fleet("mujoco/Hopper-v5", 1, SwitchConfig(), (0,), 2, processes=2) as fleet,
        pytest.raises(
            RoboprefError, match=r"mujoco/Hopper-v5, frame 0: an action must be \(3,\) numbers in \[-1, 1\], got \[nan"
        ),
    ):
        fleet.step(np.array([[[0, 0, 0], [np.nan, 0, 0]]], np.float32))
