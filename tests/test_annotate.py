"""Annotation end to end, on real videos and real episodes, with an untrained VLP."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from robopref.configs.annotate import AnnotateConfig
from robopref.configs.errors import RoboprefError, UsageError
from robopref.configs.files import read_json
from robopref.datasets.episodes import EpisodeStore
from robopref.datasets.preferences import read_preferences
from robopref.datasets.videos import video_clip
from robopref.embodied.video import write_video
from robopref.policies.benchmarks.annotate import record_episodes, untrained_vlp
from robopref.preference import annotate
from robopref.preference.vlp import VLPScorer

VIDEOS = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return untrained_vlp(tmp_path_factory.mktemp("vlp"))


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A folder of real mp4 files, each another picture that moves."""
    folder = tmp_path_factory.mktemp("films")
    rng = np.random.default_rng(0)
    for number in range(VIDEOS):
        picture = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        write_video(folder / f"{number}.mp4", (np.roll(picture, shift, 1) for shift in range(20)))
    return folder


@pytest.fixture(scope="module")
def episodes(tmp_path_factory):
    return record_episodes(tmp_path_factory.mktemp("data") / "drawer-close", count=4, steps=70)


@pytest.fixture
def of_videos(tmp_path, model, films):
    return AnnotateConfig(
        out=tmp_path / "videos.parquet",
        videos=(f"{films}/*.mp4",),
        instruction="close the drawer",
        model=model,
        pairs=20,
        chunk=3,
        threads=1,
    )


@pytest.fixture
def of_episodes(tmp_path, model, episodes):
    return AnnotateConfig(out=tmp_path / "labels.parquet", episodes=episodes, model=model, pairs=12, clips=6, chunk=4, threads=1)


@pytest.fixture
def scored(monkeypatch):
    """How many clips each call to the scorer had."""
    calls = []
    score = VLPScorer.score

    def counting(self, clips, instructions):
        calls.append(len(clips))
        return score(self, clips, instructions)

    monkeypatch.setattr(VLPScorer, "score", counting)
    return calls


def test_videos_are_scored_once_whatever_the_number_of_pairs(of_videos, scored, films, model):
    table = read_preferences(annotate.run(of_videos))
    assert scored == [3, 3, 2]  # eight videos for twenty pairs, and never more than a chunk in memory
    assert len(table) == 20 and table["episode_a"].isna().all()
    vlp = VLPScorer.load(model)
    for side in "ab":
        clips = np.stack([video_clip(name)[[0, *range(8)]] for name in table[f"video_{side}"]])  # its first frame opens it
        found = vlp.score(clips, ["close the drawer"] * len(clips))
        np.testing.assert_allclose(table[f"score_{side}"], found, atol=1e-5)
    np.testing.assert_allclose(table["label"], 1 / (1 + np.exp(table["score_a"] - table["score_b"])))


def test_segments_of_episodes_are_labelled_from_pixels(of_episodes, scored, episodes):
    out = annotate.run(of_episodes)
    table = read_preferences(out)
    assert scored == [4, 2] and table["task"].unique().tolist() == ["drawer-close"]
    assert table["score_a"].nunique() == 6 and (table["stop_a"] - table["start_a"] == 50).all()
    store = EpisodeStore(episodes)
    returns = {}
    for side in "ab":
        rows = table[[f"{name}_{side}" for name in ("episode", "start", "stop")]].to_numpy(int)
        returns[side] = np.array([store.rewards(episode)[start:stop].sum() for episode, start, stop in rows])
    measures = read_json(out.with_suffix("") / "agreement.json")
    right = (table["score_b"] > table["score_a"]) == (returns["b"] > returns["a"])
    assert measures["accuracy"] == pytest.approx(right.mean()) and measures["n"] == 12
    text = annotate.summary(out)
    for word in (
        "accuracy",
        "constant label",
        "balanced accuracy",
        "AUC",
        "Kendall tau",
        "of the largest true difference",
    ):
        assert word in text


def test_both_labellers_label_the_same_pairs(of_episodes, scored):
    settings = replace(of_episodes, labeller="scripted", model=None, pairing="clusters", clips=None)
    one = read_preferences(annotate.run(settings))
    other = read_preferences(annotate.run(replace(settings, labeller="constant", out=settings.out.with_name("c.parquet"))))
    clips = [f"{name}_{side}" for side in "ab" for name in ("episode", "start", "stop")]
    pd.testing.assert_frame_equal(one[clips], other[clips])
    assert scored == []  # neither looks at a picture
    assert (other["label"] == 0.5).all() and one["label"].nunique() > 2
    measures = {path: read_json(settings.out.with_name(path) / "agreement.json") for path in ("labels", "c")}
    assert measures["labels"]["accuracy"] == 1.0 == pytest.approx(measures["labels"]["kendall_tau"])
    assert measures["c"]["accuracy"] == 0.5 and measures["c"]["kendall_tau"] == 0.0


def test_hard_labels(of_episodes):
    settings = replace(of_episodes, labeller="scripted", hard=True)
    assert set(read_preferences(annotate.run(settings))["label"]) <= {0.0, 0.5, 1.0}
    assert (read_preferences(annotate.run(replace(settings, tie_margin=1e9)))["label"] == 0.5).all()


