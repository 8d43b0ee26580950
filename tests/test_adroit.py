from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from robopref.configs.errors import RoboprefError
from robopref.datasets.d4rl import clipped, read_d4rl
from robopref.datasets.d4rl_names import reference_score
from robopref.embodied.control import ADROIT, ControlEnv, make_control
from robopref.embodied.evaluate import ActPolicy, evaluate

DOOR = Path(__file__).parent / "data" / "door-human-v0.hdf5"


def made(task: str) -> ControlEnv:
    pytest.importorskip("gymnasium_robotics", reason="the extra adroit is not installed")
    return make_control(f"adroit/{task}")


def initial_state(episode: int) -> dict[str, np.ndarray]:
    with h5py.File(DOOR) as file:
        return {key: file[f"infos/init_{key}"][episode] for key in ("qpos", "qvel", "door_body_pos")}


def d4rl_reward(env: Any, task: str) -> float:
    """The dense reward as D4RL's own environments compute it, from the simulation."""
    data, bonus = env.data, 0.0
    if task == "door":
        hinge = data.qpos[env.door_hinge_addrs]
        bonus = 2 * (hinge > 0.2) + 8 * (hinge > 1.0) + 10 * (hinge > 1.35)
        away = np.linalg.norm(data.site_xpos[env.grasp_site_id] - data.site_xpos[env.handle_site_id])
        return float(-0.1 * away - 0.1 * (hinge - 1.57) ** 2 - 1e-5 * (data.qvel**2).sum() + bonus)
    palm = data.site_xpos[env.S_grasp_site_id]
    middle = data.xpos[env.obj_body_id]
    target = data.site_xpos[env.target_obj_site_id]
    if task == "relocate":
        off = np.linalg.norm(middle - target)
        if middle[2] > 0.04:
            bonus = 1 - 0.5 * np.linalg.norm(palm - target) - 0.5 * off
        return float(-0.1 * np.linalg.norm(palm - middle) + bonus + 10 * (off < 0.1) + 20 * (off < 0.05))
    head, goal = data.site_xpos[env.tool_site_id], data.site_xpos[env.goal_site_id]
    off = np.linalg.norm(target - goal)
    bonus = 2 * (middle[2] > 0.04 and head[2] > 0.04) + 25 * (off < 0.02) + 75 * (off < 0.01)
    costs = 0.1 * np.linalg.norm(palm - middle) + np.linalg.norm(head - target) + 10 * off
    return float(bonus - costs - 1e-2 * np.linalg.norm(data.qvel))


@pytest.mark.parametrize("task", ADROIT)
def test_seed_and_actions_decide_everything(task: str) -> None:
    env, other = made(task), made(task)
    actions = np.random.default_rng(0).uniform(-1, 1, (5, env.sizes[1]))

    def trajectory(env: ControlEnv, seed: int) -> np.ndarray:
        rows = [np.append(env.reset(seed=seed)[0], 0.0)]
        return np.stack(rows + [np.append(*env.step(action)[:2]) for action in actions])

    first = trajectory(env, 3)
    assert not np.array_equal(trajectory(env, 4)[0], first[0])
    assert np.array_equal(trajectory(env, 3), first) and np.array_equal(trajectory(other, 3), first)


@pytest.mark.parametrize(("task", "sizes"), [("pen", (45, 24)), ("hammer", (46, 26)), ("door", (39, 28)), ("relocate", (39, 30))])
def test_sizes_are_d4rls(task: str, sizes: tuple[int, int]) -> None:
    env = made(task)
    assert env.sizes == sizes and env.action_space.high.max() == 1 and env.env_id == f"adroit/{task}"


@pytest.mark.parametrize("task", ["hammer", "door", "relocate"])
def test_rewards_are_d4rls_and_an_episode_has_its_length(task: str) -> None:
    env, rng = made(task), np.random.default_rng(1)
    env.reset(seed=0)
    for step in range(ADROIT[task]):
        _, reward, terminated, truncated, info = env.step(rng.uniform(-1, 1, env.sizes[1]))
        assert reward == pytest.approx(d4rl_reward(env.unwrapped, task), abs=1e-6)
        assert not terminated and truncated == (step == ADROIT[task] - 1) and not info["success"]


def test_a_dropped_pen_ends_the_episode() -> None:
    env = made("pen")
    env.reset(seed=3)
    rng = np.random.default_rng(0)
    heights, ended = [], False
    while not ended and len(heights) < ADROIT["pen"]:
        obs, reward, ended, truncated, _ = env.step(rng.uniform(-1, 1, 24))
        heights.append(env.unwrapped.data.xpos[env.unwrapped.obj_body_id][2])
        assert heights[-1] == obs[26]
    assert ended and not truncated and reward < -3
    assert heights[-1] < 0.075 and min(heights[:-1]) >= 0.075


@pytest.mark.parametrize("episode", [11, 22])
def test_the_demonstrations_actions_open_the_door_here_and_pay_what_the_file_says(episode: int) -> None:
    env, data = made("door"), clipped(read_d4rl(DOOR)).take([episode])
    obs, _ = env.reset(seed=0, options={"initial_state_dict": initial_state(episode)})
    # the arm began elsewhere than its recorded state says: fingers, latch, hinge and handle are in their places
    assert np.abs(obs - data.observations[0])[[*range(5, 29), 32, 33, 34, 38]].max() < 1e-6
    rewards, opened = [], False
    for step, action in enumerate(data.actions[:199]):
        obs, reward, *_, info = env.step(action)
        rewards.append(reward)
        opened |= bool(info["success"])
        if step == 60:
            assert np.abs(obs - data.observations[61]).max() < 0.15  # the arm has come to where it was
    assert opened and data.rewards[:199].max() > 19  # the bonus for a door wide open
    assert np.abs(np.array(rewards[:50]) - data.rewards[:50]).max() < 0.01  # gymnasium-robotics' own: up to 0.1
    assert sum(rewards) == pytest.approx(data.rewards[:199].astype(np.float64).sum(), abs=1)


def test_an_open_door_pays_until_the_episode_ends_and_only_the_whole_return_has_it() -> None:
    env, data = made("door"), clipped(read_d4rl(DOOR)).take([22])
    reset = env.reset
    env.reset = lambda **given: reset(seed=given["seed"], options={"initial_state_dict": initial_state(22)})  # type: ignore[method-assign]

    def demonstrator() -> ActPolicy:
        actions = iter(data.actions)
        return ActPolicy(lambda obs: next(actions))

    (cut,), (whole,) = (evaluate(demonstrator(), env, [0], 1000, protocol) for protocol in ("success", "return"))
    assert cut.success and whole.success and cut.success_step == whole.success_step == cut.steps - 1 < ADROIT["door"] - 1
    assert whole.steps == ADROIT["door"] and whole.ret == pytest.approx(data.rewards[:200].astype(np.float64).sum(), abs=2)
    score = reference_score("adroit/door")
    assert score is not None and 100 * score(np.array(whole.ret)) > 100 * score(np.array(cut.ret)) + 5


def test_unknown_tasks_and_a_missing_library_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RoboprefError, match=r"adroit has no task 'dor'.*Did you mean 'door'"):
        make_control("adroit/dor")
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)
    with pytest.raises(RoboprefError, match=r"pip install 'robopref\[adroit\]'"):
        make_control("adroit/door")


def test_the_librarys_notice_on_its_rewards_is_not_repeated() -> None:
    pytest.importorskip("gymnasium_robotics", reason="the extra adroit is not installed")
    code = "from robopref.embodied.control import make_control; make_control('adroit/door')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "reward" not in result.stderr
