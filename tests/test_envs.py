"""Environments: seeds, spaces, success; the library facts behind them are in test_assumptions.py."""

from __future__ import annotations

import numpy as np
import pytest

from robopref.configs.errors import RoboprefError
from robopref.embodied.envs import make_env
from robopref.embodied.experts import ScriptedExpert, mismatched, noisy
from robopref.embodied.rollout import rollout


@pytest.fixture(scope="module")
def env():
    env = make_env("metaworld/drawer-close", seed=3)
    yield env
    env.close()


def test_the_same_seed_gives_the_same_start_and_another_seed_another(env):
    first, _ = env.reset(seed=11)
    other, _ = env.reset(seed=12)
    again, _ = env.reset(seed=11)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    elsewhere, _ = make_env("metaworld/drawer-close").reset(seed=11)
    np.testing.assert_array_equal(first, elsewhere)


def test_without_a_seed_the_stream_goes_on_with_new_starts(env):
    env.reset(seed=11)
    starts = [env.reset()[0] for _ in range(3)]
    assert np.abs(starts[0] - starts[1]).max() > 1e-3 and np.abs(starts[1] - starts[2]).max() > 1e-3


def test_observations_lie_in_the_declared_space_and_show_the_goal(env):
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation) and observation.shape == (39,)
    assert np.abs(observation[36:]).max() > 0
    observation, _, _, _, _ = env.step(np.zeros(4))
    assert env.observation_space.contains(observation)
    hidden, _ = make_env("metaworld/drawer-close", goal_visible=False).reset(seed=0)
    np.testing.assert_array_equal(hidden[36:], np.zeros(3))


@pytest.mark.parametrize(("name", "objects"), [("button-press", 1), ("assembly", 1), ("stick-push", 2), ("hammer", 2)])
def test_what_looks_at_a_task_sees_to_the_bit_what_the_tasks_own_code_sees(name, objects):
    env, rng = make_env(f"metaworld/{name}", seed=1), np.random.default_rng(0)
    env.reset()
    sawyer = env.unwrapped
    for _ in range(20):
        env.step(rng.uniform(-1, 1, 4))
        seen, own = sawyer._get_curr_obs_combined_no_goal(), type(sawyer)._get_curr_obs_combined_no_goal(sawyer)
        assert seen.dtype == own.dtype and seen.tobytes() == own.tobytes()
    assert len(sawyer._get_pos_objects()) == 3 * objects
    env.close()


def test_is_success_remembers_a_success_within_the_episode(env):
    observation, info = env.reset(seed=5)
    assert info["is_success"] is False
    expert = ScriptedExpert("drawer-close")
    for _ in range(200):
        observation, _, terminated, truncated, info = env.step(expert(observation))
        assert not terminated and not truncated
        if info["success"]:
            break
    assert info["is_success"] is True
    for _ in range(60):
        observation, _, _, _, info = env.step(np.array([0.0, -1.0, 1.0, 0.0]))
    assert info["is_success"] is True
    assert env.reset()[1]["is_success"] is False


def test_an_episode_is_truncated_after_500_steps(env):
    env.reset(seed=0)
    truncated = [env.step(np.zeros(4))[3] for _ in range(500)]
    assert truncated.index(True) == 499


@pytest.mark.parametrize("name", ["metaworld/drawer-clos", "metawolrd/drawer-close", "drawer-close"])
def test_an_unknown_name_is_an_error_that_helps(name):
    with pytest.raises(RoboprefError, match=r"drawer-close|metaworld"):
        make_env(name)


@pytest.mark.parametrize("action", [np.full(4, np.nan), np.zeros(3), np.array([np.inf, 0, 0, 0])])
def test_an_action_that_is_no_action_is_refused(env, action):
    env.reset(seed=0)
    with pytest.raises(RoboprefError, match="finite"):
        env.step(action)


def test_rollout_is_a_function_of_its_seed_and_ends_after_success(env):
    def play(seed):
        rng = np.random.default_rng(seed)
        act = noisy(ScriptedExpert("drawer-close"), 0.1, rng)
        return rollout(env, act, seed=seed, level="expert", policy="test", linger=10)

    one, two = play(4), play(4)
    np.testing.assert_array_equal(one.observations, two.observations)
    np.testing.assert_array_equal(one.sim_dynamic, two.sim_dynamic)
    assert one.success.any() and len(one) == one.success.argmax() + 1 + 10
    assert one.observations.shape == (len(one) + 1, 39) and one.actions.shape == (len(one), 4)
    cut = one.cut(7, "medium")
    assert len(cut) == 7 and len(cut.sim_dynamic) == 8 and cut.level == "medium"


def test_a_mismatched_expert_believes_in_another_episodes_object_but_feels_its_own_hand(env):
    own, _ = env.reset(seed=1)
    other, _ = env.reset(seed=2)
    seen = []
    mismatched(lambda observation: seen.append(observation) or np.zeros(4), own, other)(own)
    np.testing.assert_allclose(seen[0][4:18], other[4:18])
    np.testing.assert_allclose(seen[0][36:], other[36:])
    np.testing.assert_array_equal(seen[0][:4], own[:4])
