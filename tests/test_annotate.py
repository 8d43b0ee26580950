"""Annotation end to end, on real videos and real episodes, with an untrained VLP."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from robopref.configs.annotate import AnnotateConfig
from robopref.configs.checkpoint import load_model, save_model
from robopref.configs.cli import main as robopref
from robopref.configs.errors import RoboprefError, UsageError
from robopref.configs.files import read_json
from robopref.datasets.clips import Segment
from robopref.datasets.episodes import EpisodeStore
from robopref.datasets.preferences import COLUMNS, UNUSUAL, read_preferences
from robopref.datasets.videos import video_clip
from robopref.embodied.video import read_video, write_video
from robopref.policies.benchmarks.annotate import ours, record_episodes, time_command, untrained_vlp
from robopref.preference import annotate, ensemble
from robopref.preference.agreement import agreement
from robopref.preference.drawing import Drawers, Look
from robopref.preference.unusual import GRID, TrainingPictures, cells
from robopref.preference.vlp import KIND, VLPScorer

VIDEOS = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return untrained_vlp(tmp_path_factory.mktemp("vlp"))


@pytest.fixture(scope="module")
def models(model, tmp_path_factory):
    """Three VLPs on copies of one backbone that disagree, of which the last one looks through another camera."""
    folder = tmp_path_factory.mktemp("vlps")
    state, config = load_model(model, KIND)
    for number, camera in enumerate(("corner2-zoom", "corner2-zoom", "corner3")):
        shutil.copytree(model / "backbone", folder / f"{number}" / "backbone")
        noise = torch.Generator().manual_seed(number)
        changed = {name: tensor + 0.3 * torch.randn(tensor.shape, generator=noise) for name, tensor in state.items()}
        save_model(folder / f"{number}", KIND, changed | {"image_std": state["image_std"]}, config | {"camera": camera})
    return tuple(folder / f"{number}" for number in range(3))


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
        model=(model,),
        pairs=20,
        chunk=3,
        threads=1,
        processes=1,
    )


@pytest.fixture
def of_episodes(tmp_path, model, episodes):
    return AnnotateConfig(
        out=tmp_path / "labels.parquet", episodes=episodes, model=(model,), pairs=12, clips=6, chunk=4, threads=1, processes=1
    )


@pytest.fixture
def scored(monkeypatch):
    """How many clips each call to the backbone had."""
    calls = []
    encode = ensemble.encode_clips

    def counting(clips, encoder):
        calls.append(len(clips))
        return encode(clips, encoder)

    monkeypatch.setattr(ensemble, "encode_clips", counting)
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
    measures = read_json(out.with_suffix(".run") / "agreement.json")
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


def test_two_processes_draw_what_one_does(of_episodes, scored):
    alone = annotate.run(replace(of_episodes, chunk=2)).read_bytes()
    settings = replace(of_episodes, processes=2, chunk=2, out=of_episodes.out.with_name("two.parquet"))
    assert annotate.run(settings).read_bytes() == alone
    assert scored == [2, 2, 2, 2, 2, 2]  # the encoder stays in this process


def test_a_command_of_its_own_writes_the_same(of_episodes):
    alone = annotate.run(replace(of_episodes, chunk=2)).read_bytes()
    settings = replace(of_episodes, processes=2, out=of_episodes.out.with_name("command.parquet"))
    time_command([*ours(settings, settings.out), "--chunk", "2"])  # its workers are forked: torch is not imported yet
    assert settings.out.read_bytes() == alone


def test_no_more_chunks_are_drawn_than_can_wait(episodes):
    class Kept(Drawers):
        """Says which chunks were asked for, instead of drawing them."""

        def __enter__(self):
            self._pool, self.asked = self, []
            return self

        def submit(self, _, look, numbers):
            self.asked.append(numbers)
            done = Future()
            done.set_result(np.array(numbers))
            return done

        def shutdown(self, **_):
            pass

    with Kept(EpisodeStore(episodes), [], 2) as drawers:
        drawn = drawers.draw(Look("corner2", 64, 8), [[n] for n in range(9)])
        assert next(drawn) == [0] and drawers.asked == [[0], [1], [2]]  # memory does not grow with the number of clips
        assert next(drawn) == [1] and drawers.asked == [[0], [1], [2], [3]]
        assert [one.item() for one in drawn] == list(range(2, 9))


def test_a_worker_that_dies_is_said(episodes):
    with Drawers(EpisodeStore(episodes), [Segment(0, 0, 50)], 2) as drawers:
        drawers._pool.submit(os._exit, 1)
        with pytest.raises(RoboprefError, match=r"has died.*--processes 1"):
            list(drawers.draw(Look("corner2-zoom", 64, 8), [[0]]))


def test_both_labellers_label_the_same_pairs(of_episodes, scored):
    settings = replace(of_episodes, labeller="scripted", model=(), pairing="clusters", clips=None)
    one = read_preferences(annotate.run(settings))
    other = read_preferences(annotate.run(replace(settings, labeller="constant", out=settings.out.with_name("c.parquet"))))
    clips = [f"{name}_{side}" for side in "ab" for name in ("episode", "start", "stop")]
    pd.testing.assert_frame_equal(one[clips], other[clips])
    assert scored == []  # neither looks at a picture
    assert (other["label"] == 0.5).all() and one["label"].nunique() > 2
    measures = {path: read_json(settings.out.with_name(path) / "agreement.json") for path in ("labels.run", "c.run")}
    assert measures["labels.run"]["accuracy"] == 1.0 == pytest.approx(measures["labels.run"]["kendall_tau"])
    assert measures["c.run"]["accuracy"] == 0.5 and measures["c.run"]["kendall_tau"] == 0.0


def test_hard_labels(of_episodes):
    settings = replace(of_episodes, labeller="scripted", hard=True)
    assert set(read_preferences(annotate.run(settings))["label"]) <= {0.0, 0.5, 1.0}
    assert (read_preferences(annotate.run(replace(settings, tie_margin=1e9, overwrite=True)))["label"] == 0.5).all()


def test_a_listed_pair_keeps_its_place_and_people_may_label_it(of_videos, films, tmp_path):
    rows = [f"{films}/3.mp4,{films}/1.mp4,0.75", f"{films}/1.mp4,{films}/0.mp4,0"]
    (tmp_path / "pairs.csv").write_text("\n".join(["video_a,video_b,label", *rows]))
    settings = replace(of_videos, pairing="file", pairs_file=tmp_path / "pairs.csv", labeller="human")
    table = read_preferences(annotate.run(settings))
    assert table["video_a"].tolist() == [f"{films}/3.mp4", f"{films}/1.mp4"]
    assert table["label"].tolist() == [0.75, 0.0] and table["score_a"].isna().all()
    # Nor does it matter how its path is spelt.
    (tmp_path / "films").symlink_to(films)
    spelt = [row.replace(f"{films}/", f"{tmp_path}/./films/") for row in rows]
    (tmp_path / "pairs.csv").write_text("\n".join(["video_a,video_b,label", *spelt]))
    pd.testing.assert_frame_equal(read_preferences(annotate.run(replace(settings, overwrite=True))), table)
    # A file written by annotate is itself a pairs file.
    again = replace(settings, pairs_file=settings.out, out=tmp_path / "again.parquet")
    pd.testing.assert_frame_equal(read_preferences(annotate.run(again)), table)


def test_a_finished_file_is_kept_and_other_settings_are_not_taken_for_it(of_videos, scored):
    out = annotate.run(of_videos)
    before = out.stat().st_mtime_ns
    annotate.run(of_videos)
    assert out.stat().st_mtime_ns == before and sum(scored) == VIDEOS
    other = replace(of_videos, instruction="open the drawer")
    with pytest.raises(
        RoboprefError, match=r"labels\.run holds .*instruction=close the drawer there.*--overwrite".replace("labels", out.stem)
    ):
        annotate.run(other)
    assert out.stat().st_mtime_ns == before and sum(scored) == VIDEOS
    annotate.run(replace(other, overwrite=True))
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
        *map(str, settings.model),
    ]
    with subprocess.Popen([*command, "--pairs", "20", "--threads", "1"], stdout=subprocess.DEVNULL) as process:
        chunks = settings.out.with_suffix(".run")
        while len(list(chunks.glob(".scores-*/0*.npy"))) < 2 and process.poll() is None:
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL and not settings.out.exists()
    kept = len(list(chunks.glob(".scores-*/0*.npy")))
    assert 2 <= kept < VIDEOS
    scored.clear()
    assert annotate.run(settings).read_bytes() == whole
    assert scored == [1] * (VIDEOS - kept)
    assert sorted(path.name for path in chunks.iterdir()) == [".lock", "manifest.json"]


def test_an_ensemble_says_the_mean_of_its_members_probabilities_and_how_far_they_disagree(of_episodes, models, scored):
    alone = [
        read_preferences(annotate.run(replace(of_episodes, model=(model,), out=of_episodes.out.with_name(f"{number}.parquet"))))
        for number, model in enumerate(models)
    ]
    scored.clear()
    table = read_preferences(annotate.run(replace(of_episodes, model=models)))
    assert scored == [4, 2, 4, 2]  # two cameras: the members of one share its features
    assert set(table.columns) == {*COLUMNS, "disagreement"} and set(alone[0].columns) == set(COLUMNS)
    said = np.stack([one["label"] for one in alone])
    np.testing.assert_allclose(table["label"], said.mean(0), atol=1e-6)
    for_b = (said > 0.5).mean(0)
    np.testing.assert_allclose(table["disagreement"], np.minimum(for_b, 1 - for_b), atol=1e-12)
    assert set(table["disagreement"].round(6)) == {0.0, 0.333333}
    for side in "ab":
        np.testing.assert_allclose(table[f"score_{side}"], np.mean([one[f"score_{side}"] for one in alone], 0), atol=1e-5)
    manifest = read_json(of_episodes.out.with_suffix(".run") / "manifest.json")
    assert set(manifest["inputs"]) == {"episodes", "model 1", "model 2", "model 3"}  # no card of one of them quotes these labels


def test_the_pairs_that_an_ensemble_abstains_on_are_marked_and_measured_apart(of_episodes, models):
    every = read_preferences(annotate.run(replace(of_episodes, model=models)))
    out = annotate.run(replace(of_episodes, model=models, abstain=0.25, overwrite=True))
    table = read_preferences(out)
    gone = table["abstained"]
    assert gone.sum() == 3 and (table["label"][gone] == 0.5).all()
    assert table["disagreement"][gone].min() >= table["disagreement"][~gone].max()
    pd.testing.assert_series_equal(table["label"][~gone], every["label"][~gone])
    measures, store = read_json(out.with_suffix(".run") / "agreement.json"), EpisodeStore(of_episodes.episodes)
    rows = {side: table[[f"{name}_{side}" for name in ("episode", "start", "stop")]].to_numpy(int) for side in "ab"}
    truth = np.subtract(*([store.rewards(e)[start:stop].sum() for e, start, stop in rows[side]] for side in "ba"))
    expected = agreement(every["label"][~gone] - 0.5, truth[~gone])
    left_out = agreement(every["label"][gone] - 0.5, truth[gone])
    assert measures["abstained"] == 3 and measures["left_out"]["accuracy"] == pytest.approx(left_out["accuracy"])
    for name, value in expected.items():
        assert measures[name] == (None if np.isnan(value) else pytest.approx(value)), name
    assert measures["n"] + measures["ties"] == 9
    text = annotate.summary(out)
    assert "9 pairs, 0 ties" in text and "3 of 12 pairs have no label" in text and "\nleft out" in text and "of 9 are" in text


def test_one_labeller_abstains_where_it_is_least_confident(of_episodes):
    table = read_preferences(annotate.run(replace(of_episodes, abstain=0.5, abstain_by="confidence")))
    distance = (table["score_b"] - table["score_a"]).abs()
    assert table["abstained"].sum() == 6 and "disagreement" not in table
    assert distance[table["abstained"]].max() <= distance[~table["abstained"]].min()


def test_a_killed_ensemble_goes_on_and_ends_in_the_same_bytes(of_episodes, models, scored, monkeypatch, tmp_path):
    settings = replace(of_episodes, model=models, abstain=0.3, chunk=2)
    whole = annotate.run(replace(settings, out=tmp_path / "whole.parquet")).read_bytes()
    assert scored == [2] * 6
    scored.clear()
    encode = ensemble.encode_clips

    def killed(clips, encoder):
        if len(scored) == 4:
            raise KeyboardInterrupt
        return encode(clips, encoder)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ensemble, "encode_clips", killed)
        annotate.run(settings)
    assert not settings.out.exists()
    assert annotate.run(settings).read_bytes() == whole and scored == [2] * 6  # four before, two after


@pytest.fixture
def with_broken(of_videos, films, tmp_path):
    """Videos of which five cannot be used, each for another reason."""
    whole = (films / "0.mp4").read_bytes()
    others = tmp_path / "others"
    others.mkdir()
    (others / "a-cut.mp4").write_bytes(whole[:600])
    (others / "b-flipped.mp4").write_bytes(whole[: len(whole) // 2] + bytes(500) + whole[len(whole) // 2 + 500 :])
    (others / "c-empty.mp4").touch()
    os.mkfifo(others / "d-pipe.mp4")
    shutil.copy(films / "0.mp4", others / os.fsdecode(b"e-caf\xe9.mp4"))
    return replace(of_videos, videos=(*of_videos.videos, f"{others}/*"))


def test_a_damaged_video_is_named_before_the_first_is_scored(with_broken, scored, tmp_path):
    with pytest.raises(RoboprefError, match=r"c-empty\.mp4: empty.*Of the 13 videos 2 more .*d-pipe.*--skip-broken") as error:
        annotate.run(with_broken)
    assert "\n" not in str(error.value)
    for name in ("c-empty.mp4", "d-pipe.mp4", os.fsdecode(b"e-caf\xe9.mp4")):
        (tmp_path / "others" / name).unlink()
    with pytest.raises(RoboprefError, match=r"a-cut\.mp4: not a whole video.*Of the 10 videos 1 more .*b-flipped"):
        annotate.run(with_broken)
    (tmp_path / "others" / "a-cut.mp4").unlink()
    with pytest.raises(RoboprefError, match=r"b-flipped\.mp4: not a whole video, \d+ pictures .*leave it out\.  --skip-broken"):
        annotate.run(replace(with_broken, processes=2))
    assert scored == [] and [path.name for path in tmp_path.iterdir()] == ["others"]


def test_broken_videos_are_left_out_and_the_labels_are_those_of_the_others(of_videos, with_broken, scored, capsys):
    whole = annotate.run(of_videos).read_bytes()
    scored.clear()
    settings = replace(with_broken, skip_broken=True, out=of_videos.out.with_name("skipped.parquet"), processes=2)
    assert annotate.run(settings).read_bytes() == whole and sum(scored) == VIDEOS
    lines = capsys.readouterr().err.splitlines()
    others = of_videos.out.parent / "others"
    for line, name in zip(lines, ("a-cut.mp4", "b-flipped.mp4", "c-empty.mp4", "d-pipe.mp4", "e-caf\\udce9.mp4"), strict=True):
        assert line.startswith(f"skipped: {others}/{name}: ")
    kept = settings.out.with_suffix(".run") / "skipped.json"
    assert annotate.summary(settings.out).endswith(f"5 of 13 videos were skipped; {kept} says why.")
    assert [f"skipped: {reason}" for reason in read_json(kept)["reasons"]] == lines
    before = settings.out.stat().st_mtime_ns
    annotate.run(settings)
    assert settings.out.stat().st_mtime_ns == before and sum(scored) == VIDEOS, "finished, so nothing is read again"
    (others / "c-empty.mp4").write_bytes((others / "a-cut.mp4").read_bytes())
    with pytest.raises(RoboprefError, match="on other inputs"):
        annotate.run(settings)
    annotate.run(replace(settings, overwrite=True))
    assert sum(scored) == 2 * VIDEOS, "what was skipped is among the inputs: it may be mended"
    annotate.run(replace(of_videos, out=settings.out, overwrite=True))
    assert "were skipped" not in annotate.summary(settings.out)


def test_nothing_is_labelled_where_every_video_is_broken(with_broken, tmp_path):
    settings = replace(with_broken, videos=(f"{tmp_path}/others/*",), skip_broken=True)
    with pytest.raises(RoboprefError, match=r"a-cut\.mp4: not a whole video.*Of the 5 videos 4 more cannot be used") as error:
        annotate.run(settings)
    assert "--skip-broken" not in str(error.value) and not settings.out.exists()


def test_listed_pairs_that_name_a_broken_video_are_left_out(with_broken, films, tmp_path, capsys):
    cut = tmp_path / "others" / "a-cut.mp4"
    good = [f"{films}/3.mp4,{films}/1.mp4,0.75", f"{films}/1.mp4,{films}/0.mp4,0"]
    bad = [f"{films}/3.mp4,{cut},1", f"{tmp_path}/others/../others/a-cut.mp4,{films}/2.mp4,1"]
    (tmp_path / "pairs.csv").write_text("\n".join(["video_a,video_b,label", good[0], bad[0], bad[1], good[1]]))
    settings = replace(with_broken, pairing="file", pairs_file=tmp_path / "pairs.csv", labeller="human", skip_broken=True)
    table = read_preferences(annotate.run(settings))
    assert table["video_a"].tolist() == [f"{films}/3.mp4", f"{films}/1.mp4"] and table["label"].tolist() == [0.75, 0.0]
    assert "5 of 13 videos were skipped, and with them 2 listed pairs" in annotate.summary(settings.out)
    (tmp_path / "alone.csv").write_text("\n".join(["video_a,video_b,label", *good]))
    alone = replace(settings, pairs_file=tmp_path / "alone.csv", videos=with_broken.videos[:1], out=tmp_path / "alone.parquet")
    assert annotate.run(alone).read_bytes() == settings.out.read_bytes()
    (tmp_path / "pairs.csv").write_text("\n".join(["video_a,video_b,label", *bad]))
    with pytest.raises(RoboprefError, match=r"pairs\.csv: each of its pairs names a broken video"):
        annotate.run(replace(settings, overwrite=True))


def test_an_interrupted_run_that_skips_goes_on(of_videos, with_broken, scored, monkeypatch):
    whole = annotate.run(of_videos).read_bytes()
    scored.clear()
    settings = replace(with_broken, skip_broken=True, out=of_videos.out.with_name("skipped.parquet"))
    encode = ensemble.encode_clips

    def killed(clips, encoder):
        if len(scored) == 2:
            raise KeyboardInterrupt
        return encode(clips, encoder)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ensemble, "encode_clips", killed)
        annotate.run(settings)
    assert not settings.out.exists()
    assert annotate.run(settings).read_bytes() == whole and scored == [3, 3, 2]


def test_labels_that_need_no_pictures_are_given_without_reading_them(of_videos, films, tmp_path):
    (tmp_path / "broken.mp4").write_bytes((films / "0.mp4").read_bytes()[:600])
    settings = replace(of_videos, videos=(f"{films}/0.mp4", str(tmp_path / "broken.mp4")), labeller="constant", model=(), pairs=1)
    assert len(read_preferences(annotate.run(settings))) == 1
    (tmp_path / "broken.mp4").write_bytes(b"never opened")
    assert len(read_preferences(annotate.run(replace(settings, out=tmp_path / "text.parquet")))) == 1
    with pytest.raises(RoboprefError, match=r"broken\.mp4"):
        annotate.run(replace(settings, out=tmp_path / "skips.parquet", skip_broken=False, labeller="vlp", model=of_videos.model))


def test_names_of_videos_are_taken_as_they_are(of_videos, films, inside):
    names = ["-i.mp4", "100%.mp4", "2024-05-01T10:30:00.mp4", "take [1].mp4", "take[1].mp4"]
    for number, name in enumerate(names):
        shutil.copy(films / f"{number}.mp4", name)
    shutil.copy(films / "7.mp4", "take1.mp4")
    settings = replace(of_videos, videos=(*names[:2], f"{inside}/100%.mp4", "./2024*.mp4", *names[3:]), pairs=10)
    table = read_preferences(annotate.run(settings))
    assert {*table["video_a"], *table["video_b"]} == set(names)
    again = replace(of_videos, videos=tuple(f"{films}/{number}.mp4" for number in range(5)), pairs=10)
    expected = read_preferences(annotate.run(replace(again, out=inside / "again.parquet")))
    np.testing.assert_allclose(table["score_a"], expected["score_a"])


def test_the_default_sentence_and_the_same_one_given_are_the_same_settings(of_episodes):
    default = replace(of_episodes, labeller="scripted")
    for name, first, *others in (
        ("default", None, "close the drawer", "close  the drawer"),
        ("given", "close  the drawer", None, "close the drawer"),
    ):
        default = replace(default, out=of_episodes.out.with_name(f"{name}.parquet"))
        annotate.run(replace(default, instruction=first))
        manifest = default.out.with_suffix(".run") / "manifest.json"
        before = manifest.read_bytes()
        for said in others:
            annotate.run(replace(default, instruction=said))
        assert manifest.read_bytes() == before, "kept"
        with pytest.raises(RoboprefError, match=r"with other settings \(instruction="):
            annotate.run(replace(default, instruction="open the drawer"))


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
        ({"model": ()}, "--labeller vlp needs --model"),
        ({"labeller": "scripted"}, "scripted needs --episodes"),
        ({"labeller": "human"}, "human needs --human-file"),
        ({"pairing": "clusters"}, "clusters needs --episodes"),
        ({"pairing": "file"}, "needs --pairs-file"),
        ({"chunk": 0}, "--chunk"),
        ({"temperature": 0.0}, "--temperature 0.0 must be above 0"),
        ({"temperature": float("nan")}, "--temperature nan must be above 0"),
        ({"temperature": 2.0, "labeller": "human", "human_file": Path("x.csv")}, "human has none"),
        ({"abstain": 1.0}, "--abstain 1.0 is a share"),
        ({"abstain": -0.1}, "--abstain -0.1 is a share"),
        ({"abstain": 0.1}, "give --model A B, or --abstain-by confidence"),
        ({"abstain": 0.1, "labeller": "constant"}, "constant has none to be unsure of"),
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
        annotate.run(replace(of_videos, model=(tmp_path / "nowhere",)))


def test_an_ensemble_of_one_model_twice_is_none(of_videos, model, tmp_path):
    shutil.copytree(model, tmp_path / "copy")
    with pytest.raises(UsageError, match=r"copy hold the same weights"):
        annotate.run(replace(of_videos, model=(model, tmp_path / "copy")))


def test_the_command_takes_several_models(of_videos, models, capsys):
    argv = ["--videos", *of_videos.videos, "--instruction", "close the drawer", "--model", *map(str, models[:2])]
    robopref(["annotate", *argv, "--pairs", "9", "--abstain", "0.34", "--temperature", "2", "--out", str(of_videos.out)])
    assert "6 pairs, 0 ties" in capsys.readouterr().out
    assert read_preferences(of_videos.out)["abstained"].sum() == 3


def test_the_command_prints_what_it_wrote(of_episodes, capsys):
    argv = ["--episodes", str(of_episodes.episodes), "--out", str(of_episodes.out), "--labeller", "scripted", "--hard"]
    robopref(["annotate", *argv, "--pairs", "5", "--instruction", "close  the drawer"])
    printed = capsys.readouterr().out
    assert "labels.parquet: 5 pairs" in printed and "'close the drawer'" in printed and "balanced accuracy" in printed


@pytest.fixture
def knowing(model, films, tmp_path):
    """The VLP with statistics of training pictures that the films are four and nine times as far from as they may be."""
    folder = Path(shutil.copytree(model, tmp_path / "knowing"))
    pixels = np.stack([next(read_video(path)) for path in sorted(films.glob("*.mp4"))])
    size = 3 * GRID**2
    mean = cells(pixels).mean(0)
    far = ((cells(pixels) - mean) ** 2).mean()
    TrainingPictures(mean, torch.eye(size).double(), float(far) / 9).save(folder)
    return folder


def test_it_says_how_unusual_pictures_are_and_warns(of_videos, knowing, capsys):
    plain = read_preferences(annotate.run(of_videos))
    assert "unusual" not in plain and "warning" not in capsys.readouterr().err
    out = annotate.run(replace(of_videos, model=(knowing,), out=of_videos.out.with_name("knowing.parquet")))
    table = read_preferences(out)
    pd.testing.assert_frame_equal(table.drop(columns="unusual"), plain)
    clips = {video: value for side in "ab" for video, value in zip(table[f"video_{side}"], table["unusual"], strict=True)}
    assert len(clips) == VIDEOS and table["unusual"].gt(UNUSUAL).all()
    assert f"warning: {VIDEOS} of {VIDEOS} clips look like nothing that {knowing} was trained on" in capsys.readouterr().err
    assert f"20 pairs above {UNUSUAL:.0f}, the limit" in annotate.summary(out)


def test_words_that_are_not_understood_are_named(of_videos, capsys):
    table = read_preferences(annotate.run(replace(of_videos, instruction="закрой door")))
    assert "note: not understood: 'закрой'" in capsys.readouterr().err and table["instruction"].unique() == ["закрой door"]
    said = replace(of_videos, instruction="door", out=of_videos.out.with_name("door.parquet"))
    pd.testing.assert_series_equal(read_preferences(annotate.run(said))["score_a"], table["score_a"])
    assert "not understood" not in capsys.readouterr().err
    nothing = replace(of_videos, instruction="закрой", out=of_videos.out.with_name("nothing.parquet"))
    with pytest.raises(RoboprefError, match=r"no word in letters a to z.*'закрой'"):
        annotate.run(nothing)
    assert not nothing.out.exists() and not nothing.out.with_suffix(".run").exists()
