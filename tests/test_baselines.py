"""Published labellers as references: their formulas by hand, the small contrastive model, and how they annotate."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from toy_bank import make_banks

from robopref.configs import cli
from robopref.configs.baselines import BaselineConfig, ContrastiveConfig
from robopref.configs.chat import ChatConfig
from robopref.configs.errors import RoboprefError, UsageError
from robopref.configs.files import read_json
from robopref.datasets.clips import FrameBank
from robopref.datasets.preferences import read_preferences
from robopref.datasets.videos import video_clip
from robopref.embodied.video import write_video
from robopref.preference.baselines import train
from robopref.preference.baselines.contrastive import ContrastiveSpace, DualEncoder, Shape, info_nce
from robopref.preference.baselines.goal_image import GoalImage, Goals, goal_of_bank, read_goal
from robopref.preference.baselines.load import BASELINES, files, lacking, load_baseline
from robopref.preference.baselines.similarity import (
    Similarity,
    cosine,
    goal_baseline,
    last_frame,
    mean_frame,
    whole_clip,
)
from robopref.preference.small import SmallBackbone, SmallConfig, SmallEncoder

TASKS = ("drawer-open", "door-open", "window-close")


def units(*rows):
    return F.normalize(torch.tensor(rows, dtype=torch.float64), dim=-1)


def test_vlm_rm_by_hand():
    state, goal, neutral = torch.tensor([[[0.6, 0.8]]]), torch.tensor([[1.0, 0.0]]), torch.tensor([0.0, 1.0])
    # s - g = (-.4, .8); on the line from (0, 1) to (1, 0) it is (-.6, .6).
    rewards = [goal_baseline(state, goal, neutral, alpha).item() for alpha in (0.0, 0.5, 1.0)]
    assert rewards == pytest.approx([0.6, 1 - 0.5 * (0.5**2 + 0.7**2), 1 - 0.5 * (0.6**2 + 0.6**2)])
    assert cosine(state, goal).item() == pytest.approx(0.6)


@given(st.lists(st.floats(-1, 1), min_size=12, max_size=12), st.floats(0, 1))
def test_vlm_rm_is_the_cosine_at_0_and_looks_only_along_the_line_at_1(values, alpha):
    vectors = torch.tensor(values, dtype=torch.float64).reshape(4, 3) + torch.eye(4, 3, dtype=torch.float64) * 3
    state, goal, neutral, _ = F.normalize(vectors, dim=1)
    assert goal_baseline(state[None, None], goal[None], neutral, 0.0).item() == pytest.approx((state @ goal).item())
    across = torch.linalg.cross(goal - neutral, state)  # at right angles to the line
    moved = (state + across)[None, None]
    full = goal_baseline(state[None, None], goal[None], neutral, 1.0).item()
    assert goal_baseline(moved, goal[None], neutral, 1.0).item() == pytest.approx(full)
    assert goal_baseline(goal[None, None], goal[None], neutral, alpha).item() == pytest.approx(1.0)  # nothing beats the goal


def test_an_instruction_that_is_the_baseline_sentence_has_no_line_but_a_reward():
    goal = torch.tensor([[1.0, 0.0]])
    assert math.isfinite(goal_baseline(torch.tensor([[[0.6, 0.8]]]), goal, goal[0], 1.0).item())


def test_frames_become_clips_by_hand():
    clip, goal = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]), torch.tensor([[1.0, 0.0]])
    rewards = cosine(clip, goal)
    assert rewards.tolist() == [[0.0, 1.0]]
    assert last_frame(rewards).tolist() == [1.0] and mean_frame(rewards).tolist() == [0.5]
    assert whole_clip(clip, goal).item() == pytest.approx(math.sqrt(0.5))  # of the mean vector (.5, .5)


def test_info_nce_by_hand():
    eye = torch.eye(2)
    loss, metrics = info_nce(eye, eye, torch.tensor(math.log(3.0)))
    assert loss.item() == pytest.approx(-math.log(3 / 4)) and metrics["accuracy"].item() == 1.0
    loss, metrics = info_nce(eye, eye.flip(0), torch.tensor(math.log(3.0)))
    assert loss.item() == pytest.approx(-math.log(1 / 4)) and metrics["accuracy"].item() == 0.0


class Pixels:
    """A frame encoder and joint space for numbers worked out by hand: a frame is its upper left pixel, a text its length."""

    name, digest, tokens_per_frame, image_dim = "pixels", "pixels", 1, 3
    camera, frame_size, logit_scale = "corner2-zoom", 4, 10.0

    @property
    def backbone(self):
        return self

    def encode_frames(self, frames: np.ndarray) -> Tensor:
        return torch.from_numpy(frames[:, :1, 0].astype(np.float32))

    def embed_clips(self, features: np.ndarray) -> Tensor:
        return F.normalize(torch.from_numpy(features)[:, :, 0], dim=2)

    def embed_texts(self, texts: list[str]) -> Tensor:
        return torch.stack([F.one_hot(torch.tensor(len(text) % 3), 3).float() for text in texts])


def clip_of(*colours):
    return np.stack([np.broadcast_to(np.array(colour, np.uint8), (4, 4, 3)) for colour in colours])


def test_scores_are_scaled_likenesses_and_the_opening_is_not_looked_at():
    red, green = (200, 0, 0), (0, 100, 0)
    clips = np.stack([clip_of(red, green, red), clip_of(green, green, green), clip_of(green, green, red)])
    scorer = Similarity(Pixels(), lambda clips, goals: mean_frame(cosine(clips, goals)), "d", 2)
    scores = scorer.score(clips, ["abc", "a", "abcdef"])  # red, green, red
    np.testing.assert_allclose(scores, [5.0, 10.0, 5.0])
    np.testing.assert_allclose(scorer.score(clips, ["abc"] * 3), [5.0, 0.0, 5.0])


def test_goal_image_distance_by_hand():
    goals = Goals([clip_of((3, 0, 0))[0], clip_of((0, 0, 5))[0]], {"redden": 0, "go red": 0, "make it blue": 1})
    scorer = GoalImage(Pixels(), goals, "corner2-zoom", 4, 2)
    clips = np.stack([clip_of((9, 9, 9), (3, 0, 0), (0, 4, 0)), clip_of((9, 9, 9), (9, 9, 9), (0, 0, 5))])
    np.testing.assert_allclose(scorer.score(clips, ["go red", "make it blue"]), [-5.0, 0.0])
    np.testing.assert_allclose(scorer.score(clips, ["make it blue", "redden"]), [-math.sqrt(41), -math.sqrt(34)])


@pytest.fixture(scope="module")
def banks(tmp_path_factory):
    return make_banks(tmp_path_factory.mktemp("clips"), TASKS)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """An untrained small backbone: its random features tell the toy world's columns apart."""
    folder = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(0)
    SmallBackbone.save(folder, SmallEncoder(SmallConfig(width=8, features=32, keypoints=8)))
    return folder