def test_a_listed_pair_keeps_its_place_and_people_may_label_it(of_videos, films, tmp_path):
    rows = [f"{films}/3.mp4,{films}/1.mp4,0.75", f"{films}/1.mp4,{films}/0.mp4,0"]
    (tmp_path / "pairs.csv").write_text("\n".join(["video_a,video_b,label", *rows]))
    settings = replace(of_videos, pairing="file", pairs_file=tmp_path / "pairs.csv", labeller="human")
    table = read_preferences(annotate.run(settings))
    assert table["video_a"].tolist() == [f"{films}/3.mp4", f"{films}/1.mp4"]
    assert table["label"].tolist() == [0.75, 0.0] and table["score_a"].isna().all()
    # A file written by annotate is itself a pairs file.
    again = replace(settings, pairs_file=settings.out, out=tmp_path / "again.parquet")
    pd.testing.assert_frame_equal(read_preferences(annotate.run(again)), table)


def test_a_finished_file_is_kept_and_other_settings_are_not_taken_for_it(of_videos, scored):
    out = annotate.run(of_videos)
    before = out.stat().st_mtime_ns
    annotate.run(of_videos)
    assert out.stat().st_mtime_ns == before and sum(scored) == VIDEOS
    annotate.run(replace(of_videos, instruction="open the drawer"))
    assert read_preferences(out)["instruction"].unique() == ["open the drawer"] and sum(scored) == 2 * VIDEOS


def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(of_videos, scored, tmp_path):
    settings = replace(of_videos, chunk=1)
    whole = annotate.run(replace(settings, out=tmp_path / "whole.parquet")).read_bytes()
    assert scored == [1] * VIDEOS
    command = [sys.executable, "-c", "from robopref.configs.cli import main; main()", "annotate"]
    command += ["--out", str(settings.out), "--chunk", "1"]
    command += [
        "--videos",
        *settings.videos,
        "--instruction",
        str(settings.instruction),
        "--model",
        str(settings.model),
    ]
    with subprocess.Popen([*command, "--pairs", "20", "--threads", "1"], stdout=subprocess.DEVNULL) as process:
        chunks = settings.out.with_suffix("")
        while len(list(chunks.glob(".scores-*/0*.npy"))) < 2 and process.poll() is None:
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL and not settings.out.exists()
    kept = len(list(chunks.glob(".scores-*/0*.npy")))
    assert 2 <= kept < VIDEOS
    scored.clear()
    assert annotate.run(settings).read_bytes() == whole
    assert scored == [1] * (VIDEOS - kept)
    assert sorted(path.name for path in chunks.iterdir()) == ["manifest.json"]


def test_a_damaged_video_leaves_no_labels(of_videos, films, tmp_path):
    (tmp_path / "broken.mp4").write_bytes((films / "0.mp4").read_bytes()[:600])
    settings = replace(of_videos, videos=(*of_videos.videos, str(tmp_path / "broken.mp4")), pairs=36)
    with pytest.raises(RoboprefError, match=r"broken\.mp4"):
        annotate.run(settings)
    assert not settings.out.exists()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("", "empty"),
        (" \n ", "empty"),
        ("?!", "empty"),
        (None, "empty"),
        ("close the drawer " * 600, "10199 characters"),
    ],
)
def test_an_instruction_is_one_sentence(of_videos, said, message):
    with pytest.raises(RoboprefError, match=message):
        annotate.run(replace(of_videos, instruction=said))


def test_the_tasks_own_sentence_is_the_default_for_episodes_only_when_nothing_is_said(of_episodes):
    settings = replace(of_episodes, labeller="scripted")
    assert read_preferences(annotate.run(settings))["instruction"].unique() == ["close the drawer"]
    with pytest.raises(RoboprefError, match="empty"):
        annotate.run(replace(settings, instruction=""))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"videos": ()}, "either --episodes DIR or --videos"),
        ({"model": None}, "--labeller vlp needs --model"),
        ({"labeller": "scripted"}, "scripted needs --episodes"),
        ({"labeller": "human"}, "human needs --human-file"),
        ({"pairing": "clusters"}, "clusters needs --episodes"),
        ({"pairing": "file"}, "needs --pairs-file"),
        ({"chunk": 0}, "--chunk"),
    ],
)
def test_settings_that_do_not_go_together(of_videos, changes, message):
    with pytest.raises(UsageError, match=message):
        annotate.run(replace(of_videos, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": 4}, "8 frames a clip, not 4"),
        ({"pairs": 29}, "8 clips make 28"),
        ({"videos": ("x*.mp4",)}, "no such video"),
    ],
)
def test_what_cannot_be_done_is_said(of_videos, changes, message):
    with pytest.raises(RoboprefError, match=message):
        annotate.run(replace(of_videos, **changes))


def test_a_folder_without_a_model_is_named(of_videos, tmp_path):
    with pytest.raises(RoboprefError, match="nowhere"):
        annotate.run(replace(of_videos, model=tmp_path / "nowhere"))


def test_the_command_prints_what_it_wrote(of_episodes, capsys):
    argv = ["--episodes", str(of_episodes.episodes), "--out", str(of_episodes.out), "--labeller", "scripted", "--hard"]
    annotate.main([*argv, "--pairs", "5", "--instruction", "close  the drawer"])
    printed = capsys.readouterr().out
    assert "labels.parquet: 5 pairs" in printed and "'close the drawer'" in printed and "balanced accuracy" in printed
