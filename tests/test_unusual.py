"""How unusual pictures are: against numpy's own algebra, in files, and what annotation says about it."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import LedoitWolf, shrunk_covariance
from toy_bank import make_banks

from robopref.configs.collect import CollectConfig
from robopref.configs.errors import RoboprefError
from robopref.datasets import collect
from robopref.datasets.clips import FrameBank
from robopref.datasets.preferences import UNUSUAL
from robopref.embodied.envs import make_env
from robopref.embodied.experts import ScriptedExpert
from robopref.embodied.render import Renderer
from robopref.embodied.rollout import rollout
from robopref.embodied.video import write_video
from robopref.preference import unusual_study
from robopref.preference.hub import PICTURES
from robopref.preference.unusual import GRID, TrainingPictures, Watched, cells

TASKS = ("drawer-open", "door-open", "window-close", "reach", "hammer", "button-press-wall", "sweep", "push")


class Frames:
    """What `TrainingPictures.of` reads of a FrameBank."""

    def __init__(self, frames: np.ndarray, task: np.ndarray) -> None:
        self._frames, self.index = frames, pd.DataFrame({"task": task})

    def __len__(self) -> int:
        return len(self._frames)

    def frames(self, numbers: np.ndarray) -> np.ndarray:
        return self._frames[numbers]


def episode_frames(task: str, seed: int, camera: str | None = None) -> np.ndarray:
    """16 frames (16, 64, 64, 3) of an expert's episode."""
    with closing(make_env(f"metaworld/{task}")) as env:
        episode = rollout(env, ScriptedExpert(task), seed=seed, level="expert", policy="expert", max_steps=120)
        env.reset(seed=0)
        with Renderer(env, 64, *([camera] if camera else [])) as renderer:
            steps = np.linspace(0, len(episode), 16).round().astype(int)
            return renderer.frames(episode.sim_static, episode.sim_dynamic[steps])


@pytest.fixture(scope="module")
def known() -> TrainingPictures:
    frames = [episode_frames(task, seed) for task in TASKS for seed in (0, 1)]
    return TrainingPictures.of(Frames(np.concatenate(frames), np.repeat(TASKS, 2 * 16)))


@given(st.integers(0, 2**32 - 1), st.sampled_from([16, 20, 64]))
@settings(max_examples=15, deadline=None)
def test_the_distance_is_mahalanobis_of_mean_colours_over_that_of_the_strangest_task(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 200, (60, size, size, 3), np.uint8)
    frames[20:40] += 30
    task = np.repeat(["a", "b", "c"], 20)
    pictures = TrainingPictures.of(Frames(frames, task))
    flat = cells(frames).numpy()
    shrinkage = LedoitWolf().fit(flat).shrinkage_

    def distance(rows: np.ndarray, among: np.ndarray) -> np.ndarray:
        covariance = shrunk_covariance(np.cov(among.T, bias=True), shrinkage)
        there = rows - among.mean(0)
        return (there @ np.linalg.inv(covariance) * there).mean(1)

    unit = max(distance(flat[task == name], flat[task != name]).mean() for name in "abc")
    assert pictures.unit == pytest.approx(unit, rel=1e-6)
    expected = distance(flat, flat) / unit
    np.testing.assert_allclose(pictures.distance(frames[:, None]), expected, rtol=1e-6)
    of_three = frames.reshape(20, 3, size, size, 3)
    np.testing.assert_allclose(pictures.distance(of_three), expected.reshape(20, 3).mean(1), rtol=1e-6)


def test_cells_are_mean_colours_row_by_row() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    by_hand = frames.reshape(2, GRID, 4, GRID, 4, 3).mean((2, 4)).transpose(0, 3, 1, 2).reshape(2, -1)
    np.testing.assert_allclose(cells(frames).numpy(), by_hand, rtol=1e-6)