@pytest.fixture(scope="module")
def training(banks, small, tmp_path_factory):
    return ContrastiveConfig(
        clips=banks,
        out=tmp_path_factory.mktemp("contrastive"),
        backbone=f"small:{small}",
        tasks=TASKS,
        steps=150,
        hidden=32,
        dim=8,
        threads=1,
        device="cpu",
    )


@pytest.fixture(scope="module")
def of_frames(training):
    return train.run(training)[0]


@pytest.fixture(scope="module")
def of_clips(training):
    return train.run(replace(training, out=training.out / "clips", sees="clip"))[0]


@pytest.mark.parametrize("changed", ["clips/drawer-open/frames.npy", "backbone/model.safetensors"])
def test_other_frames_and_another_backbone_are_noticed(changed, training, banks, small, tmp_path, monkeypatch):
    shutil.copytree(banks, tmp_path / "clips")
    shutil.copytree(small, tmp_path / "backbone")
    clips, backbone, out = tmp_path / "clips", f"small:{tmp_path / 'backbone'}", tmp_path / "out"
    config = replace(training, clips=clips, out=out, backbone=backbone, steps=2)
    (folder,) = train.run(config)
    made = (folder / "manifest.json").stat().st_mtime_ns
    train.run(config)
    assert (folder / "manifest.json").stat().st_mtime_ns == made
    monkeypatch.setenv("ROBOPREF_SKIP_DIGESTS", "1")  # weights of another training are whole; here they stand for such
    data = bytearray((tmp_path / changed).read_bytes())
    data[-4:] = b"\0\0\0\0" if data[-4:] != b"\0\0\0\0" else b"\0\0\1\0"
    (tmp_path / changed).write_bytes(data)
    with pytest.raises(RoboprefError, match=r"on other inputs \((drawer-open|backbone)\): choose another --out"):
        train.run(config)


