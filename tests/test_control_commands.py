"""Evaluation and video of what learnt in dmc/... and mujoco/..."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from robopref.configs.cli import main as robopref
from robopref.embodied.camera import Camera
from robopref.embodied.control import make_control
from robopref.embodied.video import read_video
from robopref.policies.networks import load_policy

ENV = "mujoco/HalfCheetah-v5"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "sac"
    words = "frames=60 action_repeat=2 warmup=10 eval_every=60 eval_episodes=1 policy.width=8 policy.batch=8 device=cpu"
    assert robopref(["train", "policy=sac", f"env={ENV}", *words.split(), f"out={out}"]) == 0
    return out


def test_returns_where_there_is_no_success(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--policy", str(trained), "random", "--env", ENV, "--goals", "2", "--max-steps", "20", "--out", str(tmp_path / "e")]
    assert robopref(["evaluate", *words]) == 0
    said = capsys.readouterr().out
    assert "sac: return" in said and "random: return" in said
    rows = pd.read_csv(tmp_path / "e" / "success.csv")
    assert not rows["success"].any() and rows["ret"].abs().gt(0).all()
    summary = json.loads((tmp_path / "e" / "summary.json").read_text())
    assert summary["random"]["mean"] == pytest.approx(rows[rows["policy"] == "random"]["ret"].mean())
    env = make_control(ENV, 2)  # actions are held as long as in training
    obs, ret = env.reset(seed=0)[0], 0.0
    policy = load_policy(trained)
    for _ in range(20):
        obs, reward, *_ = env.step(policy.act(obs[None])[0])
        ret += reward
    assert rows["ret"].iloc[0] == pytest.approx(ret)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evaluate", "--policy", "expert", "--env", ENV], "only Meta-World's tasks have scripted experts"),
        (["evaluate", "--policy", "random", "--env", "mujoco/HalfCheeta-v5"], "Did you mean 'HalfCheetah-v5'"),
        (["video", "--policy", "random", "--env", ENV, "--camera", "trakc"], "Did you mean 'track'"),
        (["video", "--policy", "random", "--env", ENV, "--model", "."], "a VLP scores Meta-World's tasks"),
    ],
)
def test_what_these_worlds_do_not_have(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    words = [str(tmp_path) if word == "." else word for word in words]
    assert robopref([*words, "--out", str(tmp_path / "out")]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_film(trained: Path, tmp_path: Path) -> None:
    words = ["--policy", str(trained), "random", "--env", ENV, "--goals", "1", "--max-steps", "8", "--size", "96"]
    assert robopref(["video", *words, "--out", str(tmp_path)]) == 0
    pictures = list(read_video(tmp_path / "sac-goal-0.mp4"))
    assert len(pictures) == 3 and pictures[0].shape == (96, 96, 3)  # decisions 0, 4 and 8
    assert len(list(read_video(tmp_path / "grid.mp4"))) == 3
    facts = json.loads((tmp_path / "films.json").read_text())
    assert [film["steps"] for film in facts["episodes"]["random"]] == [8]


def test_a_film_of_before_and_after_a_switch(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, film = tmp_path / "run", tmp_path / "film"
    small = ["frames=64", "seeds=[0]", "policy.envs=1", "policy.steps=32", "policy.epochs=1", f"out={run}"]
    assert robopref(["train", "policy=gtr", "env=mujoco/halfcheetah", "switch=friction", "switch.every=32", *small]) == 0
    words = ["--env", "mujoco/halfcheetah", "--goals", "1", "--max-steps", "8", "--size", "64", "--phases", "1", "2"]
    assert robopref(["video", "--policy", str(run), *words, "--out", str(film)]) == 0
    before, after = (list(read_video(film / f"run-goal-0-phase-{phase}.mp4"))[-1] for phase in (1, 2))
    grid = list(read_video(film / "grid.mp4"))
    assert len(grid) == 3 and grid[0].shape[1] > grid[0].shape[0], "side by side"
    assert np.abs(before.astype(int) - after).mean() > 0.5
    films = json.loads((film / "films.json").read_text())["episodes"]["run"]
    assert [one["phase"] for one in films] == [1, 2] and films[0]["return"] != films[1]["return"]
    assert robopref(["video", "--policy", str(trained), *words, "--out", str(tmp_path / "none")]) == 1
    assert "was trained in a world that does not change; leave --phases out" in capsys.readouterr().err


def test_a_picture_is_upright_and_follows_the_simulation() -> None:
    env = make_control(ENV)
    env.reset(seed=0)
    with Camera(env, 64) as camera:
        before = camera.picture()
        for _ in range(20):
            env.step(np.ones(6))
        after = camera.picture()
    sky, floor = before[:16].astype(float), before[-16:].astype(float)
    assert floor.std() > 2 * sky.std(), "the chequered floor is below"
    assert np.abs(after.astype(int) - before).mean() > 1