def test_its_own_world_is_usual_and_what_it_must_not_be_asked_about_is_not(known: TrainingPictures) -> None:
    """Real rendering: a task that it never saw is nearer than the same task turned, mirrored, black, noise or from elsewhere."""
    own, unseen = episode_frames("push", 7), episode_frames("plate-slide", 7)
    assert known.distance(own[None])[0] < 0.5 and known.distance(unseen[None])[0] < 1
    black = np.zeros_like(unseen)
    noise = np.random.default_rng(0).integers(0, 256, unseen.shape, np.uint8)
    wrong = [unseen[:, ::-1], unseen[:, :, ::-1], black, black + 255, noise, 255 - unseen]
    wrong += [episode_frames("plate-slide", 7, camera) for camera in ("topview", "corner2", "behindGripper")]
    assert (known.distance(np.stack(wrong)) > UNUSUAL).all()


def test_statistics_are_kept_and_come_back(known: TrainingPictures, tmp_path) -> None:
    assert TrainingPictures.load(tmp_path) is None
    known.save(tmp_path)
    clips = np.random.default_rng(0).integers(0, 256, (3, 2, 64, 64, 3), np.uint8)
    loaded = TrainingPictures.load(tmp_path)
    np.testing.assert_array_equal(loaded.distance(clips), known.distance(clips))
    (tmp_path / PICTURES).write_bytes((tmp_path / PICTURES).read_bytes()[:-8])
    with pytest.raises(RoboprefError, match=r"pictures\.safetensors is damaged"):
        TrainingPictures.load(tmp_path)


def test_a_watched_scorer_keeps_its_scores_and_adds_the_largest_distance() -> None:
    class Bright:
        def score(self, clips: np.ndarray, instructions: list[str]) -> np.ndarray:
            return clips.mean((1, 2, 3, 4))

    clips = np.stack([np.full((2, 8, 8, 3), value, np.uint8) for value in (0, 100)])
    size = 3 * GRID**2
    at = [TrainingPictures(torch.full((size,), x).double(), torch.eye(size).double(), 2.0) for x in (0.0, 90.0)]
    np.testing.assert_allclose(Watched(Bright(), at).score(clips, ["x"] * 2), [[0, 4050], [100, 5000]])
    found = Watched(Bright(), []).score(clips, ["x"] * 2)
    assert found[:, 0].tolist() == [0, 100] and np.isnan(found[:, 1]).all()


def test_training_statistics_are_of_the_whole_bank(tmp_path) -> None:
    clips = make_banks(tmp_path / "clips", ("drawer-open", "door-open"))
    bank = FrameBank([clips / "drawer-open", clips / "door-open"])
    expected = cells(bank.frames(np.arange(len(bank)))).mean(0)
    torch.testing.assert_close(TrainingPictures.of(bank).mean, expected)


def test_the_study_measures_every_group(tmp_path, capsys, monkeypatch) -> None:
    tasks = ("drawer-open", "reach", "hammer", "push")
    data, clips = tmp_path / "episodes", tmp_path / "clips"
    collect.run(
        CollectConfig(data, clips=clips, tasks=tasks, levels=("random", "foreign"), episodes=1, max_steps=60, processes=1)
    )
    write_video(tmp_path / "film.mp4", np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3), np.uint8))
    words = [str(tmp_path / "out.csv"), "--clips", str(clips), "--episodes", str(data), "--films", str(tmp_path / "*.mp4")]
    monkeypatch.setattr(unusual_study, "CAMERAS", ("topview",))
    unusual_study.main([*words, "--tasks", *tasks[:3], "--test", "push", "--changed", "reach"])
    table = pd.read_csv(tmp_path / "out.csv").set_index("what")
    assert table.groupby("group", sort=False).size().to_dict() == {
        "left-out": 3, "test": 1, "own-camera": 1, "changed": len(unusual_study.CHANGED) - 1, "other-camera": 1, "film": 1,
    }  # fmt: skip
    assert list(table.index[:4]) == list(tasks) and table.index[-1] == "film.mp4"
    assert (table["least"] <= table["median"]).all() and (table["median"] <= table["most"]).all()
    usual = table.loc["upright", "most"]  # of two episodes, so that the statistics are crude
    assert (table.loc[["black", "white", "noise", "topview", "film.mp4"], "least"] > 10 * usual).all()
    assert "left-out" in capsys.readouterr().out