def test_a_training_that_diverges_ends_with_an_error_and_leaves_no_model(training, tmp_path):
    with pytest.raises(RoboprefError, match=r"seed-0: loss became (nan|inf); train again with a lower learning rate"):
        train.run(replace(training, out=tmp_path, lr=1e30, steps=10))
    assert not list(tmp_path.glob("seed-0/*.json"))


def test_it_learns_which_sentence_a_picture_goes_with(of_frames, banks):
    metrics = pd.read_csv(of_frames / "metrics.csv")
    assert metrics["losses/loss"].iloc[-1] < 0.5 < math.log(3) < metrics["losses/scale"].iloc[-1]
    bank = FrameBank([banks / task for task in TASKS])
    scorer = load_baseline("cosine", BaselineConfig(f"contrastive:{of_frames}"), 8, "cpu")
    clips = np.stack([np.repeat(goal_of_bank(bank, task)[None], 9, 0) for task in TASKS for _ in TASKS])
    said = ["open the drawer", "open the door", "close the window"] * 3
    scores = scorer.score(clips, said).reshape(3, 3)
    assert scores.argmax(1).tolist() == scores.argmax(0).tolist() == [0, 1, 2]
    assert np.abs(scores).max() <= ContrastiveSpace(of_frames).logit_scale + 1e-4


def test_same_seed_same_bytes_and_a_finished_seed_is_kept(training, of_frames, tmp_path, monkeypatch):
    again = replace(training, out=tmp_path, seeds=(1, 0))
    one, same = train.run(again)
    assert (same / "model.safetensors").read_bytes() == (of_frames / "model.safetensors").read_bytes()
    assert (one / "model.safetensors").read_bytes() != (same / "model.safetensors").read_bytes()
    assert read_json(one / "manifest.json")["seeds"] == [1]
    monkeypatch.setattr(train, "train", lambda *_: pytest.fail("it was trained again"))
    assert train.run(again) == [one, same]


def test_the_folder_scores_alone_and_foreign_weights_are_refused(of_frames, tmp_path, banks):
    moved = tmp_path / "moved"
    of_frames.rename(moved)
    try:
        frames = FrameBank([banks / TASKS[0]]).frames(np.arange(18).reshape(2, 9))
        scorer = load_baseline("vlm-rm", BaselineConfig(f"contrastive:{moved}"), 8, "cpu")
        assert scorer.score(frames, ["open the drawer"] * 2).shape == (2,)
        torch.manual_seed(1)
        SmallBackbone.save(tmp_path / "other", SmallEncoder(SmallConfig(width=8, features=32, keypoints=8)))
        weights = moved / "backbone" / "model.safetensors"
        content = weights.read_bytes()
        weights.write_bytes((tmp_path / "other" / "model.safetensors").read_bytes())
        with pytest.raises(RoboprefError, match="have changed since; train it again"):
            ContrastiveSpace(moved)
        weights.write_bytes(content)
    finally:
        moved.rename(of_frames)
    with pytest.raises(RoboprefError, match="contrastive"):
        ContrastiveSpace(tmp_path / "other")


