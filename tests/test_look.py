"""Where a scorer looks: occlusion and attention of scorers that look at a known place, and the command on real pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from robopref.configs import cli
from robopref.configs.errors import RoboprefError, UsageError
from robopref.configs.show import AttentionConfig
from robopref.configs.vlp import ModelConfig
from robopref.datasets.clips import Segment, render_clips
from robopref.datasets.episodes import EpisodeStore
from robopref.embodied.envs import make_env
from robopref.embodied.heat import GAP, bar, paint, sheet
from robopref.embodied.render import Renderer
from robopref.embodied.video import write_video
from robopref.policies.benchmarks.annotate import record_episodes, untrained_vlp
from robopref.preference import look
from robopref.preference.occlusion import Occlusion, occlusion
from robopref.preference.vlp import VLP, VLPScorer
from robopref.preference.words import HashedWords

SIZE = 64


class Watcher:
    """Sees white pixels and nothing else: the mean over frames of how many of one square are white, less those of another."""

    def score(self, clips, instructions):
        assert set(instructions) == {"look"} and clips.shape[1:] == (9, SIZE, SIZE, 3) and len(clips) <= 10
        white = (clips == 255).all(-1).mean(1)  # (N, H, W)
        return white[:, 16:24, 40:48].sum((1, 2)) - 0.5 * white[:, 48:56, 8:16].sum((1, 2))


def white_squares():
    clip = np.full((9, SIZE, SIZE, 3), 100, np.uint8)
    clip[:, 16:24, 40:48] = 255  # rows, columns
    clip[:, 48:56, 8:16] = 255
    return clip


def test_occlusion_finds_the_place_that_is_looked_at():
    clip = white_squares()
    found = occlusion(Watcher(), clip, "look", square=0.125, grid=8, batch=10)
    expected = np.zeros((8, 8))
    expected[2, 5], expected[6, 1] = 64, -32  # squares of 8 x 8 pixels that fit exactly
    np.testing.assert_array_equal(found.falls, expected)
    assert found.score == 32 and found.side == 8 and found.corners.tolist() == list(range(0, 64, 8))
    np.testing.assert_array_equal(clip, white_squares())  # what was given is as it was


def test_squares_that_cover_a_part_cost_that_part():
    found = occlusion(Watcher(), white_squares(), "look", square=0.125, grid=15, batch=10)  # every 4 pixels
    assert found.falls[4, 10] == 64 and found.falls[4, 9] == found.falls[5, 10] == 32 and found.falls[5, 9] == 16


def test_heat_is_where_the_square_was_whatever_the_size_of_the_picture():
    falls = np.zeros((8, 8))
    falls[2, 5] = 3.0
    found = Occlusion(1.0, falls, np.arange(0, 64, 8), 8)
    for size in (64, 224, 16):
        heat = found.heat(size)
        assert heat.shape == (size, size) and heat.min() == 0.0
        row, column = np.add(np.unravel_index(heat.argmax(), heat.shape), 0.5) / size
        assert row == pytest.approx(20 / 64, abs=0.04) and column == pytest.approx(44 / 64, abs=0.04)
    middle = found.heat(224)[70, 154]  # the pixel next to the middle, half a pixel of 28 to the next square's away in both axes
    assert middle == pytest.approx(3.0 * (1 - 0.5 / 28) ** 2)


def test_squares_may_not_leave_gaps_and_do_not_come_twice():
    with pytest.raises(UsageError, match="--grid 7: squares of 8 pixels leave gaps in 64; at least 8"):
        occlusion(Watcher(), white_squares(), "look", square=0.125, grid=7, batch=10)
    assert occlusion(Watcher(), white_squares(), "look", square=0.9, grid=50, batch=10).falls.shape == (7, 7)


class Patches:
    """A backbone with one token for each quarter of a frame: its mean colour."""

    digest, name, tokens_per_frame, image_dim, text_dim = "0", "patches", 4, 3, 64

    def encode_frames(self, frames):
        half = frames.shape[1] // 2
        quarters = torch.from_numpy(frames.reshape(-1, 2, half, 2, half, 3)).float().mean((2, 4)) / 255
        return quarters.reshape(len(frames), 4, 3)

    def encode_text(self, texts):
        return HashedWords().encode(texts)


def patchwork():
    torch.manual_seed(0)
    model = VLP(ModelConfig(dim=16, heads=2, hidden=(8, 8), dropout=0.0), 8, 4, 3, 64)
    return VLPScorer(model, Patches(), "0", "corner2-zoom", 8)


def test_attention_from_words_to_patches_is_read_while_the_model_scores():
    vlp = patchwork()
    clip = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
    score, shares = look.word_attention(vlp, clip, "close the drawer")
    assert score == vlp.score(clip[None], ["close the drawer"])[0]
    assert shares.shape == (8, 4) and shares.sum() == pytest.approx(1, abs=1e-5) and shares.std() > 0
    other, _ = look.word_attention(vlp, clip, "open it")
    assert other != score and not vlp.model.text_to_video._forward_pre_hooks, "no hook stays behind"


def test_a_model_without_such_attention_says_what_works(monkeypatch):
    vlp = patchwork()
    vlp.model.text_to_video = torch.nn.Identity()
    with pytest.raises(RoboprefError, match="use --method occlusion"):
        look.word_attention(vlp, np.zeros((9, 8, 8, 3), np.uint8), "close it")


def shown(count=8):
    pictures = np.full((count, 32, 32, 3), 90, np.uint8)
    return look.Clip("x", "close it", "x", np.zeros((1 + count, 8, 8, 3), np.uint8), pictures, ["step"] * count)


def test_patches_are_hot_where_the_attention_is(monkeypatch):
    shares = np.zeros((8, 4))
    shares[3, 1], shares[5, 2] = 0.75, 0.25  # top right of the fourth frame, bottom left of the sixth
    monkeypatch.setattr(look, "word_attention", lambda *args: (1.5, shares))
    found = look.attended(patchwork(), shown())
    red = np.stack([picture[..., 0].astype(int) - picture[..., 2] for picture in found.pictures])
    assert red[3, 2, 30] > 150 and 40 < red[5, 30, 2] < 80 and np.count_nonzero(red) == 2 * 16 * 16
    rows = found.numbers[found.numbers["value"] > 0]
    assert rows[["frame", "top", "left", "side", "value"]].to_numpy().tolist() == [[3, 0, 0.5, 0.5, 0.75], [5, 0.5, 0, 0.5, 0.25]]
    assert found.score == 1.5 and "75.00%" in found.notes and "no measure of importance" in found.notes


def test_an_opening_that_the_model_looks_at_is_in_the_numbers(monkeypatch):
    monkeypatch.setattr(look, "word_attention", lambda *args: (1.5, np.linspace(0, 1, 36).reshape(9, 4)))
    found = look.attended(patchwork(), shown())
    assert len(found.pictures) == 8 and found.numbers["frame"].tolist() == ["opening"] * 4 + [
        f for f in range(8) for _ in range(4)
    ]


def test_with_one_token_a_frame_there_are_bars_and_no_places(monkeypatch):
    shares = np.array([[0.4], [0.2], [0.1], [0.1], [0.05], [0.05], [0.05], [0.05]])
    monkeypatch.setattr(look, "word_attention", lambda *args: (1.5, shares))
    found = look.attended(patchwork(), shown())
    heights = [np.count_nonzero(picture[:, 16, 0] > 200) for picture in found.pictures]
    assert heights[0] > heights[1] > heights[2] > heights[4] > 0 and "nothing about places" in found.notes
    assert found.numbers["side"].unique().tolist() == [1.0]
    monkeypatch.setattr(look, "word_attention", lambda *args: (1.5, np.full((8, 3), 1 / 24)))
    with pytest.raises(RoboprefError, match="3 tokens a frame are no square"):
        look.attended(patchwork(), shown())


def test_paint_is_red_above_zero_and_blue_below_and_grey_at_it():
    frame = np.zeros((4, 6, 3), np.uint8)
    frame[..., 1] = 200
    out = paint(frame, np.array([[1.0, 0.0, -0.5]])).astype(int)
    assert (out[..., 0] - out[..., 2])[:, :2].min() > 100 and (out[..., 2] - out[..., 0])[:, 4:].min() > 50
    assert (out[:, 2:4] == out[:, 2:4, :1]).all() and (frame[..., 1] == 200).all()
    assert bar(np.zeros((64, 64, 3), np.uint8), 0.5, 0.0)[:50].max() == 0


def test_a_sheet_holds_its_pictures_untouched_under_its_words():
    rng = np.random.default_rng(0)
    rows = [[rng.integers(0, 256, (60, 80, 3), dtype=np.uint8) for _ in range(3)] for _ in range(2)]
    out = sheet(rows, "close the drawer", ["a note"], ["one", "two", "three"])
    assert out.shape[1] == 3 * (80 + GAP) + GAP
    for row, pictures in enumerate(rows):
        top = len(out) - (2 - row) * (60 + GAP)
        for column, picture in enumerate(pictures):
            left = GAP + column * (80 + GAP)
            np.testing.assert_array_equal(out[top : top + 60, left : left + 80], picture)
    assert (out[: len(out) - 2 * (60 + GAP)] > 200).any(), "words"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return untrained_vlp(tmp_path_factory.mktemp("vlp"))


@pytest.fixture(scope="module")
def episodes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return tuple(record_episodes(folder / name, count=2, steps=12) for name in ("one", "two"))


@pytest.fixture
def config(tmp_path, model, episodes):
    small = {"grid": 5, "square": 0.25, "size": 96, "quality": "fast", "threads": 1, "clips": 1, "level": "random"}
    return AttentionConfig(model=model, episodes=episodes, out=tmp_path / "out", **small)


def test_two_datasets_give_two_pictures_and_their_numbers(config, episodes):
    out = look.run(config)
    names = ["00-drawer-close-episode-0", "01-drawer-close-episode-0"]
    assert sorted(path.name for path in out.glob("[!.]*")) == [f"{name}.png" for name in names] + ["manifest.json", "maps.csv"]
    maps = pd.read_csv(out / "maps.csv")
    assert maps.groupby("clip").size().tolist() == [25, 25] and set(maps["clip"]) == set(names)
    assert set(maps["instruction"]) == {"close the drawer"} and set(maps["frame"]) == {"all"}
    assert maps["top"].unique().tolist() == maps["left"].unique().tolist() == [0.0, 0.1875, 0.375, 0.5625, 0.75]

    store = EpisodeStore(episodes[0])
    env = make_env(store.env_id)
    env.reset(seed=0)
    with Renderer(env, 64) as renderer:
        (clip,) = render_clips(store, [Segment(0, 0, 12)], renderer)
    env.close()
    covered = clip.copy()
    covered[:, 24:40, 12:28] = clip.mean((0, 1, 2)).round()
    whole, less = VLPScorer.load(config.model).score(np.stack([clip, covered]), ["close the drawer"] * 2)
    row = maps[(maps["clip"] == names[0]) & (maps["top"] == 0.375) & (maps["left"] == 0.1875)]
    assert row["score"].item() == pytest.approx(whole, rel=1e-4) and row["value"].item() == pytest.approx(whole - less, abs=1e-5)

    env = make_env(store.env_id)
    env.reset(seed=0)
    with Renderer(env, 96) as renderer:
        (large,) = render_clips(store, [Segment(0, 0, 12)], renderer)
    env.close()
    picture = np.asarray(Image.open(out / f"{names[0]}.png"))
    top = len(picture) - 2 * (96 + GAP)
    np.testing.assert_array_equal(picture[top : top + 96, GAP : GAP + 96], large[1])  # upright, and sharper than what is seen


def test_what_is_there_is_kept_and_another_question_is_another_picture(config):
    out = look.run(config)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    look.run(config)
    assert before == {path: path.stat().st_mtime_ns for path in out.iterdir()}
    other = AttentionConfig(**vars(config) | {"instruction": "open the drawer"})
    with pytest.raises(RoboprefError, match=r"open the drawer asked for.*: choose another --out, or replace it with --overwrite"):
        look.run(other)
    assert before == {path: path.stat().st_mtime_ns for path in out.iterdir()}
    look.run(replace(other, overwrite=True))
    assert set(pd.read_csv(out / "maps.csv")["instruction"]) == {"open the drawer"}


def test_attention_of_the_small_backbone_says_when(config):
    maps = pd.read_csv(look.run(AttentionConfig(**vars(config) | {"method": "attention"})) / "maps.csv")
    assert maps["frame"].tolist() == [*range(8)] * 2
    assert maps.groupby("clip")["value"].sum().tolist() == pytest.approx([1, 1], abs=1e-4)


def test_the_command_looks_at_videos(model, tmp_path, capsys):
    for number in range(2):
        frames = np.random.default_rng(number).integers(0, 256, (10, 48, 64, 3), dtype=np.uint8)
        write_video(tmp_path / f"{number}.mp4", frames)
    argv = ["--model", str(model), "--videos", f"{tmp_path}/*.mp4", "--out", str(tmp_path / "out"), "--grid", "5"]
    argv += ["--square", "0.25", "--size", "80", "--threads", "1"]
    assert cli.main(["attention", *argv]) == 2  # what is asked of a video has to be said
    assert "--videos needs --instruction" in capsys.readouterr().err
    assert cli.main(["attention", *argv, "--instruction", "close it"]) == 0
    end = f"{tmp_path}/out: a picture a clip, and their numbers in maps.csv"
    assert capsys.readouterr().out.splitlines() == [f"{tmp_path}/out/00-0.png", f"{tmp_path}/out/01-1.png", end]


def test_a_broken_video_is_named_before_the_first_picture_is_drawn(model, tmp_path, capsys):
    frames = np.random.default_rng(0).integers(0, 256, (10, 48, 64, 3), dtype=np.uint8)
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4", frames)
    whole = (tmp_path / "b.mp4").read_bytes()
    argv = ["attention", "--model", str(model), "--videos", f"{tmp_path}/*.mp4", "--out", str(tmp_path / "out")]
    for content, fault in ((whole[: len(whole) // 2], "not a whole video"), (b"", "empty")):
        (tmp_path / "b.mp4").write_bytes(content)
        assert cli.main([*argv, "--instruction", "close it"]) == 1
        assert f"error: {tmp_path}/b.mp4: {fault}" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"episodes": ()}, "either --episodes DIR or --videos FILES"),
        ({"videos": ("x.mp4",)}, "either --episodes DIR or --videos FILES"),
        ({"episodes": (), "videos": ("x.mp4",)}, "^attention: --videos needs --instruction: say what the robot should do"),
        ({"grid": 1}, "--grid at least 2"),
        ({"square": 1.0}, "--square 1.0 is a share"),
        ({"square": 0.1}, "leave gaps"),
        ({"clips": 0}, "--clips"),
    ],
)
def test_settings_that_do_not_go_together(config, changes, message):
    with pytest.raises(UsageError, match=message):
        look.run(AttentionConfig(**vars(config) | changes))


def test_a_level_that_is_not_there_is_named(config):
    with pytest.raises(RoboprefError, match=r"no expert episode, --level is one of random"):
        look.run(AttentionConfig(**vars(config) | {"level": "expert"}))
    with pytest.raises(RoboprefError, match=r"Did you mean 'random'"):
        look.run(AttentionConfig(**vars(config) | {"level": "randm"}))
