"""Simulator states: saved in mid-episode, they continue in another environment with the very same numbers."""

from __future__ import annotations

import numpy as np
import pytest

from robopref.configs.errors import RoboprefError
from robopref.embodied import simstate
from robopref.embodied.envs import MetaWorldEnv, make_env
from robopref.embodied.experts import ScriptedExpert, noisy
from robopref.embodied.tasks import TASKS

# A body moved by the reset; an attribute that views the physics; one made by the first step; a list; hidden targets.
SEVERAL = ("drawer-close", "door-lock", "bin-picking", "pick-place-wall", "faucet-open")


def play(env: MetaWorldEnv, actions: list[np.ndarray]) -> np.ndarray:
    """(T, 39 + 1 + number of infos): everything that the steps say."""
    rows = []
    for action in actions:
        observation, reward, _, _, info = env.step(action)
        rows.append(np.concatenate([observation, [reward], [float(info[key]) for key in sorted(info)]]))
    return np.array(rows)


def check_that_a_restored_state_continues_exactly(task: str) -> None:
    env, rng = make_env(f"metaworld/{task}"), np.random.default_rng(0)
    observation, _ = env.reset(seed=1)
    act = noisy(ScriptedExpert(task), 0.1, rng)
    start = simstate.save(env)
    for _ in range(40):
        observation, *_ = env.step(act(observation))
    saved = simstate.save(env)
    np.testing.assert_array_equal(saved.static, start.static)

    actions = []
    for _ in range(50):
        actions.append(act(observation))
        observation, *_ = env.step(actions[-1])
    simstate.restore(env, saved)
    expected = play(env, actions)
    np.testing.assert_array_equal(expected[-1, :39], observation)  # the way there had been the same

    fresh = make_env(f"metaworld/{task}", seed=99)
    simstate.restore(fresh, saved)
    again = simstate.save(fresh)
    np.testing.assert_array_equal(again.static, saved.static)
    np.testing.assert_array_equal(again.dynamic, saved.dynamic)
    np.testing.assert_allclose(play(fresh, actions), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(simstate.save_dynamic(fresh), simstate.save_dynamic(env), rtol=0, atol=1e-12)


@pytest.mark.parametrize("task", SEVERAL)
def test_a_state_restored_into_a_fresh_environment_continues_exactly(task):
    check_that_a_restored_state_continues_exactly(task)


@pytest.mark.slow
@pytest.mark.parametrize("task", sorted(set(TASKS) - set(SEVERAL)))
def test_so_in_every_other_task(task):
    check_that_a_restored_state_continues_exactly(task)


def test_success_within_the_episode_is_part_of_the_state():
    env = make_env("metaworld/reach")
    observation, _ = env.reset(seed=0)
    expert = ScriptedExpert("reach")
    info: dict = {"success": False}
    while not info["success"]:
        observation, _, _, _, info = env.step(expert(observation))
    state = simstate.save(env)
    env.reset(seed=1)
    simstate.restore(env, state)
    assert env.step(np.array([0.0, -1.0, 1.0, 0.0]))[4]["is_success"] is True


def test_the_step_limit_is_part_of_the_state():
    env = make_env("metaworld/reach")
    env.reset(seed=0)
    for _ in range(3):
        env.step(np.zeros(4))
    state = simstate.save(env)
    env.reset(seed=0)
    simstate.restore(env, state)
    truncated = [env.step(np.zeros(4))[3] for _ in range(497)]
    assert truncated == [False] * 496 + [True]


def test_restoring_brings_no_settings_along():
    seeing, blind = make_env("metaworld/reach"), make_env("metaworld/reach", goal_visible=False)
    seeing.reset(seed=0)
    blind.reset(seed=1)
    simstate.restore(blind, simstate.save(seeing))
    observation = blind.step(np.zeros(4))[0]
    np.testing.assert_array_equal(observation[36:], np.zeros(3))
    np.testing.assert_array_equal(observation[:36], seeing.step(np.zeros(4))[0][:36])


@pytest.mark.parametrize("task", ["drawer-close", "sweep", "faucet-open"])
def test_targets_are_where_the_task_means_them_after_restore_and_pose(task):
    env = make_env(f"metaworld/{task}")
    env.reset(seed=4)
    env.step(np.zeros(4))
    targets = env.unwrapped._target_site_config
    state = simstate.save(env)
    for put in (simstate.restore, lambda env, state: simstate.pose(env, state.static, state.dynamic)):
        other = make_env(f"metaworld/{task}", seed=8)
        other.reset()
        put(other, state)
        for name, position in targets:
            np.testing.assert_array_equal(other.unwrapped.data.site(name).xpos, position)
        np.testing.assert_allclose(other.unwrapped.data.xpos, env.unwrapped.data.xpos, rtol=0, atol=1e-12)


def test_states_of_another_task_or_format_are_refused(monkeypatch):
    drawer, door = make_env("metaworld/drawer-close"), make_env("metaworld/door-open")
    drawer.reset(seed=0)
    state = simstate.save(drawer)
    with pytest.raises(RoboprefError, match=r"do not belong to SawyerDoorEnvV3.*collect the episodes again"):
        simstate.restore(door, state)
    with pytest.raises(RoboprefError, match="do not belong"):
        simstate.restore(drawer, simstate.SimState(state.static[:-1], state.dynamic))
    with pytest.raises(RoboprefError, match="do not belong"):
        simstate.pose(drawer, state.static, state.dynamic[:-1])
    monkeypatch.setattr(simstate, "FORMAT", simstate.FORMAT + 1)
    with pytest.raises(RoboprefError, match="do not belong"):
        simstate.restore(make_env("metaworld/drawer-close"), state)


def test_nan_in_the_physics_is_refused():
    env = make_env("metaworld/drawer-close")
    env.reset(seed=0)
    state = simstate.save(env)
    state.dynamic[3] = np.nan
    with pytest.raises(RoboprefError, match="NaN"):
        simstate.restore(env, state)


def test_no_reset_changes_a_part_of_the_model_that_is_not_saved():
    for task in ("drawer-close", "assembly", "hammer", "basketball"):
        env = make_env(f"metaworld/{task}")
        before = model_fields(env)
        env.reset(seed=3)
        changed = {name for name, value in model_fields(env).items() if not np.array_equal(value, before[name])}
        assert changed <= set(simstate.MODEL_FIELDS), task


def model_fields(env: MetaWorldEnv) -> dict[str, np.ndarray]:
    model = env.unwrapped.model
    values = {name: getattr(model, name) for name in dir(model) if not name.startswith("_")}
    # mesh_polynormal holds uninitialised memory in mujoco 3.3
    arrays = {n: v for n, v in values.items() if isinstance(v, np.ndarray) and n != "mesh_polynormal"}
    return {name: value.copy() for name, value in arrays.items()}