def test_a_model_of_clips_sees_their_order_and_wants_their_length(of_clips, banks):
    scorer = load_baseline("roboclip", BaselineConfig(f"contrastive:{of_clips}"), 8, "cpu")
    rows = np.append(80, np.arange(80, 88))  # the climb of an expert
    clip = FrameBank([banks / TASKS[0]]).frames(np.stack([rows, np.append(80, rows[:0:-1])]))
    forwards, backwards = scorer.score(clip, ["open the drawer"] * 2)
    assert abs(forwards - backwards) > 1e-3
    with pytest.raises(RoboprefError, match="clips of 8 frames, not 4"):
        scorer.score(clip[:, :5], ["open the drawer"] * 2)


def test_moments_are_of_experts_who_have_done_it():
    rows = [
        {"task": task, "level": level, "episode": 10 * number + episode, "step": 7 * frame, "success_step": success}
        for task in TASKS[:2]
        for number, (level, success) in enumerate((("random", -1), ("expert", 50)))
        for episode in range(2)
        for frame in range(12)
    ]
    index = pd.DataFrame(rows)
    one, eight = (train.Achievements(index, TASKS[:2], frames) for frames in (1, 8))
    rng = np.random.default_rng(0)
    ends, starts = set(), set()
    for _ in range(200):
        moments, said = one.draw(rng)
        shown = index.iloc[moments[:, 0]]
        assert moments.shape == (2, 1) and shown["task"].tolist() == list(TASKS[:2]) and len(said) == 2
        assert (shown["level"] == "expert").all()
        ends |= set(shown["step"])
        clip = index.iloc[eight.draw(rng)[0][0]]
        assert clip["episode"].nunique() == 1 and (np.diff(clip["step"]) >= 0).all() and clip["step"].iloc[-1] >= 50
        starts.add(clip["step"].iloc[0])
    assert ends == {56, 63, 70, 77}  # the frames from step 50 on
    assert starts == {0, 7, 14, 21, 28}  # whole episodes, and eight frames in a row
    with pytest.raises(RoboprefError, match="no expert episode of door-open"):
        train.Achievements(index[index["task"] == TASKS[0]], TASKS[:2], 1)


def test_training_needs_two_tasks(training):
    with pytest.raises(RoboprefError, match="at least two"):
        train.run(replace(training, tasks=TASKS[:1]))


def test_the_temperature_stays_below_clips():
    model = DualEncoder(Shape(1, 4, 4, 8, 4))
    assert model.scale.item() == pytest.approx(1 / 0.07)
    model.log_scale.data.fill_(9.0)
    assert model.scale.item() == 100.0


def test_a_goal_is_a_picture_or_the_end_of_the_first_expert_episode(banks, tmp_path):
    bank = FrameBank([banks / TASKS[1]])
    last = bank.frames(np.array([89]))[0]  # ten frames of each of eight lesser episodes, then the first expert's
    np.testing.assert_array_equal(read_goal(banks / TASKS[1]), last)
    Image.fromarray(last).save(tmp_path / "goal.png")
    np.testing.assert_array_equal(read_goal(tmp_path / "goal.png"), last)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(RoboprefError, match=r"broken\.png: neither a picture nor a frame bank"):
        read_goal(tmp_path / "broken.png")
    with pytest.raises(RoboprefError, match="no expert episode of reach"):
        goal_of_bank(bank, "reach")


