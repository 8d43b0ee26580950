from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from robopref.configs.errors import RoboprefError
from robopref.configs.show import VideoConfig
from robopref.embodied.envs import make_env
from robopref.embodied.evaluate import ActPolicy, evaluate
from robopref.embodied.experts import ScriptedExpert
from robopref.embodied.render import Renderer
from robopref.embodied.rollout import rollout
from robopref.embodied.video import read_video
from robopref.policies import video

SMALL = {"env": "metaworld/drawer-close", "goals": 2, "size": 64, "quality": "fast", "every": 8, "max_steps": 40}


@pytest.fixture(scope="module", autouse=True)
def _needs_gl() -> None:
    env = make_env("metaworld/drawer-close")
    env.reset(seed=0)
    try:
        Renderer(env).close()
    except RoboprefError as error:
        pytest.skip(f"no GL here: {error}")


class Watcher:
    """Stands for VLP: the score is the number of different frames that a clip is made of."""

    frame_size, camera, frames = 16, "corner2-zoom", 8

    @classmethod
    def load(cls, folder: Path) -> Watcher:
        return cls()

    def encode(self, clips: np.ndarray) -> np.ndarray:
        assert clips.shape[1:] == (1, 16, 16, 3)
        self.encoded = len(clips)
        return np.arange(len(clips), dtype=float)[:, None, None]

    def score_features(self, features: np.ndarray, instructions: list[str]) -> np.ndarray:
        assert features.shape == (self.encoded, 1 + 8, 1) and set(instructions) == {"shut it"}
        return np.array([len(np.unique(clip)) for clip in features], float)


def test_films_of_every_policy_and_goal(tmp_path: Path) -> None:
    config = VideoConfig(("random", "expert"), out=tmp_path / "films", **SMALL)
    out = video.run(config)
    names = {path.name for path in out.glob("*.mp4")}
    assert names == {"grid.mp4"} | {f"{p}{g}.mp4" for p in ("random", "expert") for g in ("", "-goal-0", "-goal-1")}
    one = list(read_video(out / "random-goal-0.mp4"))
    assert len(one) == 6 + config.fps and one[0].shape == (64, 64, 3), "steps 0, 8, ..., 40, and a second of rest"
    assert len(list(read_video(out / "random.mp4"))) == 2 * len(one)
    assert next(read_video(out / "grid.mp4")).shape == (132, 132, 3)
    facts = json.loads((out / "films.json").read_text())
    assert facts["instruction"] and [film["goal"] for film in facts["episodes"]["expert"]] == [0, 1]
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    video.run(config)
    assert before == {path: path.stat().st_mtime_ns for path in out.iterdir()}, "what is there is kept"


def test_films_without_captions_are_what_the_camera_sees(tmp_path: Path) -> None:
    out = video.run(VideoConfig(("random",), out=tmp_path / "films", captions=False, **SMALL | {"goals": 1, "max_steps": 8}))
    env = make_env("metaworld/drawer-close")
    env.reset(seed=0)
    with Renderer(env, 64, "corner2-zoom", "fast") as renderer:
        seen = renderer.frame().astype(float)
    first = next(read_video(out / "random-goal-0.mp4")).astype(float)
    assert np.abs(first - seen).mean() < 4, "as far as the codec keeps it; captions change it by more"


def test_score_of_vlp_grows_with_what_it_has_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "VLPScorer", Watcher)
    shown: list[tuple[int, float, str]] = []
    written = video.overlay

    def watched(frame, instruction, step, score, success, **words):  # type: ignore[no-untyped-def]
        shown.append((step, score, words["score_name"]))
        return written(frame, instruction, step, score, success, **words)

    monkeypatch.setattr(video, "overlay", watched)
    (tmp_path / "model.safetensors").write_bytes(b"")
    settings = SMALL | {"goals": 1}
    video.run(VideoConfig(("random",), out=tmp_path / "films", model=tmp_path, instruction="shut it", **settings))
    assert shown == [(8 * n, n + 1.0, "score") for n in range(6)]


def test_a_model_of_the_hub_is_found_once_and_its_place_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"")
    asked: list[Path] = []
    monkeypatch.setattr(video, "find_model", lambda reference, kind: asked.append((reference, kind)) or snapshot)
    monkeypatch.setattr(video, "VLPScorer", Watcher)
    model = Path("hf-hub:me/vlp")
    out = video.run(VideoConfig(("random",), out=tmp_path / "films", model=model, instruction="shut it", **SMALL | {"goals": 1}))
    manifest = json.loads((out / "manifest.json").read_text())
    assert asked == [(model, "vlp")] and manifest["config"]["model"] == "hf-hub:me/vlp"
    assert manifest["inputs"]["--model"]["path"] == str(snapshot / "model.safetensors")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"policy": ("exprt",)}, "Did you mean 'expert'"),
        ({"policy": ("expert", "expert")}, "Two policies are called 'expert'"),
        ({"policy": ("expert",), "out": Path("film.mp4")}, r"--out film\.mp4: name a folder"),
        ({"goals": 0}, "--goals 0"),
        ({"quality": "prety"}, "Did you mean 'pretty'"),
        ({"instruction": " "}, "--instruction is empty"),
        ({"model": Path("vlp"), "captions": False}, "--model: its score is part of the captions"),
        ({"env": "metaworld/drawer-clse"}, "drawer-close"),
    ],
)
def test_settings_that_cannot_be_filmed(tmp_path: Path, changes: dict, said: str) -> None:
    with pytest.raises(RoboprefError, match=said):
        video.run(VideoConfig(**{"policy": ("expert",), "out": tmp_path / "films", **SMALL, **changes}))
    assert not (tmp_path / "films").exists()


def test_success_is_one_action_later_in_films_than_in_tables() -> None:
    """Tables count steps from 0, films count actions; docs/architecture.md says so."""
    env = make_env("metaworld/drawer-close")
    expert = ScriptedExpert("drawer-close")
    (row,) = evaluate(ActPolicy(expert), env, [3], 90)
    told = video._facts(rollout(env, expert, seed=3, level="expert", policy="expert", max_steps=90))
    assert row.success and told["success_step"] == row.success_step + 1 == row.steps
