"""Three robots many at a time, and the very numbers of Gymnasium."""

from __future__ import annotations

import numpy as np
import pytest

from robopref.configs.errors import RoboprefError
from robopref.configs.policy import SwitchConfig
from robopref.embodied.control import make_control
from robopref.embodied.fleet import Fleet
from robopref.embodied.planar import Planar

ROBOTS = ("Hopper", "Walker2d", "HalfCheetah")
COPIES = 3


@pytest.mark.parametrize("robot", ROBOTS)
def test_the_numbers_are_gymnasiums_to_the_bit(robot: str) -> None:
    ours, theirs = ([make_control(f"mujoco/{robot}-v5") for _ in range(COPIES)] for _ in range(2))
    planar = Planar.of(ours)
    assert planar is not None and planar.limit == 1000
    for number, env in enumerate((*ours, *theirs)):
        env.reset(seed=number % COPIES)
    rng, fell, seen = np.random.default_rng(0), 0, []
    for _ in range(400):
        actions = rng.uniform(-1, 1, (COPIES, *ours[0].action_space.shape)).astype(np.float32)
        obs, rewards, terminated = planar.step(actions)
        for number, env in enumerate(theirs):
            row, reward, ended, *_ = env.step(actions[number])
            assert np.array_equal(obs[number], row) and rewards[number] == reward and terminated[number] == ended
            if ended:
                fell += 1
                ours[number].reset(seed=fell)
                env.reset(seed=fell)
        seen.append(obs)
    assert (fell > 3) == (robot != "HalfCheetah")
    assert len(np.unique(np.array(seen)[:, :, 0])) == 400 * COPIES, "no two are alike"


@pytest.mark.parametrize("kind", ["none", "friction", "observation"])
def test_a_fleet_is_the_same_with_and_without(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def life() -> tuple[np.ndarray, list[tuple[float, ...]], object]:
        rng, steps = np.random.default_rng(0), []
        with Fleet("mujoco/hopper", 1, SwitchConfig(kind), [0, 1], 2) as fleet:
            for number in range(150):
                fleet.enter(number // 50)
                step = fleet.step(rng.uniform(-1, 1, (2, 2, 3)).astype(np.float32))
                steps.append(np.concatenate([fleet.obs, step.next_obs, step.rewards[..., None], step.done[..., None]], -1))
            return np.array(steps), fleet.take(), fleet.crew.planar

    batched, their_ends, planar = life()
    monkeypatch.setattr(Planar, "of", lambda envs: None)
    single, ends, without = life()
    assert planar is not None and without is None
    assert np.array_equal(batched, single) and their_ends == ends and {row[1] for row in ends} >= {0, 1, 2}


def test_time_ends_an_episode() -> None:
    with Fleet("mujoco/halfcheetah", 1, SwitchConfig(), [0], 1) as fleet:
        done = [fleet.step(np.zeros((1, 1, 6), np.float32)) for _ in range(1001)]
    assert [bool(step.done) for step in done] == [*[False] * 999, True, False] and not any(bool(step.terminated) for step in done)
    (ended,) = fleet.take()
    assert ended[2] == 1000


def test_what_is_no_such_robot_goes_one_by_one() -> None:
    for env_id, repeat in (
        ("mujoco/Ant-v5", 1),
        ("mujoco/InvertedPendulum-v5", 1),
        ("mujoco/Hopper-v5", 2),
        ("metaworld/reach", 1),
    ):
        assert Planar.of([make_control(env_id, repeat)]) is None


def test_what_is_wrong_names_the_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    envs = [make_control("mujoco/Hopper-v5") for _ in range(2)]
    planar = Planar.of(envs)
    assert planar is not None
    for env in envs:
        env.reset(seed=0)
    planar.step(np.zeros((2, 3)))
    with pytest.raises(RoboprefError, match=r"Hopper-v5, frame 1: an action must be \(3,\) numbers in \[-1, 1\], got \[nan"):
        planar.step(np.array([[0.0, 0, 0], [np.nan, 0, 0]]))
    monkeypatch.setattr("mujoco.mj_step", lambda model, data, nstep: data.qvel.fill(np.nan))
    with pytest.raises(RoboprefError, match="frame 2: observation or reward is not finite"):
        planar.step(np.zeros((2, 3)))