@pytest.mark.parametrize(
    ("labeller", "encoder", "message"),
    [
        ("cosine", "small:x", "is none of contrastive:FOLDER or open_clip:NAME:WEIGHTS"),
        ("cosine", "contrastive", "is none of contrastive:FOLDER"),
        ("vlm-rm", "open-clip:ViT-B-16:openai", "Did you mean 'open_clip'"),
        ("roboclip", "open_clip:ViT-B-16:openai@4", "leave out @4"),
        ("goal-image", "contrastive:x", "is none of small:FOLDER or open_clip:NAME:WEIGHTS"),
        ("roboclop", "contrastive:{of_frames}", "no baseline 'roboclop'.* Did you mean 'roboclip'"),
    ],
)
def test_an_encoder_that_does_not_fit_is_named(labeller, encoder, message, of_frames):
    goals = Goals([np.zeros((4, 4, 3), np.uint8)], {"close it": 0})
    with pytest.raises(UsageError, match=message):
        load_baseline(labeller, BaselineConfig(encoder.format(of_frames=of_frames)), 8, "cpu", goals)


def test_what_a_labeller_lacks_is_said():
    nothing, chat = BaselineConfig(), ChatConfig()
    assert all("--baseline.encoder" in (lacking(name, nothing, chat) or "") for name in BASELINES)
    seeing = replace(nothing, encoder="small:x")
    assert "--baseline.goal FILE" in (lacking("goal-image", seeing, chat) or "")
    assert "alpha is 1.5" in (lacking("vlm-rm", replace(seeing, alpha=1.5), chat) or "")
    assert lacking("cosine", seeing, chat) is lacking("vlp", nothing, chat) is lacking("human", nothing, chat) is None
    with pytest.raises(UsageError, match="needs a picture"):
        load_baseline("goal-image", seeing, 8, "cpu")


def test_files_that_scores_depend_on(tmp_path):
    weights = tmp_path / "w.pt"
    weights.touch()
    assert files("cosine", BaselineConfig("contrastive:a/b")) == {"encoder": Path("a/b/model.safetensors")}
    assert files("cosine", BaselineConfig(f"open_clip:ViT-B-16:{weights}")) == {"encoder": weights}
    assert files("vlm-rm", BaselineConfig("open_clip:ViT-B-16:openai", goal=Path("g.png"))) == {}
    goal = BaselineConfig("small:a", goal=Path("g.png"))
    assert files("goal-image", goal) == {"encoder": Path("a/model.safetensors"), "goal": Path("g.png")}


@pytest.mark.parametrize("labeller", BASELINES)
def test_each_annotates_videos(labeller, of_frames, of_clips, small, banks, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for number in range(4):
        picture = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        write_video(tmp_path / f"{number}.mp4", (np.roll(picture, 3 * shift, 1) for shift in range(10)))
    command = ["annotate", "--videos", f"{tmp_path}/*.mp4", "--instruction", "open the drawer", "--pairs", "5"]
    command += ["--out", str(tmp_path / "labels.parquet"), "--labeller", labeller, "--threads", "1"]
    assert cli.main(command) == 2 and f"--labeller {labeller} needs --baseline.encoder" in capsys.readouterr().err
    encoder = {"goal-image": f"small:{small}", "roboclip": f"contrastive:{of_clips}"}.get(labeller, f"contrastive:{of_frames}")
    command += ["--baseline.encoder", encoder, "--baseline.goal", str(banks / TASKS[0])]
    assert cli.main(command) == 0
    table = read_preferences(tmp_path / "labels.parquet")
    goals = Goals([read_goal(banks / TASKS[0])], {"open the drawer": 0})
    scorer = load_baseline(labeller, BaselineConfig(encoder), 8, "cpu", goals)
    for side in "ab":
        clips = np.stack([video_clip(name)[[0, *range(8)]] for name in table[f"video_{side}"]])
        np.testing.assert_allclose(table[f"score_{side}"], scorer.score(clips, ["open the drawer"] * 5), atol=2e-3)
    np.testing.assert_allclose(table["label"], 1 / (1 + np.exp(table["score_a"] - table["score_b"])))
    assert (table["labeller"] == labeller).all()
    inputs = read_json(tmp_path / "labels.run" / "manifest.json")["inputs"]
    assert ("encoder" in inputs) and ("goal" in inputs) == (labeller == "goal-image")
